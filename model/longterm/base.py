"""What every long-term profile is: a history as a few vectors, a pure function of (history, item vectors).

Not learned and not stateful, so a profile can be cached, dropped and computed again. Most kinds have one vector for
each segment of up to 16 interactions, counted from the newest back: a history of 37 gives segments of 5, 16 and 16,
oldest first:

    |  5  |      16      |      16      | <- newest

Names: B users, L interactions (left-padded, newest last), S vectors of a profile, P the length of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.history import HISTORY, Histories

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
        """Per user f32[S,P], oldest first, the newest never all zero; S = 0 where nothing in the history says
        anything. Where a row before the newest is all zero, there is nothing to say of its time.
        """
        ...


def segment_slice(length: int, back: int) -> slice:
    """Columns of the segment that is `back` segments before the newest, in rows padded to `length`."""
    end = length - back * SEGMENT
    return slice(max(end - SEGMENT, 0), end)


def weighed(h: Histories, rows: NDArray[np.int32]) -> NDArray[np.float32]:
    """The weight of every interaction, f32[B,L]; 0 where there is none, it is no sign of interest, or its item
    is not in the catalogue.
    """
    return np.where(rows >= 0, np.maximum(h.weights, 0), 0).astype(np.float32)


def at_least_one(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Item vectors with one row at least: what is not in the catalogue reads row 0, with weight 0."""
    return vectors if len(vectors) else np.zeros((1, vectors.shape[1]), np.float32)
