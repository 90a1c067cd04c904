"""`session-stream` (ADER, Mi et al. 2020): periods one after the other; learn all before one, test every prefix in it.

From the period that is tested, items that nobody has met so far are dropped, as inputs and as targets, then sessions
shorter than two. Candidates are all items met so far; nothing is excluded, not even the last item. Figures are means
of the periods. In `static` nothing is learned inside a period (this compares with ADER); in `online` counts go on,
and the questions are the same ones. Settings are chosen on the last fifth of the first period, which is never tested.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from model.dataset import DatasetError
from model.evaluation.exams import Asked, Exam, Paper, Shelf, World
from model.replay import Timeline, timeline

PERIOD_MS = 7 * 86_400_000
VALIDATION = 0.8


def exams(
    world: World, refresh: int = 250, online: bool = False, period_ms: int = PERIOD_MS
) -> tuple[Exam, list[Exam]]:
    """The exam that settings are chosen by, and one test a period after the first."""
    line = timeline(world.events, world.catalog, world.weights, world.variation)
    period = (line.times - line.times[:1]) // period_ms
    ends = np.flatnonzero(np.r_[period[1:] != period[:-1], True]) + 1
    if len(ends) < 2:
        raise DatasetError(f"session-stream needs two periods of {period_ms / 86_400_000:g} days: the events span one")
    mode = "online" if online else "static"
    split = int(ends[0] * VALIDATION)
    tests = [_exam(mode, world, line, int(first), int(last), refresh, online) for first, last in pairwise(ends)]
    return _exam("validation", world, line, split, int(ends[0]), refresh, online), tests


def _exam(name: str, world: World, line: Timeline, first: int, last: int, refresh: int, online: bool) -> Exam:
    return Exam(name, line, first, lambda: papers(world, line, first, last, refresh), last - first, online)


def papers(world: World, line: Timeline, first: int, last: int, refresh: int = 250) -> Iterator[Paper]:
    """Every prefix of every session within the events first..last-1, `refresh` questions a paper."""
    known = np.zeros(len(world.catalog), bool)
    rows = line.rows[:first]
    known[rows[rows >= 0]] = True
    events = first + np.flatnonzero((line.rows[first:last] >= 0) & known[np.maximum(line.rows[first:last], 0)])
    shelf = Shelf.arrived(line, events)
    place = np.empty(len(events), np.int64)
    place[np.argsort(line.users[events], kind="stable")] = np.arange(len(events))
    asks = place > np.searchsorted(shelf.users, line.users[events])
    events, place = events[asks], place[asks]
    for start in range(0, len(events), refresh):
        at, ends = events[start : start + refresh], place[start : start + refresh]
        histories = shelf.cut(np.searchsorted(shelf.users, line.users[at]), ends)
        asked = Asked(line.users[at], line.times[at], histories, world.catalog.index_of(histories.items), known[None])
        yield Paper(asked, line.rows[at].astype(np.int64), int(at[0]))
