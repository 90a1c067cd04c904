"""The history before each event of a timeline: at once where events come in order, one by one where they do not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Shelf
from model.history import Histories, HistoryLog
from model.replay import Timeline


class Past:
    """What was known of its user before each event, in the order of the events. Times of one user that are equal, or
    out of order, take the slow path (`HistoryLog`), which must be asked in ascending order.
    """

    def __init__(self, line: Timeline) -> None:
        self._line, self._done = line, 0
        self._shelf = Shelf.of(line, np.arange(len(line)))
        order = np.argsort(line.users, kind="stable")
        whole = len(self._shelf.users) == len(line)
        in_order = whole and bool(
            (self._shelf.items == line.items[order]).all() and (self._shelf.times == line.times[order]).all()
        )
        self._log = None if in_order else HistoryLog()
        self._place = np.empty(len(line), np.int64)
        self._place[order] = np.arange(len(line))

    def before(self, first: int, last: int, strict: bool = False) -> Histories:
        """Histories before the events first..last-1; strict: of events with an earlier time only."""
        users = self._line.users[first:last]
        if strict:
            return self._shelf.cut(*self._shelf.span(users, self._line.times[first:last]))
        if self._log is None:
            return self._shelf.cut(np.searchsorted(self._shelf.users, users), self._place[first:last])
        rows = []
        for e in range(self._done, last):
            if e >= first:
                rows.append(self._log.histories([int(self._line.users[e])]))
            self._add(e)
        self._done = last
        return Histories.concat(rows)

    def _add(self, e: int) -> None:
        line = self._line
        key = int(line.users[e]), int(line.times[e]), int(line.actions[e]), int(line.items[e])
        assert self._log is not None
        self._log.add(*key, float(line.weights[e]))


def unseen(rows: NDArray[np.int32], histories: Histories, seen32: NDArray[np.uint32], items: int) -> NDArray[np.bool_]:
    """bool[B,N]: what is neither in a history, given as catalogue rows i32[B,L], nor among what fell off it. seen32
    u32[N] are the short hashes of the catalogue.
    """
    allowed = np.ones((len(rows), items), bool)
    row, place = np.nonzero(rows >= 0)
    allowed[row, rows[row, place]] = False
    for b in np.flatnonzero(np.diff(histories.seen_offsets)):
        beyond = histories.seen[histories.seen_offsets[b] : histories.seen_offsets[b + 1]]
        allowed[b, np.isin(seen32, beyond)] = False
    return allowed
