"""The matrix of who met what, and histories as rows of it: what item-kNN and EASE have in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.replay import Timeline, liked


def met_matrix(line: Timeline, end: int, items: int) -> Any:
    """CSR f32[U,N] of ones: who met what among the first `end` events."""
    at = liked(line, 0, end)
    users = np.unique(line.users[at], return_inverse=True)[1]
    shape = (int(users.max(initial=-1)) + 1, items)
    met = sparse.csr_array((np.ones(len(at), np.float32), (users, line.rows[at])), shape=shape)
    met.sum_duplicates()
    met.data[:] = 1
    return met


def history_matrix(rows: NDArray[np.int32], items: int, weights: NDArray[np.float32] | None = None) -> Any:
    """CSR f32[B,N] of histories i32[B,L] (-1 = none): the summed weights f32[B,L] of each item, 1 each unless given."""
    there = rows >= 0
    ends = np.concatenate([[0], np.cumsum(there.sum(1))])
    data = np.ones(int(ends[-1]), np.float32) if weights is None else weights[there].astype(np.float32)
    made = sparse.csr_array((data, rows[there], ends), shape=(len(rows), items))
    made.sum_duplicates()
    return made


def decayed(rows: NDArray[np.int32], recency: float) -> NDArray[np.float32]:
    """f32[B,L]: recency^(places from the newest that is there), 0 where none is."""
    there = rows >= 0
    newer = np.cumsum(there[:, ::-1], axis=1)[:, ::-1] - 1
    return np.where(there, recency**newer, 0).astype(np.float32)
