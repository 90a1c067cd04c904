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

BLOCK = 2048
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
        self._alike: Any = sparse.csr_array((items, items), dtype=np.float32)

    def learn(self, line: Timeline, end: int) -> None:
        met = met_matrix(line, end, self._items)
        norm = np.sqrt(np.maximum(np.asarray(met.sum(0)).ravel(), 1e-9))
        columns, parts = met.T.tocsr(), []
        for first in range(0, self._items, BLOCK):
            some = (columns[first : first + BLOCK] @ met).tocoo()
            row = some.row + first
            keep = row != some.col
            value = some.data[keep] / (norm[row[keep]] * norm[some.col[keep]] + self._shrink)
            parts.append(nearest(row[keep], some.col[keep], value, self._neighbours))
        row, col, value = (np.concatenate(c) for c in zip(*parts, strict=True))
        self._alike = sparse.csr_array((value.astype(np.float32), (row, col)), shape=(self._items, self._items))

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        wanted = history_matrix(asked.rows, self._items, decayed(asked.rows, self._recency))
        return (wanted @ self._alike).toarray()

    def settings(self) -> dict[str, object]:
        return {"neighbours": self._neighbours, "shrink": self._shrink, "recency": self._recency}

    def variants(self) -> Sequence[Method]:
        return [ItemKnn(self._items, **change) for change in sweep(self.settings(), GRID)]


def nearest(
    row: NDArray[np.integer], col: NDArray[np.integer], value: NDArray[np.floating], k: int
) -> tuple[NDArray, NDArray, NDArray]:
    """The k entries of each row with the greatest values."""
    order = np.lexsort((-value, row))
    row, col, value = row[order], col[order], value[order]
    starts = np.flatnonzero(np.r_[True, row[1:] != row[:-1]]) if len(row) else np.zeros(0, np.int64)
    place = np.arange(len(row)) - np.repeat(starts, np.diff(np.r_[starts, len(row)]))
    return row[place < k], col[place < k], value[place < k]
