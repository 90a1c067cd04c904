"""Items that fell off users' histories, remembered in four bytes each, for filtering.

Most users have none, and cost four bytes a row. Past its cap a set keeps the smallest hashes: a subset that does
not depend on the order of arrival, as one by age would.
"""

from __future__ import annotations

import numpy as np

from model.history import spans
from stream.windows.blocks import Blocks, grown, runs

SLACK = 0.5
"""Room beyond the cap, as a share of it: a set is sorted out once per so many additions."""


class SeenSets:
    """The sets of all rows.

    Args:
        cap: items kept in a set.
    """

    def __init__(self, cap: int) -> None:
        self.cap = cap
        largest = cap + max(1, int(cap * SLACK))
        sizes = [1 << power for power in range(4, 16) if 1 << power < largest]
        self._sets = Blocks([*sizes, largest], {"item": np.uint32})
        self._of = np.zeros(0, np.int32)  # row -> its set, -1 = none
        self._count = np.zeros(0, np.int32)  # items in a set, repeats counted
        self._numbers = Numbers()

    def reserve(self, rows: int) -> None:
        """Row numbers are below this from now on."""
        self._of = grown(self._of, rows, -1)

    def having(self, rows: np.ndarray) -> np.ndarray:
        """bool[n]: which rows have a set."""
        return self._of[rows] >= 0

    def add(self, rows: np.ndarray, hashes: np.ndarray) -> None:
        """Remember hashes u32[n], repeats allowed, for rows i64[n], in which equal rows lie together."""
        starts, more = runs(rows)
        distinct = rows[starts]
        sets = self._of[distinct]
        old = np.where(sets >= 0, self._count[sets], 0) if len(self._count) else np.zeros(len(sets), np.int64)
        fits = sets >= 0
        fits[fits] = old[fits] + more[fits] <= self._sets.sizes[self._sets.classes(sets[fits])]
        for row, first, n in zip(distinct[~fits].tolist(), starts[~fits].tolist(), more[~fits].tolist(), strict=True):
            self.put(row, np.union1d(self.get(row), hashes[first : first + n])[: self.cap])
        hashes = hashes[np.repeat(fits, more)]
        sets, old, more = sets[fits], old[fits], more[fits]
        self._sets.data["item"][spans(self._sets.starts(sets) + old, more)] = hashes
        self._count[sets] += more.astype(np.int32)

    def get(self, row: int) -> np.ndarray:
        """u32[s]: the set of a row, ascending, distinct, at most `cap`."""
        number = self._of.item(row)
        if number < 0:
            return np.zeros(0, np.uint32)
        start = self._sets.start(number)
        return self.sorted_out(self._sets.data["item"][start : start + self._count.item(number)])

    def sorted_out(self, kept: np.ndarray) -> np.ndarray:
        """The set that u32[m], additions in the order they came, stand for."""
        return np.unique(kept)[: self.cap]

    def as_kept(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u32[m]: what is kept of the sets of rows i64[n], one after the other, and the lengths i64[n] of the parts."""
        lengths = np.zeros(len(rows), np.int64)
        having = np.flatnonzero(self.having(rows))
        sets = self._of[rows[having]]
        lengths[having] = self._count[sets]
        return self._sets.data["item"][spans(self._sets.starts(sets), lengths[having])], lengths

    def put(self, row: int, hashes: np.ndarray) -> None:
        """Replace the set of a row by u32[s], distinct; it then has room for at least one more."""
        number = self._of[row : row + 1]
        if number[0] < 0:
            number = self._of[row : row + 1] = self._numbers.take(1)
            self._sets.reserve(self._numbers.end)
            self._count = grown(self._count, self._numbers.end)
            self._sets.take(number, self._sets.fitting(np.array([len(hashes) + 1])))
        elif (fitting := self._sets.fitting(np.array([len(hashes) + 1]))) != self._sets.classes(number):
            self._sets.resize(number, fitting, np.zeros(1, np.int64))
        start = self._sets.start(int(number[0]))
        self._sets.data["item"][start : start + len(hashes)] = hashes
        self._count[number] = len(hashes)

    def drop(self, rows: np.ndarray) -> None:
        """Forget the sets of distinct rows."""
        having = rows[self._of[rows] >= 0]
        if len(having):
            numbers = self._of[having]
            self._of[having] = -1
            self._sets.give_back(numbers)
            self._numbers.give_back(numbers)

    @property
    def nbytes(self) -> int:
        return self._sets.nbytes + self._of.nbytes + self._count.nbytes


class Numbers:
    """Numbers to be given to things, the lowest first where none has come back."""

    def __init__(self) -> None:
        self.end = 0
        self._back = np.zeros(0, np.int32)

    def take(self, n: int) -> np.ndarray:
        """i64[n], distinct, all below `end`."""
        kept = max(0, len(self._back) - n)
        back, self._back = self._back[kept:], self._back[:kept]
        fresh = np.arange(self.end, self.end + n - len(back))
        self.end += len(fresh)
        return np.concatenate([back, fresh])

    def give_back(self, numbers: np.ndarray) -> None:
        self._back = np.concatenate([self._back, numbers]).astype(np.int32)
