"""`temporal`: all events in time order (ties by the file's order), the last tested one by one.

Settings are chosen on the events from 85% to 90%; then methods learn the first 90% anew, and the last 10% are tested:
rank the catalogue less what the user has met, note the rank of what they took, add the event. Users unseen in training
count; an event whose item its user had met, or that is no sign of interest, or outside the catalogue, does not. In
`strict` a history has only events with an earlier time. What methods have counted lags by less than `refresh` events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model.evaluation.exams import Asked, Exam, Paper, World
from model.evaluation.past import Past, unseen
from model.history import seen_hash
from model.replay import Timeline, timeline

SPLITS = (0.85, 0.9, 1.0)


def exams(
    world: World, splits: tuple[float, float, float] = SPLITS, refresh: int = 250, strict: bool = False
) -> tuple[Exam, list[Exam]]:
    """The exam that settings are chosen by, and the tests."""
    line = timeline(world.events, world.catalog, world.weights, world.variation)
    a, b, c = (round(s * len(line)) for s in splits)
    tests = [_exam("temporal", world, line, b, c, refresh, False)]
    if strict:
        tests.append(_exam("strict", world, line, b, c, refresh, True))
    return _exam("validation", world, line, a, b, refresh, False), tests


def _exam(name: str, world: World, line: Timeline, first: int, last: int, refresh: int, strict: bool) -> Exam:
    return Exam(name, line, first, lambda: papers(world, line, first, last, refresh, strict), last - first)


def papers(world: World, line: Timeline, first: int, last: int, refresh: int, strict: bool) -> Iterator[Paper]:
    catalog = world.catalog
    past = Past(line)
    for start in range(first, last, refresh):
        end = min(start + refresh, last)
        histories = past.before(start, end)
        met = seen_hash(line.items[start:end])
        wanted = (line.rows[start:end] >= 0) & (line.weights[start:end] > 0)
        new = np.array([met[b] not in histories.seen_by(b) for b in range(end - start)], bool)
        at = np.flatnonzero(wanted & new)
        if not len(at):
            continue
        histories = (past.before(start, end, strict=True) if strict else histories).take(at)
        rows = catalog.index_of(histories.items)
        allowed = unseen(rows, histories, catalog.seen32, len(catalog)) & world.shown
        asked = Asked(line.users[start + at], line.times[start + at], histories, rows, allowed)
        yield Paper(asked, line.rows[start + at].astype(np.int64), start)
