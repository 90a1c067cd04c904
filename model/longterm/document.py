"""`document`: a segment written as text and read by BERT.

    today: buy Alien (1979), click Heat (1995) 3 times. this month: rating Fargo (1996)

What was done within a day, a week or a month before the newest interaction of the history is said together, newest
first, because an encoder that has read enough stops reading. Interactions that weigh nothing are not written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from model.history import ACTION_NAME, Histories
from model.longterm.base import DAY_MS, SEGMENT, Encode, segment_slice

AGES = ((1, "today"), (7, "this week"), (30, "this month"))
"""Days before the newest interaction, and how they are called."""
LONG_AGO = "long ago"


class Document:
    """Costs one forward pass of BERT per segment, so profiles of this kind are worth caching; give it an
    encoder without a disk cache, or what users did will lie there as vectors for ever.

    titles: one per row of the catalogue. dim: the length of a profile's vectors; those of `encode` are padded with
    zeros to it (an item may bring more than text, a document does not).
    """

    name = "document"

    def __init__(self, titles: Sequence[str], encode: Encode, dim: int) -> None:
        self._titles = titles
        self._encode = encode
        self._dim = dim

    def profiles(self, h: Histories, rows: NDArray[np.int32]) -> list[NDArray[np.float32]]:
        count = -(-h.items.shape[1] // SEGMENT)
        texts = [[t for s in range(count) if (t := self._text(h, rows, b, count - 1 - s))] for b in range(len(h))]
        said = [t for user in texts for t in user]
        flat = np.zeros((len(said), self._dim), np.float32)
        if said:
            read = self._encode(said)
            flat[:, : read.shape[1]] = read
        return np.split(flat, np.cumsum([len(user) for user in texts])[:-1]) if texts else []

    def _text(self, h: Histories, rows: NDArray[np.int32], b: int, back: int) -> str:
        cut = segment_slice(h.items.shape[1], back)
        newest = int(h.times[b, -1])
        met = zip(h.times[b, cut], rows[b, cut], h.actions[b, cut], h.weights[b, cut], strict=True)
        done = [(age(newest - int(t)), (int(a), int(r))) for t, r, a, w in met if r >= 0 and w > 0]
        parts = []
        for when, some in groupby(reversed(done), key=lambda d: d[0]):
            times = Counter(what for _, what in some)
            parts.append(f"{when}: {', '.join(self._said(*what, n) for what, n in times.items())}")
        return ". ".join(parts)

    def _said(self, action: int, row: int, times: int) -> str:
        return f"{ACTION_NAME[action]} {self._titles[row]}" + (f" {times} times" if times > 1 else "")


def age(ms: int) -> str:
    """How a time so long before the newest interaction is called."""
    return next((name for days, name in AGES if ms <= days * DAY_MS), LONG_AGO)
