"""Item-kNN: items are alike when the same people met them (cosine, shrunk), each knows its nearest k (Sarwar 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.matrix import decayed, history_matrix, met_matrix
from model.replay import Timeline

BLOCK = 16_000_000
"""Numbers of the dense matrix that are looked at together."""
GRID = {
    "neighbours": (50, 200, 1000, 4000),
    "shrink": (1.0, 5.0, 20.0, 100.0),
    "recency": (0.6, 0.7, 0.8, 0.9, 0.95, 1.0),
}


class ItemKnn(Method):
    """Over N items. recency: weight of an item of the history relative to the next newer one."""

    name = "item-knn"

    def __init__(self, items: int, neighbours: int = 200, shrink: float = 20.0, recency: float = 1.0) -> None:
        self._items, self._neighbours, self._shrink, self._recency = items, neighbours, shrink, recency
        self._together = _Together()
        self._alike: Any = sparse.csr_array((items, items), dtype=np.float32)

    def learn(self, line: Timeline, end: int) -> None:
        together, often = self._together.of(line, end, self._items)
        norm = np.sqrt(np.maximum(often, 1e-9)).astype(np.float32)
        block, parts = max(1, BLOCK // max(self._items, 1)), []
        for first in range(0, self._items, block):
            some = together[first : first + block].toarray()
            own = np.arange(len(some))
            some[own, first + own] = 0
            some /= norm[first : first + block, None] * norm[None] + self._shrink
            parts.append(_kept(some, self._neighbours))
        self._alike = sparse.vstack(parts, format="csr")

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        wanted = history_matrix(asked.rows, self._items, decayed(asked.rows, self._recency))
        return (wanted @ self._alike).toarray()

    def settings(self) -> dict[str, object]:
        return {"neighbours": self._neighbours, "shrink": self._shrink, "recency": self._recency}

    def variants(self) -> Sequence[Method]:
        found = [ItemKnn(self._items, **change) for change in sweep(self.settings(), GRID)]
        for other in found:
            other._together = self._together
        return found


class _Together:
    """How many people met two items, kept for the variants of one method: they differ in what they make of it."""

    def __init__(self) -> None:
        self._of: tuple[Timeline | None, int] = (None, 0)

    def of(self, line: Timeline, end: int, items: int) -> tuple[Any, NDArray[np.float32]]:
        """CSR f32[N,N], and how many people met each item, f32[N]."""
        if self._of != (line, end):
            met = met_matrix(line, end, items)
            self._found = (met.T @ met).tocsr(), np.asarray(met.sum(0)).ravel()
            self._of = (line, end)
        return self._found


def _kept(alike: NDArray[np.float32], k: int) -> Any:
    """CSR of the k greatest values of each row."""
    if k < alike.shape[1]:
        least = -np.partition(-alike, k - 1, axis=1)[:, k - 1 : k]
        alike = np.where(alike >= least, alike, 0)
    return sparse.csr_array(alike)


def nearest(
    row: NDArray[np.integer], col: NDArray[np.integer], value: NDArray[np.floating], k: int
) -> tuple[NDArray, NDArray, NDArray]:
    """The k entries of each row with the greatest values."""
    order = np.lexsort((-value, row))
    row, col, value = row[order], col[order], value[order]
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.zeros(0, np.int64)
    place = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))
    return row[place < k], col[place < k], value[place < k]
