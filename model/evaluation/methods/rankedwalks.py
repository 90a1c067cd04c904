"""`walks-ranked`: what walks find, ranked by a log-linear blend of how they found it and what the session met when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.matrix import history_matrix
from model.evaluation.methods.ranked import Features, Papers, Ranked
from model.evaluation.methods.walks import Walks
from model.replay import Timeline

NAMES = ("log rough", "rough", "last", "second", "evenly", "popular", "1st", "2nd", "3rd", "met", "only", "of many")
RARE = 1e-4
"""Scores of a walk are told apart above about this; below it they are 0 to the logarithm."""


class RankedWalks(Ranked):
    """Over N items. Settings are those of the walks; `evenly` is a second step as if all items led on alike."""

    name = "walks-ranked"

    def __init__(self, walks: Walks, papers: Papers) -> None:
        super().__init__(papers, online=False)
        self._walks = walks

    def names(self) -> tuple[str, ...]:
        return NAMES

    def know(self, line: Timeline, first: int, last: int) -> None:
        if not first:
            self._walks.learn(line, last)
        else:
            self._walks.take(line, last)
        self._spread()

    def add(self, line: Timeline, first: int, last: int) -> None:
        if self._walks.due(last):
            self.know(line, first, last)

    def _spread(self) -> None:
        steps = self._walks.steps
        out = np.maximum(np.asarray(steps.sum(1)).ravel(), 1e-9)
        self._evenly: Any = (sparse.diags_array(1 / out.astype(np.float32)) @ steps).tocsr()

    def look(self, asked: Asked) -> tuple[NDArray[np.float32], Features]:
        walks, window = self._walks, asked.window()
        first, second = walks.walked(window)
        rough = walks.summed(window, first, second)

        def features(cols: NDArray[np.int64], some: NDArray[np.float32]) -> NDArray[np.float32]:
            newest = window[:, -1:]
            last = history_matrix(newest, rough.shape[1]) @ walks.steps
            evenly = walks.shares(window, "recency") @ self._evenly @ self._evenly
            met = (np.take_along_axis(history_matrix(window, rough.shape[1]).toarray(), cols, 1) > 0).astype(np.float32)
            size = (window >= 0).sum(1, keepdims=True)
            walked = [np.log1p(np.take_along_axis(x.toarray(), cols, 1) / RARE) for x in (last, second, evenly)]
            places = [_at(window, n) == cols for n in (1, 2, 3)]
            popular = np.log(walks.popular[cols] * rough.shape[1])
            of = [np.log(some + 1e-7), some, *walked, popular, *places, met, met * (size == 1)]
            return np.stack([*of, met * np.log(np.maximum(size, 1))], 2).astype(np.float32)

        return rough, features

    def settings(self) -> dict[str, object]:
        return self._walks.settings()

    def variants(self) -> Sequence[Method]:
        return [RankedWalks(walks, self._papers) for walks in self._walks.variants() if isinstance(walks, Walks)]


def _at(window: NDArray[np.int32], n: int) -> NDArray[np.int32]:
    """The n-th newest item of each window, i32[B,1]; -1 where there is none."""
    wide = window.shape[1]
    return window[:, wide - n : wide - n + 1] if n <= wide else np.full((len(window), 1), -1, np.int32)
