"""`pooled` and `counted`: each segment as a mean of its items' text vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.history import Histories
from model.longterm.base import DAY_MS, HALF_LIFE_DAYS, SEGMENT, at_least_one, segment_slice, weighed


class Pooled:
    """An interaction weighs max(its weight, 0) x 0.5^(days before the segment's newest / 30). Segments whose
    weights are all zero are left out.

    text_vectors f32[N,P], one per row of the catalogue.
    """

    name = "pooled"

    def __init__(self, text_vectors: NDArray[np.float32]) -> None:
        self._vectors = at_least_one(text_vectors)

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        count = -(-h.items.shape[1] // SEGMENT)
        weights = self.weights(h, rows)
        segments = np.zeros((len(h), count, self._vectors.shape[1]), np.float32)
        total = np.zeros((len(h), count), np.float32)
        for s in range(count):
            cut = segment_slice(h.items.shape[1], count - 1 - s)
            w, vectors = weights[:, cut], self._vectors[np.maximum(rows[:, cut], 0)]
            total[:, s] = w.sum(1)
            segments[:, s] = np.einsum("bl,bld->bd", w, vectors) / np.maximum(total[:, s, None], 1e-9)
        return [segments[b, total[b] > 0] for b in range(len(h))]

    def weights(self, h: Histories, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """The weight of every interaction within its segment, f32[B,L]."""
        weights = weighed(h, rows)
        for back in range(-(-h.items.shape[1] // SEGMENT)):
            cut = segment_slice(h.items.shape[1], back)
            days = (h.times[:, cut][:, -1:] - h.times[:, cut]) / DAY_MS
            weights[:, cut] *= 0.5 ** (np.maximum(days, 0) / HALF_LIFE_DAYS)
        return weights


class Counted(Pooled):
    """The means of each action, weighted by how often the action occurs in the whole history times its weight
    (system C: "features weighted by counts per action"); nothing decays.

    With 10 clicks of weight 2 and 3 buys of weight 5 in a history, the mean of a segment's clicks weighs 20 and that
    of its buys 15, however many of each are in the segment.
    """

    name = "counted"

    def weights(self, h: Histories, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        weights = weighed(h, rows)
        for action in np.unique(h.actions[weights > 0]):
            of = (h.actions == action) & (weights > 0)
            count = of.sum(1, keepdims=True)
            for back in range(-(-h.items.shape[1] // SEGMENT)):
                cut = segment_slice(h.items.shape[1], back)
                here = of[:, cut].sum(1, keepdims=True)
                weights[:, cut] *= np.where(of[:, cut], count / np.maximum(here, 1), 1)
        return weights
