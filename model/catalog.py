"""The catalogue: an immutable snapshot of all items, and the way from item hashes to its rows.

Not where items come from, and not their vectors: those belong to the topic's reader and to the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.history import item_hashes, seen_hash


class HashCollisionError(ValueError):
    """Two item ids share one 64-bit hash; state could not tell them apart. Rename one of them."""


class Item(msgspec.Struct):
    """One item as its owner describes it. `vector` is the item's own embedding (image, audio), where there is
    one.
    """

    item: str
    title: str
    text: str | None = None
    categories: list[str] = []
    price: float | None = None
    in_stock: bool = True
    vector: list[float] | None = None
    item_group_id: str | None = None

    def text_for_encoder(self) -> str:
        """What BERT reads: title, categories, text."""
        parts = [self.title, ", ".join(self.categories), self.text or ""]
        return ". ".join(p.strip().rstrip(".") for p in parts if p.strip())


@dataclass(frozen=True, eq=False)
class Catalog:
    """N items sorted by id. Row numbers are only good within one snapshot: hashes are what lasts.

    own f32[N,M]: the vectors that items bring themselves, at length 1; M is the length that most of them have, 0
    without any, and an item without one, or with one of another length, has zeros.
    """

    ids: list[str]
    titles: list[str]
    texts: list[str] = field(repr=False)
    categories: list[tuple[str, ...]]
    in_stock: NDArray[np.bool_]
    hashes: NDArray[np.uint64]
    version: int
    seen32: NDArray[np.uint32] = field(repr=False)
    own: NDArray[np.float32] = field(repr=False)
    _sorted: NDArray[np.uint64] = field(repr=False)
    _row: NDArray[np.int32] = field(repr=False)

    @staticmethod
    def build(items: Mapping[str, Item], version: int = 1) -> Catalog:
        """A snapshot of `items` (id -> item). Raises HashCollisionError, which names both ids."""
        ids = sorted(items)
        hashes = item_hashes(ids) if ids else np.zeros(0, np.uint64)
        order = check_distinct(ids, hashes)
        return Catalog(
            ids=ids,
            titles=[items[i].title for i in ids],
            texts=[items[i].text_for_encoder() for i in ids],
            categories=[tuple(items[i].categories) for i in ids],
            in_stock=np.array([items[i].in_stock for i in ids], bool),
            hashes=hashes,
            version=version,
            seen32=seen_hash(hashes),
            own=_own(ids, items),
            _sorted=hashes[order],
            _row=order.astype(np.int32),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def contents(self, texts: NDArray[np.float32], own_dim: int) -> NDArray[np.float32]:
        """Text vectors f32[N,P] with the items' own vectors beside them, f32[N,P+own_dim]; zeros for the latter where
        items of this snapshot bring none of that length.
        """
        if not own_dim:
            return texts
        own = self.own if self.own.shape[1] == own_dim else np.zeros((len(self), own_dim), np.float32)
        return np.concatenate([texts, own], axis=1)

    def index_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Row of each item hash, i32 of the same shape; -1 where the catalogue does not have it (0, "no
        item", included).
        """
        if not len(self._sorted):
            return np.full(np.shape(hashes), -1, np.int32)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        return np.where(self._sorted[at] == hashes, self._row[at], np.int32(-1)).astype(np.int32)


def _own(ids: list[str], items: Mapping[str, Item]) -> NDArray[np.float32]:
    """See `Catalog.own`."""
    lengths = Counter(len(vector) for i in ids if (vector := items[i].vector))
    own = np.zeros((len(ids), lengths.most_common(1)[0][0] if lengths else 0), np.float32)
    for row, i in enumerate(ids):
        if (vector := items[i].vector) and len(vector) == own.shape[1]:
            own[row] = np.array(vector, np.float32) / max(float(np.linalg.norm(vector)), 1e-9)
    return own


def check_distinct(ids: list[str], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The order that sorts the hashes. Raises HashCollisionError, naming the two ids, where two are equal."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):
        one, other = ids[order[same[0]]], ids[order[same[0] + 1]]
        raise HashCollisionError(f"items {one!r} and {other!r} have one 64-bit hash: rename one of them")
    return order
