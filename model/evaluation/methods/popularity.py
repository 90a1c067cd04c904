"""Everybody is shown what is met most often: of all time, or of the last seven days."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Asked, Method
from model.online import DAY_MS
from model.replay import Timeline, liked


class Popularity(Method):
    """Counts of N items; `days`: only of the days before the first question of a paper."""

    def __init__(self, items: int, days: float | None = None) -> None:
        self.name = "popular" if days is None else f"popular-{days:g}d"
        self._items, self._days = items, days
        self._times = np.zeros(0, np.int64)
        self._rows = np.zeros(0, np.int32)

    def learn(self, line: Timeline, end: int) -> None:
        self._times, self._rows = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._count = np.zeros(self._items, np.float32)
        self.add(line, 0, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        at = liked(line, first, last)
        self._count += np.bincount(line.rows[at], minlength=self._items).astype(np.float32)
        if self._days is not None:
            self._times = np.concatenate([self._times, line.times[at]])
            self._rows = np.concatenate([self._rows, line.rows[at]])

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        if self._days is not None and len(asked):
            old = np.searchsorted(self._times, asked.now.min() - int(self._days * DAY_MS))
            self._count -= np.bincount(self._rows[:old], minlength=self._items).astype(np.float32)
            self._times, self._rows = self._times[old:], self._rows[old:]
        return np.broadcast_to(self._count, (len(asked), self._items))
