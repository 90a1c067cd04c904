"""What all FAISS indexes (Johnson, Douze and Jegou, 2017) share: a change is built aside and swapped in, what must not
be found is masked.

Not a structure: `flat`, `graph` and `quantised` are. FAISS cannot remove from a graph, and its GPU indexes ignore id
selectors, so nothing here relies on either. A removed vector stays in the structure without an id until an eighth of
it is such; a search asks for a few more than it needs, then for as many as what was masked among these lets expect, and
compares all where nothing is left. Some of many a structure may miss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from index import base
from index.base import Bytes, Ids, Vectors
from index.library import faiss

SPARE = 16
"""Neighbours that are asked for beyond k where some are masked, at least; or a quarter as many again."""
GROWTH, MARGIN = 2, 1.5
"""Where too few are left: at least so many times as many are asked for, and so many times what should do."""
FEW_ALLOWED = 8
"""Where fewer than an eighth may be found, these are compared, and the structure is not asked."""
DEAD_SHARE = 0.125
"""Removed vectors that a structure may hold before it is built anew."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A structure, its vectors f32[n,d] as FAISS holds them or as they were given, and their ids i64[n], -1 = removed.
    Replaced as a whole, so that a search on another thread sees one or the other.
    """

    ids: Ids
    vectors: Vectors
    structure: Any

    @cached_property
    def alive(self) -> int:
        return int((self.ids != -1).sum())

    @cached_property
    def _order(self) -> Ids:
        return np.argsort(self.ids, kind="stable")

    def places(self, wanted: Ids) -> Ids:
        """Where each wanted id stands, i64[m]; -1 where it does not."""
        return base.places(self.ids, wanted, self._order)

    def only(self, allowed: Ids) -> Snapshot:
        """The same without what is not allowed: the few that are allowed, or all with the others as if removed."""
        at = self.places(allowed[allowed != -1])
        at = np.unique(at[at >= 0])
        if len(at) * FEW_ALLOWED < len(self.ids):
            return Snapshot(self.ids[at], self.vectors[at], None)
        ids = np.full_like(self.ids, -1)
        ids[at] = self.ids[at]
        return replace(self, ids=ids)


class FaissIndex(ABC):
    """Vectors by id, searched through a FAISS structure."""

    kind: ClassVar[str]
    device = "cpu"

    def __init__(self, dim: int) -> None:
        self.recall: float | None = None
        self.why = ""
        self._dim = dim
        self._now = self._snapshot(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors, **settings: Any) -> Self:
        """An index of these. Raises ValueError as `add` does."""
        index = cls(vectors.shape[1], **settings)
        index._now = index._snapshot(*base.check(ids, vectors, index.dim))
        return index

    @property
    def dim(self) -> int:
        return self._dim

    @property
    def structure(self) -> Any:
        """FAISS's own, as it is now; not to be changed."""
        return self._now.structure

    def __len__(self) -> int:
        return self._now.alive

    def add(self, ids: Ids, vectors: Vectors) -> None:
        ids, vectors = base.check(ids, vectors, self.dim)
        self._now = self._changed(self._now, ids, vectors, gone=ids)

    def remove(self, ids: Ids) -> int:
        before = len(self)
        nothing = np.zeros(0, np.int64), np.zeros((0, self.dim), np.float32)
        self._now = self._changed(self._now, *nothing, gone=np.asarray(ids, np.int64))
        return before - len(self)

    def updated(self, ids: Ids, vectors: Vectors) -> Self:
        """An index of exactly these vectors: this one where it has them. Else this one stays as it is, and what has not
        changed is not put in again.
        """
        ids, vectors = base.check(ids, vectors, self.dim)
        now = self._now
        place = now.places(ids)
        kept = place >= 0
        kept[kept] = _equal(now.vectors, place[kept], vectors[kept])
        if kept.all() and len(kept) == now.alive:
            return self
        other = copy(self)
        other.recall = None
        other._now = self._changed(now, ids[~kept], vectors[~kept], gone=np.setdiff1d(now.ids, ids[kept]))
        return other

    def search(
        self, vectors: Vectors, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        now, query = self._now, np.ascontiguousarray(vectors, np.float32)
        if not exclude and allow is None and k <= len(now.ids) == now.alive:
            scores, at = self._found(now, query, k)
            if at.size and at.min() >= 0:
                return scores, now.ids[at]
        excluded = [np.sort(ids) for ids in exclude or ()]
        return self._masked(now if allow is None else now.only(np.asarray(allow, np.int64)), query, k, excluded)

    def _masked(self, now: Snapshot, query: Vectors, k: int, excluded: Sequence[Ids]) -> tuple[Vectors, Ids]:
        """`search`, where something may not be found. excluded: ascending."""
        n, most = len(now.ids), max(map(len, excluded), default=0)
        enough = min(k + most + n - now.alive, n)
        fetch = (k + min(most, max(SPARE, k // 4))) * n // max(now.alive, 1) + 1
        if most > fetch:  # what is looked at in any case tells more of what is masked
            fetch = max(fetch, self._looked_at(n))
        fetch, rows = min(fetch, enough), np.arange(len(query))
        if not (fetch and len(rows)):
            return np.full((len(query), k), -np.inf, np.float32), np.full((len(query), k), -1, np.int64)
        found = compared if now.structure is None else self._found
        scores, ids, left = _left(now, found(now, query, fetch), excluded, k)
        while True:
            if fetch < enough:
                short = left < min(k, now.alive)
                fetch, rows = _further(fetch, k, left[short], enough), rows[short]
            elif found is not compared:  # the structure has no more to give
                rows, found = rows[left == 0], compared
            else:
                break
            if not len(rows):
                break
            without = [excluded[row] for row in rows.tolist()] if excluded else ()
            scores[rows], ids[rows], left = _left(now, found(now, query[rows], fetch), without, k)
        return scores, ids

    def save(self, path: Path) -> None:
        now = self._now
        base.save(path, base.Saved(now.ids, now.vectors, self.kind, self._structure_bytes(now), self.recall))

    @classmethod
    def load(cls, path: Path) -> Self:
        return cls.revived(base.load(path))

    @classmethod
    def revived(cls, saved: base.Saved) -> Self:
        """What was saved; a structure of another kind is built."""
        index = cls(saved.vectors.shape[1])
        if saved.kind == cls.kind and saved.structure is not None:
            index._now = index._revived(saved, saved.structure)
            index.recall = saved.recall
        else:
            alive = saved.ids != -1
            index._now = index._snapshot(saved.ids[alive], saved.vectors[alive])
        return index

    def stats(self) -> dict[str, Any]:
        known = {"kind": self.kind, "device": self.device, "size": len(self), "dim": self.dim}
        return {**known, "recall": self.recall, "why": self.why}

    # What a structure is

    def wider(self) -> bool:
        """Search more widely from now on, where that is possible: slower, and finds more."""
        return False

    def _looked_at(self, n: int) -> int:
        """Neighbours that a search of n vectors looks at in any case, however few are asked for."""
        return 0

    @abstractmethod
    def _built(self, vectors: Vectors) -> Any:
        """A structure of vectors f32[n,d], n of any size."""

    @abstractmethod
    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        """Scores f32[B,fetch], descending, and places in the structure i64[B,fetch]; -inf and -1: none."""

    def _grown(self, now: Snapshot, vectors: Vectors) -> Any:
        """A copy of a structure with more vectors behind the others."""
        structure = faiss.clone_index(now.structure)
        structure.add(vectors)
        return structure

    def _held(self, structure: Any) -> Vectors | None:
        """The vectors as the structure holds them, so that they are in memory once; None where it does not."""
        return None

    def _structure_bytes(self, now: Snapshot) -> Bytes | None:
        """What is saved beside the vectors, u8; None where building anew costs as little as loading."""
        return None

    def _revived(self, saved: base.Saved, structure: Bytes) -> Snapshot:
        """The snapshot that was saved, its structure with it."""
        raise NotImplementedError

    # Changes

    def _snapshot(self, ids: Ids, vectors: Vectors) -> Snapshot:
        structure = self._built(vectors)
        held = self._held(structure)
        return Snapshot(ids, vectors if held is None else held, structure)

    def _changed(self, now: Snapshot, ids: Ids, vectors: Vectors, gone: Ids) -> Snapshot:
        """The snapshot without the `gone`, and with new vectors under ids that it does not have then."""
        left = np.where(np.isin(now.ids, gone), np.int64(-1), now.ids)
        alive = left != -1
        if (~alive).sum() > DEAD_SHARE * len(left) or len(ids) > alive.sum():
            return self._snapshot(np.concatenate([left[alive], ids]), np.concatenate([now.vectors[alive], vectors]))
        if not len(ids):
            return replace(now, ids=left)
        structure = self._grown(now, vectors)
        held = self._held(structure)
        held = np.concatenate([now.vectors, vectors]) if held is None else held
        return Snapshot(np.concatenate([left, ids]), held, structure)


def _equal(held: Vectors, places: Ids, vectors: Vectors, step: int = 65_536) -> np.ndarray:
    """bool[n]: which of vectors f32[n,d] are held at their places i64[n]; a part at a time, for memory's sake."""
    out = np.zeros(len(places), bool)
    for at in range(0, len(places), step):
        part = slice(at, at + step)
        out[part] = (held[places[part]] == vectors[part]).all(1)
    return out


def for_size(table: Mapping[int, int], n: int) -> int:
    """What a table has for n vectors: least number of them -> what is for so many and more, growing."""
    return max(value for least, value in table.items() if n >= least)


def use_threads(n: int) -> None:
    """How many threads FAISS uses for what the calling thread asks of it, and for nobody else."""
    faiss.omp_set_num_threads(n)


def flat_of(vectors: Vectors) -> Any:
    """A FAISS structure that compares all."""
    flat = faiss.IndexFlatIP(vectors.shape[1])
    if len(vectors):
        flat.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
    return flat


def stored(flat: Any) -> Vectors | None:
    """A flat structure's vectors f32[n,d], not copied; good as long as the structure. None where it has none."""
    if not flat.ntotal:
        return None
    return faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)


def compared(now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
    """All vectors compared with each query: the last resort where a structure finds nothing."""
    return faiss.knn(query, np.ascontiguousarray(now.vectors), fetch, metric=faiss.METRIC_INNER_PRODUCT)


def _among(ids: Ids, ascending: Ids) -> np.ndarray:
    """bool[n]: which of ids i64[n] are among others, which are in order."""
    if not len(ascending):
        return np.zeros(len(ids), bool)
    return ascending[np.minimum(np.searchsorted(ascending, ids), len(ascending) - 1)] == ids


def _further(fetch: int, k: int, left: NDArray[np.integer], enough: int) -> int:
    """How many to ask for next, where of so many i64[B] were left, fewer than k each: further out no more is masked, as
    a rule. `enough` where that is hardly more.
    """
    if not left.any():
        return enough
    grown = int(fetch * max(GROWTH, MARGIN * k / left.mean()))
    return grown if 2 * grown < enough else enough


def _left(
    now: Snapshot, found: tuple[Vectors, Ids], excluded: Sequence[Ids], k: int
) -> tuple[Vectors, Ids, NDArray[np.integer]]:
    """Of what was found, scores and places [B,F], the first k that are not masked, f32[B,k] and as ids i64[B,k]; and
    how many were left in all, i[B]. excluded: ascending.
    """
    near, at = found
    names = now.ids[at]
    names[at < 0] = -1
    for row, ids in enumerate(excluded):
        names[row, _among(names[row], ids)] = -1
    there = names != -1
    if len(names) == 1 and len(kept := there[0].nonzero()[0]) >= k:
        return near[:, kept[:k]], names[:, kept[:k]], np.array([len(kept)])
    order = np.argsort(~there, axis=1, kind="stable")[:, :k]
    rows = np.arange(len(names))[:, None]
    left, ids = there.sum(1), names[rows, order]
    scores = np.where(ids != -1, near[rows, order], np.float32(-np.inf))
    if ids.shape[1] == k:
        return scores, ids, left
    pad = ((0, 0), (0, k - ids.shape[1]))
    return np.pad(scores, pad, constant_values=-np.inf), np.pad(ids, pad, constant_values=-1), left
