"""The catalogue: an immutable snapshot of all items, and the way from item hashes to its rows.

Not where items come from, and not their vectors: those belong to the topic's reader and to the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.history import item_hash, item_hashes, seen_hash
from model.slots import Slots


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
class Members:
    """Which items are in which category: those of category c, by its number, are rows[ends[c]:ends[c + 1]], ascending;
    ends i64[C+1], rows i32[S].
    """

    number: Mapping[str, int]
    ends: NDArray[np.int64]
    rows: NDArray[np.int32]

    @staticmethod
    def of_items(categories: Sequence[tuple[str, ...]]) -> Members:
        """From the categories of each item."""
        number: dict[str, int] = {}
        every = (number.setdefault(name, len(number)) for names in categories for name in names)
        codes = np.fromiter(every, np.int32)
        sizes = np.fromiter(map(len, categories), np.int64, len(categories))
        rows = np.repeat(np.arange(len(categories), dtype=np.int32), sizes)
        ends = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(number)))]).astype(np.int64)
        return Members(number, ends, rows[np.argsort(codes, kind="stable")])

    def of(self, name: str) -> NDArray[np.int32]:
        """The rows of a category; none where nothing is in it."""
        c = self.number.get(name)
        return self.rows[:0] if c is None else self.rows[self.ends[c] : self.ends[c + 1]]

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The category of each of `rows`, i64[S]."""
        return np.repeat(np.arange(len(self.number)), np.diff(self.ends))

    def table(self, items: int) -> Any:
        """The same by item, CSR f32[N,C] of ones, categories ascending."""
        ones = np.ones(len(self.rows), np.float32)
        return sparse.csr_array((ones, (self.rows, self.numbers)), shape=(items, len(self.number)))


@dataclass(frozen=True, eq=False)
class Catalog:
    """N items sorted by id. Row numbers are only good within one snapshot: hashes are what lasts.

    own f32[N,M]: the vectors that items bring themselves, at length 1; M is the length that most of them have, 0
    without any, and an item without one, or with one of another length, has zeros. price f32[N], NaN = none. group
    i32[N]: a number for each `item_group_id`, -1 = none.
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
    price: NDArray[np.float32] = field(repr=False)
    group: NDArray[np.int32] = field(repr=False)
    members: Members = field(repr=False)
    _slots: Slots = field(repr=False)

    @staticmethod
    def build(items: Mapping[str, Item], version: int = 1) -> Catalog:
        """A snapshot of `items` (id -> item). Raises HashCollisionError, which names both ids."""
        ids = sorted(items)
        hashes = item_hashes(ids) if ids else np.zeros(0, np.uint64)
        check_distinct(ids, hashes)
        categories = [tuple(dict.fromkeys(items[i].categories)) for i in ids]  # each once, however often it is named
        prices = (np.nan if (price := items[i].price) is None else price for i in ids)
        return Catalog(
            ids=ids,
            titles=[items[i].title for i in ids],
            texts=[items[i].text_for_encoder() for i in ids],
            categories=categories,
            in_stock=np.array([items[i].in_stock for i in ids], bool),
            hashes=hashes,
            version=version,
            seen32=seen_hash(hashes),
            own=_own(ids, items),
            price=np.fromiter(prices, np.float32, len(ids)),
            group=_numbered(items[i].item_group_id for i in ids),
            members=Members.of_items(categories),
            _slots=Slots(hashes),
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

    def rows_of(self, ids: Iterable[str]) -> NDArray[np.int32]:
        """Rows of these items, ascending; those that the catalogue does not have are left out."""
        rows = self.index_of(np.array([item_hash(i) for i in ids], np.uint64))
        return np.unique(rows[rows >= 0])

    def in_any(self, categories: Iterable[str]) -> NDArray[np.bool_]:
        """Which items are in one of these categories, bool[N]."""
        found = np.zeros(len(self), bool)
        for name in categories:
            found[self.members.of(name)] = True
        return found

    def index_of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Row of each item hash, i32 of the same shape; -1 where the catalogue does not have it (0, "no
        item", included).
        """
        return self._slots.find(hashes)


def _numbered(names: Iterable[str | None]) -> NDArray[np.int32]:
    """See `Catalog.group`."""
    number: dict[str, int] = {}
    return np.fromiter((number.setdefault(name, len(number)) if name else -1 for name in names), np.int32)


def _own(ids: list[str], items: Mapping[str, Item]) -> NDArray[np.float32]:
    """See `Catalog.own`."""
    lengths = Counter(len(vector) for i in ids if (vector := items[i].vector))
    own = np.zeros((len(ids), lengths.most_common(1)[0][0] if lengths else 0), np.float32)
    for row, i in enumerate(ids):
        if (vector := items[i].vector) and len(vector) == own.shape[1]:
            own[row] = np.array(vector, np.float32) / max(float(np.linalg.norm(vector)), 1e-9)
    return own


def check_distinct(ids: list[str], hashes: NDArray[np.uint64]) -> None:
    """Raises HashCollisionError, naming the two ids, where two hashes are equal."""
    order = np.argsort(hashes, kind="stable")
    ranked = hashes[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):
        one, other = ids[order[same[0]]], ids[order[same[0] + 1]]
        raise HashCollisionError(f"items {one!r} and {other!r} have one 64-bit hash: rename one of them")
