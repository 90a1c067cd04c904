"""`buckets`: the last day, the week before it and what is older, each decayed (system D).

    |    older than a week     |   a week   | a day | <- newest sign of interest

A row is the mean of its items' text vectors, weighted by action and by 0.5^(age / half-life), with the half of the
bucket's own length for a half-life: of what is older than a week, the first month is what counts. The rows keep their
places: where nothing happened in a bucket, its row is zero, and fusion does not look there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.history import Histories
from model.longterm.base import DAY_MS, at_least_one, weighed

OLDEST_FIRST = (30, 7, 1)
"""Where each bucket ends, in days before the newest; the first takes what is older too."""


class Buckets:
    """text_vectors f32[N,P], one per row of the catalogue. S is 3, or 0 without a sign of interest."""

    name = "buckets"

    def __init__(self, text_vectors: NDArray[np.float32]) -> None:
        self._vectors = at_least_one(text_vectors)

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        weights = weighed(h, rows)
        newest = np.max(h.times, axis=1, initial=0, where=weights > 0)
        days_BL = (newest[:, None] - h.times) / DAY_MS
        vectors = self._vectors[np.maximum(rows, 0)]
        made = np.zeros((len(h), len(OLDEST_FIRST), self._vectors.shape[1]), np.float32)
        for s, end in enumerate(OLDEST_FIRST):
            begin = OLDEST_FIRST[s + 1] if s + 1 < len(OLDEST_FIRST) else -1
            inside = (days_BL > begin) & ((days_BL <= end) | (s == 0))
            w = weights * inside * 0.5 ** (np.where(inside, np.maximum(days_BL, 0), 0) / (end / 2))
            made[:, s] = np.einsum("bl,bld->bd", w, vectors) / np.maximum(w.sum(1)[:, None], 1e-9)
        length = np.where(np.any(weights > 0, axis=1), len(OLDEST_FIRST), 0)
        return [m[:s] for m, s in zip(made, length, strict=True)]
