"""Who a user has been: a history as one vector per segment of up to 16 interactions.

Not learned and not stateful: a profile is a pure function of (history, item vectors), so it can be cached,
dropped and computed again. Segments are counted from the newest interaction back, so a history of 37 gives
segments of 5, 16 and 16, oldest first:

    |  5  |      16      |      16      | <- newest
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.history import ACTION_NAME, HISTORY, Histories

SEGMENT = 16
SEGMENTS = HISTORY // SEGMENT
HALF_LIFE_DAYS = 30.0
DAY_MS = 86_400_000


Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> vectors f32[n,P], as `TextEncoder.encode` makes them."""


class LongTerm(Protocol):
    """A way to make profiles. `rows` are the catalogue rows of the histories' items, i32[B,L], -1 = not in
    the catalogue.
    """

    name: str

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        """Per user f32[S,P], oldest segment first; S = 0 where nothing in the history says anything."""
        ...


class Pooled:
    """Each segment is the mean of its items' text vectors f32[N,P], weighted by action and recency.

    An interaction weighs max(its weight, 0) x 0.5^(days before the segment's newest / 30). Segments whose
    weights are all zero are left out.
    """

    name = "pooled"

    def __init__(self, text_vectors: NDArray[np.float32]) -> None:
        # one row at least: what is not in the catalogue reads row 0, with weight 0
        self._vectors = text_vectors if len(text_vectors) else np.zeros((1, text_vectors.shape[1]), np.float32)

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        count = -(-h.items.shape[1] // SEGMENT)
        weights = segment_weights(h, rows)
        segments = np.zeros((len(h), count, self._vectors.shape[1]), np.float32)
        total = np.zeros((len(h), count), np.float32)
        for s in range(count):
            cut = segment_slice(h.items.shape[1], count - 1 - s)
            w, vectors = weights[:, cut], self._vectors[np.maximum(rows[:, cut], 0)]
            total[:, s] = w.sum(1)
            segments[:, s] = np.einsum("bl,bld->bd", w, vectors) / np.maximum(total[:, s, None], 1e-9)
        return [segments[b, total[b] > 0] for b in range(len(h))]


class Document:
    """Each segment written as text, newest interaction first, and read by BERT: "buy Alien (1979). click
    Heat".

    Newest first, because an encoder that has read enough stops reading. Interactions that weigh nothing are
    not written. Costs one forward pass of BERT per segment, so profiles of this kind are worth caching; give
    it an encoder without a disk cache, or what users did will lie there as vectors for ever.
    """

    name = "document"

    def __init__(self, titles: Sequence[str], encode: Encode, dim: int) -> None:
        self._titles = titles
        self._encode = encode
        self._dim = dim

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        count = -(-h.items.shape[1] // SEGMENT)
        texts = [[t for s in range(count) if (t := self._text(h, rows, b, count - 1 - s))] for b in range(len(h))]
        flat = self._encode([t for user in texts for t in user]) if any(texts) else np.zeros((0, self._dim))
        return np.split(flat.astype(np.float32), np.cumsum([len(user) for user in texts])[:-1]) if texts else []

    def _text(self, h: Histories, rows: NDArray[np.int32], b: int, back: int) -> str:
        cut = segment_slice(h.items.shape[1], back)
        met = zip(rows[b, cut], h.actions[b, cut], h.weights[b, cut], strict=True)
        said = [f"{ACTION_NAME[int(a)]} {self._titles[r]}" for r, a, w in met if r >= 0 and w > 0]
        return ". ".join(reversed(said))


def segment_slice(length: int, back: int) -> slice:
    """Columns of the segment that is `back` segments before the newest, in rows padded to `length`."""
    end = length - back * SEGMENT
    return slice(max(end - SEGMENT, 0), end)


def segment_weights(h: Histories, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """The weight of every interaction within its segment, f32[B,L]; 0 where there is none or it is not in the
    catalogue.
    """
    weights = np.where(rows >= 0, np.maximum(h.weights, 0), 0).astype(np.float32)
    for back in range(-(-h.items.shape[1] // SEGMENT)):
        cut = segment_slice(h.items.shape[1], back)
        times = h.times[:, cut]
        days = (times[:, -1:] - times) / DAY_MS
        weights[:, cut] *= 0.5 ** (np.maximum(days, 0) / HALF_LIFE_DAYS)
    return weights
