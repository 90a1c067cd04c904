"""Walks of two steps over what was met together: a counter for short sessions, nothing of it trained.

Co-occurrence counts weigh 1 / distance, count backwards too, and are shrunk; from the window one step is taken, and a
second, lesser one from where the first leads, so that items that were never met together are still joined by one
between. Beside it: what the session has met already, and popularity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.itemknn import nearest
from model.evaluation.methods.matrix import decayed, history_matrix
from model.online import PAIR_STEPS
from model.replay import Timeline, liked

NEIGHBOURS = 100
"""Steps kept from each item: the likeliest."""
REFRESH = 1000
"""Events that may wait until they are learned, where events are told on the way."""
GRID = {
    "back": (0.0, 0.5, 0.8, 1.0),
    "shrink": (1.0, 5.0, 20.0, 50.0),
    "second": (0.0, 0.1, 0.3, 1.0, 3.0),
    "recency": (0.3, 0.5, 0.7, 0.85, 0.95),
    "repeat": (0.0, 0.1, 0.2, 0.4, 0.8),
    "repeat_recency": (0.5, 0.7, 0.8, 0.9, 1.0),
    "popular": (0.001, 0.01, 0.1, 1.0),
}
START = {
    "back": 0.8,
    "shrink": 20.0,
    "second": 0.3,
    "recency": 0.7,
    "repeat": 0.4,
    "repeat_recency": 0.8,
    "popular": 0.01,
}


class Walks(Method):
    """Over N items; settings as in `GRID`."""

    name = "walks"

    def __init__(self, items: int, settings: dict[str, float] | None = None) -> None:
        self._items, self._settings = items, dict(settings or START)

    def learn(self, line: Timeline, end: int) -> None:
        self._learned = 0
        self._met = np.zeros(self._items)
        self._together: Any = sparse.csr_array((self._items, self._items), dtype=np.float32)
        self.steps: Any = sparse.csr_array((self._items, self._items), dtype=np.float32)
        self.take(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        if self.due(last):
            self.take(line, last)

    def due(self, last: int) -> bool:
        """Whether enough has happened by event `last` to be learned."""
        return last - self._learned >= REFRESH

    def take(self, line: Timeline, end: int) -> None:
        """Events up to `end` are learned; only the steps from items that they touch are computed anew."""
        at = liked(line, 0, end)
        since = int(np.searchsorted(at, self._learned))
        users, rows = line.users[at], line.rows[at]
        self._learned = end
        self._met += np.bincount(rows[since:], minlength=self._items)
        self.popular = ((self._met + 0.1) / (self._met.sum() + 0.1 * self._items)).astype(np.float32)
        followed = near_pairs(users, rows, self._items, since)
        new = (followed + self._settings["back"] * followed.T).tocsr()
        self._together = self._together + new
        touched = np.diff(new.indptr) > 0
        touched[rows[since:]] = True
        from_ = np.flatnonzero(touched)
        some = self._together[from_].tocoo()
        value = some.data / (self._met[from_[some.row]] + self._settings["shrink"])
        row, col, value = nearest(from_[some.row], some.col, value, NEIGHBOURS)
        kept = sparse.diags_array((~touched).astype(np.float32)) @ self.steps
        kept.eliminate_zeros()
        self.steps = kept + sparse.csr_array((value.astype(np.float32), (row, col)), shape=self.steps.shape)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return self.summed(asked.window(), *self.walked(asked.window()))

    def walked(self, window: NDArray[np.int32]) -> tuple[Any, Any]:
        """Where one step and two lead from windows i32[B,K]: CSR f32[B,N] each."""
        first = self.shares(window, "recency") @ self.steps
        return first, first @ self.steps

    def summed(self, window: NDArray[np.int32], first: Any, second: Any) -> NDArray[np.float32]:
        """The score f32[B,N] of steps that were walked."""
        s = self._settings
        whole = first + s["second"] * second + s["repeat"] * self.shares(window, "repeat_recency")
        return whole.toarray() + np.float32(s["popular"]) * self.popular

    def shares(self, window: NDArray[np.int32], setting: str) -> Any:
        """CSR f32[B,N]: the window's items, fading as a setting says, summing to 1."""
        weights = decayed(window, self._settings[setting])
        return history_matrix(window, self._items, weights / np.maximum(weights.sum(1, keepdims=True), 1e-9))

    def settings(self) -> dict[str, object]:
        return dict(self._settings)

    def variants(self) -> Sequence[Method]:
        return [Walks(self._items, change) for change in sweep(self._settings, GRID)]


def near_pairs(users: NDArray[np.int64], rows: NDArray[np.int32], items: int, since: int = 0) -> Any:
    """CSR f32[N,N]: for two different items that a user met at most `PAIR_STEPS` apart, the first before the
    second, the sum of 1 / distance. users and rows of n events in order; since: only where the second of the two is
    event number `since` or a later one.
    """
    at = np.flatnonzero(np.isin(users, users[since:])) if since else np.arange(len(users))
    order = at[np.argsort(users[at], kind="stable")]
    u, r, new = users[order], rows[order], order >= since
    before, after, value = [], [], []
    for apart in range(1, min(PAIR_STEPS, len(u) - 1) + 1):
        at = np.flatnonzero((u[apart:] == u[:-apart]) & (r[apart:] != r[:-apart]) & new[apart:])
        before.append(r[at])
        after.append(r[at + apart])
        value.append(np.full(len(at), 1 / apart, np.float32))
    none = np.zeros(0, np.int32)
    places = (np.concatenate([none, *before]), np.concatenate([none, *after]))
    found: Any = sparse.csr_array((np.concatenate([np.zeros(0, np.float32), *value]), places), shape=(items, items))
    found.sum_duplicates()
    return found
