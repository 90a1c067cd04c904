"""`loo`: per user the last event is the test and the one before validates; for comparison with papers only.

The whole catalogue is ranked, without what the user had met. Methods learn all events but these two of each user, so
they learn other users' future. What validates is part of the test's history, but never learned from.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Asked, Exam, Paper, Shelf, World
from model.evaluation.past import unseen
from model.replay import Timeline, timeline

BATCH = 500
FEWEST = 3
"""Events of a user who is asked: one to know, one to validate, one to test."""


def exams(world: World) -> tuple[Exam, list[Exam]]:
    """The exam that settings are chosen by, and the test."""
    whole = timeline(world.events, world.catalog, world.weights, world.variation)
    order = np.argsort(whole.users, kind="stable")
    users = whole.users[order]
    ends = np.flatnonzero(np.r_[users[1:] != users[:-1], True])
    count = np.diff(np.r_[-1, ends])
    ends = ends[count >= FEWEST]
    tests, valid = order[ends], order[ends - 1]
    kept = np.setdiff1d(np.arange(len(whole)), np.concatenate([tests, valid]))
    # a timeline of its own: what is left out must not be counted either
    line = timeline(world.events.take(kept), world.catalog, world.weights, world.variation)
    before_test = np.setdiff1d(np.arange(len(whole)), tests)
    return (
        _exam("validation", world, whole, kept, valid, line),
        [_exam("loo", world, whole, before_test, tests, line)],
    )


def _exam(name: str, world: World, whole: Timeline, known: NDArray, asked: NDArray, line: Timeline) -> Exam:
    def papers() -> Iterator[Paper]:
        shelf = Shelf.of(whole, known)
        for first in range(0, len(asked), BATCH):
            yield from _paper(world, whole, shelf, asked[first : first + BATCH], len(line))

    return Exam(name, line, len(line), papers, len(asked), online=False, chooses=True)


def _paper(world: World, whole: Timeline, shelf: Shelf, at: NDArray, known: int) -> Iterator[Paper]:
    catalog = world.catalog
    at = at[(whole.rows[at] >= 0) & (whole.weights[at] > 0)]
    histories = shelf.cut(*shelf.span(whole.users[at]))
    rows = catalog.index_of(histories.items)
    allowed = unseen(rows, histories, catalog.seen32, len(catalog)) & world.shown
    new = allowed[np.arange(len(at)), whole.rows[at]]
    if new.any():
        at, keep = at[new], np.flatnonzero(new)
        asked = Asked(whole.users[at], whole.times[at], histories.take(keep), rows[keep], allowed[keep])
        yield Paper(asked, whole.rows[at].astype(np.int64), known)
