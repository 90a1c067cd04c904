"""EASE: the linear map from what was met to what is met, without the diagonal, in closed form (Steck 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.matrix import decayed, history_matrix, met_matrix
from model.replay import Timeline

GRID = {"ridge": (50.0, 100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0), "recency": (0.7, 0.8, 0.9, 0.95, 1.0)}
MOST_ITEMS = 10_000
"""It inverts a dense matrix of items by items: at this many it takes 0.8 GB and minutes."""


class TooLargeError(ValueError):
    """A catalogue that a method cannot hold; the message says what to do."""


class Ease(Method):
    """Over N items, at most `MOST_ITEMS` of which may have been met: TooLargeError beyond."""

    name = "ease"

    def __init__(self, items: int, ridge: float = 200.0, recency: float = 1.0) -> None:
        self._items, self._ridge, self._recency = items, ridge, recency

    def learn(self, line: Timeline, end: int) -> None:
        met = met_matrix(line, end, self._items)
        often = np.asarray(met.sum(0)).ravel()
        self._known = np.flatnonzero(often)
        if len(self._known) > MOST_ITEMS:
            raise TooLargeError(
                f"ease inverts a matrix of {len(self._known)} x {len(self._known)} items; its limit is {MOST_ITEMS}: "
                "leave it out (--models)"
            )
        some = met[:, self._known]
        inverse = (some.T @ some).toarray().astype(np.float64)
        inverse[np.diag_indices_from(inverse)] += self._ridge
        inverse = np.linalg.inv(inverse)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0)
        self._weights = weights.astype(np.float32)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        wanted = history_matrix(asked.rows, self._items, decayed(asked.rows, self._recency))
        out = np.full((len(asked), self._items), -np.inf, np.float32)
        out[:, self._known] = wanted[:, self._known] @ self._weights
        return out

    def settings(self) -> dict[str, object]:
        return {"ridge": self._ridge, "recency": self._recency}

    def variants(self) -> Sequence[Method]:
        return [Ease(self._items, **change) for change in sweep(self.settings(), GRID)]
