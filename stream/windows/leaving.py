"""Which users leave the window table: those idle for long by event time, and beyond a cap those idle longest.

Time is the partition's own: its watermark, the greatest event time that was applied to it, which the rows themselves
restore. The wall clock has no say, so a replay lets the same users go. A flush lets few go at a time, so that none is
long; who should have left already counts as gone where two states are compared (`columns.idle`).

A row that leaves takes its `applied` along, which is what keeps an event that is read again from counting twice. So it
may leave only when every offset that it has taken in is known to be committed: events below the committed offset are
never read again, and whoever comes back with a new event begins anew.

The cap is one of a partition, not of a worker: who shares a partition does not change when workers come and go, so
neither does who leaves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from stream.windows.columns import Columns

SWEPT = 65_536
"""Row numbers that are looked at for idle users in one flush of a partition."""
AT_ONCE = 4096
"""Users of a partition who leave in one flush."""


@dataclass(slots=True)
class Leaving:
    """Picks who leaves, and counts them. `max_users`: of a partition; None: no cap."""

    max_users: int | None
    idle: int = 0
    beyond_cap: int = 0
    _hand: dict[int, int] = field(default_factory=dict)

    def pick(self, columns: Columns, partition: int, committed: np.ndarray) -> np.ndarray:
        """i64[n]: distinct rows of a partition that are to leave now.

        `committed` i64[T]: the next offset of each input topic that is known to be committed.
        """
        idle = self._idle(columns, partition, committed)
        self.idle += len(idle)
        if self.max_users is None:
            return idle
        rows = np.setdiff1d(columns.of(partition), idle)
        excess = min(len(rows) - self.max_users, AT_ONCE - len(idle))
        if excess <= 0:
            return idle
        longest = _longest_idle(columns, rows[_safe(columns, rows, committed)], excess)
        self.beyond_cap += len(longest)
        return np.concatenate([idle, longest])

    def _idle(self, columns: Columns, partition: int, committed: np.ndarray) -> np.ndarray:
        """Walks round all rows, a part of them each time."""
        if columns.idle_ms is None:
            return np.zeros(0, np.int64)
        end = len(columns.partition)
        first = self._hand.get(partition, 0)
        first = first if first < end else 0
        rows = columns.of(partition, first, first + SWEPT)
        leaving = rows[columns.idle(partition, rows) & _safe(columns, rows, committed)]
        self._hand[partition] = first + SWEPT
        if len(leaving) > AT_ONCE:
            leaving = leaving[:AT_ONCE]
            self._hand[partition] = int(leaving[-1]) + 1
        return leaving


def _safe(columns: Columns, rows: np.ndarray, committed: np.ndarray) -> np.ndarray:
    """bool[n]: rows of whose events none will be read again, and of which all is written."""
    return (columns.applied[rows] < committed).all(1) & ~columns.dirty[rows]


def _longest_idle(columns: Columns, rows: np.ndarray, n: int) -> np.ndarray:
    """The n of these rows whose newest event is the oldest; equals by name, because row numbers are of this process."""
    if n >= len(rows):
        return rows
    newest = columns.newest(rows).time
    last = np.partition(newest, n - 1)[n - 1]
    sure, tied = rows[newest < last], rows[newest == last]
    by_name = sorted(zip(columns.encoded(tied), tied.tolist(), strict=True))
    return np.concatenate([sure, [row for _, row in by_name[: n - len(sure)]]]).astype(np.int64)
