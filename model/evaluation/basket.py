"""`basket`: items that share user and time are one basket, scored from what came before it; repeats are not filtered.

Settings are chosen on the events from 85% to 90%, then methods learn the first 90% and the rest is tested. Every line
of a basket is a question: where is its item among all of the catalogue? Baskets are never cut by a paper's end, so that
none of their lines tells of another.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.evaluation.exams import Asked, Exam, Paper, Shelf, World
from model.evaluation.temporal import SPLITS
from model.replay import Timeline, timeline


def exams(world: World, splits: tuple[float, float, float] = SPLITS, refresh: int = 250) -> tuple[Exam, list[Exam]]:
    """The exam that settings are chosen by, and the test."""
    line = timeline(world.events, world.catalog, world.weights, world.variation)
    a, b, c = (_whole(line, round(s * len(line))) for s in splits)
    return _exam("validation", world, line, a, b, refresh), [_exam("basket", world, line, b, c, refresh)]


def _whole(line: Timeline, at: int) -> int:
    """The first event from `at` on that does not share its time with the one before: baskets stay whole."""
    while 0 < at < len(line) and line.times[at] == line.times[at - 1]:
        at += 1
    return at


def _exam(name: str, world: World, line: Timeline, first: int, last: int, refresh: int) -> Exam:
    return Exam(name, line, first, lambda: papers(world, line, first, last, refresh), last - first, chooses=True)


def papers(world: World, line: Timeline, first: int, last: int, refresh: int = 250) -> Iterator[Paper]:
    """Every line of the events first..last-1, papers of at least `refresh` events that end where a basket does."""
    shelf = Shelf.of(line, np.arange(len(line)))
    start = first
    while start < last:
        end = min(_whole(line, start + refresh), last)
        at = start + np.flatnonzero((line.rows[start:end] >= 0) & (line.weights[start:end] > 0))
        if len(at):
            histories = shelf.cut(*shelf.span(line.users[at], line.times[at]))
            rows = world.catalog.index_of(histories.items)
            asked = Asked(line.users[at], line.times[at], histories, rows, world.shown[None])
            yield Paper(asked, line.rows[at].astype(np.int64), start)
        start = end
