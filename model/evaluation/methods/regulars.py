"""`regulars`: for baskets, a log-linear blend of what the user buys, what everybody buys, and what is bought again.

Whether a thing is bought again depends on the thing: milk is, a corkscrew is not. So beside personal frequency and
recency (as in UP-CF and TIFU-kNN) stands how often those who have an item come back to it, shrunk to the rate of its
kind, and beside popularity, among those who did not have it yet. What a worker can know of it is `model/habits.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.evaluation.exams import Asked
from model.evaluation.methods.matrix import decayed, history_matrix
from model.evaluation.methods.ranked import Features, Papers, Ranked
from model.habits import Returns, firsts, kinds_of
from model.online import DAY_MS
from model.replay import Timeline, liked

NAMES = (
    "log rough", "share", "met", "of many", "age", "just now", "popular", "popular and met", "popular 28d",
    "popular 2d", "again", "again by kind", "first", "first 28d",
)  # fmt: skip
NEVER = 400.0
JUST_NOW = 4.0
"""Days: for how long a user has just bought something."""


@dataclass(frozen=True, eq=False)
class Tally:
    """What is known of N items at one time, f64[N] each: events in all, in 28 days and in 2; of those, a user's
    first with it, in all and in 28 days; how many times likelier than on average, as logarithms, who has the item
    comes back to it, and to one of its kind.
    """

    met: NDArray[np.float64]
    month: NDArray[np.float64]
    days: NDArray[np.float64]
    first: NDArray[np.float64]
    first_month: NDArray[np.float64]
    again: NDArray[np.float64]
    again_kind: NDArray[np.float64]

    @staticmethod
    def of(line: Timeline, end: int, kinds: NDArray[np.int64]) -> Tally:
        """Of the first `end` events; kinds i64[N]: a number a kind."""
        at = liked(line, 0, end)
        items, now = len(kinds), line.times[max(end - 1, 0)] if len(line) else 0
        users, rows, times = line.users[at], line.rows[at].astype(np.int64), line.times[at]
        new, month, days = firsts(users, rows), times >= now - 28 * DAY_MS, times >= now - 2 * DAY_MS
        said = Returns.of(users, rows, new, kinds)

        def count(keep: NDArray[np.bool_] | slice) -> NDArray[np.float64]:
            return np.bincount(rows[keep], minlength=items).astype(np.float64)

        every = slice(None)
        return Tally(
            count(every), count(month), count(days), count(new), count(new & month), said.again, said.again_kind
        )


class Regulars(Ranked):
    """Over a catalogue; nothing to set."""

    name = "regulars"
    candidates = 400

    def __init__(self, catalog: Catalog, papers: Papers) -> None:
        super().__init__(papers, online=True)
        self._kinds = np.unique(kinds_of(catalog), return_inverse=True)[1]

    def names(self) -> tuple[str, ...]:
        return NAMES

    def know(self, line: Timeline, first: int, last: int) -> None:
        self._tally = Tally.of(line, last, self._kinds)

    def look(self, asked: Asked) -> tuple[NDArray[np.float32], Features]:
        t, items = self._tally, len(self._kinds)
        everybody = t.met / max(t.met.sum(), 1) + 2 * t.month / max(t.month.sum(), 1) + 1e-6
        even = decayed(asked.rows, 1.0)
        size = even.sum(1, keepdims=True)
        own = history_matrix(asked.rows, items, even / np.maximum(size, 1)).toarray()
        rough = (own + everybody).astype(np.float32)

        def features(cols: NDArray[np.int64], some: NDArray[np.float32]) -> NDArray[np.float32]:
            share = np.take_along_axis(own, cols, 1)
            met = (share > 0).astype(np.float32)
            age = np.take_along_axis(_ages(asked, items), cols, 1)
            often = np.log(t.met + 0.5)[cols]
            expected = 0.5 * t.month.sum() * t.met / max(t.met.sum(), 1)
            of = [np.log(some), np.log(share + 0.002), met, met * np.log1p(size), met * np.log1p(age)]
            of += [met * (age < JUST_NOW), often, met * often]
            of += [np.log(v)[cols] for v in (t.month + expected + 0.2, t.days + 0.3)]
            of += [met * t.again[cols], met * t.again_kind[cols]]
            of += [(1 - met) * np.log(v)[cols] for v in (t.first + 0.5, t.first_month + 0.3)]
            return np.stack(of, 2).astype(np.float32)

        return rough, features


def _ages(asked: Asked, items: int) -> NDArray[np.float32]:
    """Days since each item was met last, f32[B,N]; `NEVER` where it was not."""
    out = np.full((len(asked), items), NEVER, np.float32)
    row, place = np.nonzero(asked.rows >= 0)  # the newest of a row comes last, and stays
    days = (asked.now[row] - asked.histories.times[row, place]) / DAY_MS
    out[row, asked.rows[row, place]] = days
    return out
