"""Personal frequency: what this user met most often, and behind it what everybody does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.matrix import decayed, history_matrix
from model.evaluation.methods.popularity import Popularity
from model.replay import Timeline

GRID = {
    "popular": (0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    "days": (7.0, 30.0, None),
    "recency": (0.9, 0.95, 0.98, 0.99, 1.0),
}


class Personal(Method):
    """Share of an item in the user's history, plus `popular` times its share in the last `days` of everybody's.

    popular = 0: the personal frequency alone. recency: weight of an item of the history relative to the next newer.
    """

    def __init__(self, items: int, popular: float = 1.0, days: float | None = None, recency: float = 1.0) -> None:
        self.name = "personal" if popular == 0 else "personal+popular"
        self._items, self._popular, self._days, self._recency = items, popular, days, recency
        self._everybody = Popularity(items, days)

    def learn(self, line: Timeline, end: int) -> None:
        self._everybody.learn(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self._everybody.add(line, first, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        weights = decayed(asked.rows, self._recency)
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-9)
        own = history_matrix(asked.rows, self._items, weights).toarray()
        if self._popular:
            often = self._everybody.scores(asked)
            own += self._popular * often / max(float(often[0].sum()) if len(often) else 1.0, 1e-9)
        return own

    def settings(self) -> dict[str, object]:
        return {"popular": self._popular, "days": self._days, "recency": self._recency}

    def variants(self) -> Sequence[Method]:
        grid = GRID if self._popular else {"recency": GRID["recency"]}
        return [Personal(self._items, **change) for change in sweep(self.settings(), grid)]
