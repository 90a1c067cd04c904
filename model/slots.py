"""Where 64-bit hashes stand, found by their first bits.

Not a dictionary: it holds numbers and answers whole arrays. A hash is as good as random, so its first bits name a slot
of a table, and in a table of four slots for each most hashes have theirs alone; the few others are found by a search
in order. Against a search in order of all that is a look at two places of memory in place of twenty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SLOTS = 4
"""Of the table at least, for each hash."""


class Slots:
    """Distinct hashes u64[N], by their places 0..N. Nothing changes after it is made."""

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        places = np.arange(len(hashes), dtype=np.int32)
        bits = max(int(SLOTS * len(hashes)).bit_length(), 1)
        self._hashes, self._shift = hashes, np.uint64(64 - bits)
        self._table = np.full(1 << bits, -1, np.int32)
        slots = self._of(hashes)
        self._table[slots] = places
        ousted = np.flatnonzero(self._table[slots] != places)  # by another hash of the same slot
        self._crowded = np.zeros(len(self._table), bool)
        self._crowded[slots[ousted]] = True
        order = ousted[np.argsort(hashes[ousted])]
        self._others, self._other_places = hashes[order], places[order]

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The place of each hash, i32 of the same shape, -1 where there is none."""
        if not len(self._hashes):
            return np.full(np.shape(hashes), -1, np.int32)
        slots = self._of(hashes)
        place = self._table.take(slots)
        strange = self._hashes.take(place) != hashes  # an empty slot's is compared with the last, which is elsewhere
        place[strange] = -1
        strange &= self._crowded.take(slots)
        if strange.any():
            left = np.nonzero(strange)
            asked = hashes[left]
            at = np.minimum(np.searchsorted(self._others, asked), len(self._others) - 1)
            place[left] = np.where(self._others[at] == asked, self._other_places[at], np.int32(-1))
        return place

    def _of(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (hashes >> self._shift).view(np.int64)
