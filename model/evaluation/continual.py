"""`continual`: a model lives through periods. Methods learn the first 70%, then two periods of 10%; after each of these
the next 10% are asked as `temporal` asks.

Row `new`: the periods from 80% and from 90%, mean of both. Row `old`, after the same learning: every 10th event between
50% and 70%, which nobody learns or counts, from what its user did before it. It tells what is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.evaluation import temporal
from model.evaluation.exams import Asked, Exam, Paper, Shelf, World
from model.evaluation.past import unseen
from model.replay import Timeline, timeline

FIRST, PERIOD = 0.7, 0.1
OLD = (0.5, 0.7)
EVERY = 10
BATCH = 500


def ends(events: int) -> list[int]:
    """How many events are learned when each period is over, the first one included, of a data set of so many."""
    count = round((1 - FIRST) / PERIOD)
    return [round((FIRST + PERIOD * k) * events) - len(held_out(events)) for k in range(count + 1)]


def held_out(events: int) -> NDArray[np.int64]:
    """The old events that nobody learns."""
    return np.arange(round(OLD[0] * events), round(OLD[1] * events), EVERY)


def exams(world: World, refresh: int = 250) -> dict[str, tuple[Exam, list[Exam]]]:
    """By row: the exam that settings are chosen by, which is the first period, and the tests."""
    whole = timeline(world.events, world.catalog, world.weights, world.variation)
    held = held_out(len(whole))
    learned = world.events.take(np.setdiff1d(np.arange(len(whole)), held))
    line = timeline(learned, world.catalog, world.weights, world.variation)
    over = ends(len(whole))

    def new(name: str, first: int, last: int) -> Exam:
        def asked() -> Iterator[Paper]:
            for paper in temporal.papers(world, whole, first + len(held), last + len(held), refresh, False):
                yield replace(paper, known=paper.known - len(held))

        return Exam(name, line, first, asked, last - first)

    def old(end: int) -> Exam:
        return Exam(f"old, {end}", line, end, lambda: _papers(world, whole, held, end), len(held), online=False)

    validation = new("validation", over[0], over[1])
    tests = [new(f"new, {a}", a, b) for a, b in pairwise(over[1:])]
    return {"new": (validation, tests), "old": (validation, [old(end) for end in over[1:-1]])}


def _papers(world: World, whole: Timeline, held: NDArray[np.int64], known: int) -> Iterator[Paper]:
    catalog = world.catalog
    shelf = Shelf.of(whole, np.arange(len(whole)))
    able = held[(whole.rows[held] >= 0) & (whole.weights[held] > 0)]
    for first in range(0, len(able), BATCH):
        at = able[first : first + BATCH]
        histories = shelf.cut(*shelf.span(whole.users[at], whole.times[at]))
        rows = catalog.index_of(histories.items)
        allowed = unseen(rows, histories, catalog.seen32, len(catalog)) & world.shown
        keep = np.flatnonzero(allowed[np.arange(len(at)), whole.rows[at]])
        if len(keep):
            asked = Asked(whole.users[at[keep]], whole.times[at[keep]], histories.take(keep), rows[keep], allowed[keep])
            yield Paper(asked, whole.rows[at[keep]].astype(np.int64), known)
