"""Step 2 of an event's path: columns of events -> each user's window.

A window is a set, not an order of arrival: the greatest distinct (time, action, item) of a user. A
batch whose events come in order is applied with one sort and one scatter; a row with a late event is
merged by itself. Offsets at or below a row's `applied` are skipped, so a batch that is read again
changes nothing. Pure functions of the columns; Kafka is not here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model.history import canonical
from model.online import PAIR_STEPS, pairs_of
from stream.columns import Columns, rank_in_run
from stream.events import Events

ROUND = 64
"""Interactions that a row takes at a time: fewer than a ring holds, so that those before them are still there."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did.

    `rows` i64[t]: touched rows, distinct, in the order of their first event, skipped events included: a crash
    between flush and emission must cost a repeat, not an answer. `last` i64[t]: index of each one's last event.
    `pairs` (before u64[p], item u64[p], time i64[p]): the pairs that `model.online` defines.
    `fresh` i64[m]: indices of the events that were new.
    """

    rows: np.ndarray
    last: np.ndarray
    fresh: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]


def apply(columns: Columns, partition: int, topic: int, events: Events) -> Applied:
    """Apply the events of one topic (its index in `columns.topics`) and partition."""
    rows = columns.rows(partition, events.users)
    touched, last = _touched(rows)
    new = np.flatnonzero(events.offsets > columns.applied[rows, topic])
    # Offsets ascend, so the last assignment to a row is its greatest.
    columns.applied[rows[new], topic] = events.offsets[new]
    columns.dirty[rows[new]] = True

    order = new[np.lexsort((events.items[new], events.actions[new], events.times[new], rows[new]))]
    order = order[_distinct(rows[order], events, order)]
    fresh: list[np.ndarray] = []
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(order):
        rank = rank_in_run(rows[order])
        now, order = order[rank < ROUND], order[rank >= ROUND]
        late = _late_rows(columns, rows, events, now)
        in_order = ~np.isin(rows[now], late)
        fresh.append(_append(columns, rows, events, now[in_order], pairs))
        for row in late.tolist():
            fresh.append(_merge(columns, row, events, now[rows[now] == row], pairs))
    return Applied(touched, last, _joined(fresh), _joined_pairs(pairs))


def _touched(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, first = np.unique(rows, return_index=True)
    by_first = np.argsort(first)
    _, from_end = np.unique(rows[::-1], return_index=True)
    return unique[by_first], (len(rows) - 1 - from_end)[by_first]


def _distinct(rows: np.ndarray, events: Events, order: np.ndarray) -> np.ndarray:
    """Mask that drops exact repeats from sorted events."""
    keep = np.ones(len(order), bool)
    time, action, item = events.times[order], events.actions[order], events.items[order]
    keep[1:] = (rows[1:] != rows[:-1]) | (time[1:] != time[:-1]) | (action[1:] != action[:-1]) | (item[1:] != item[:-1])
    return keep


def _late_rows(columns: Columns, rows: np.ndarray, events: Events, order: np.ndarray) -> np.ndarray:
    """Rows whose first event here is not after the newest that they hold."""
    first = order[rank_in_run(rows[order]) == 0]
    newest = columns.newest(rows[first])
    time, action, item = events.times[first], events.actions[first], events.items[first]
    after = (time > newest.time) | (
        (time == newest.time) & ((action > newest.action) | ((action == newest.action) & (item > newest.item)))
    )
    return rows[first[~after]]


def _append(
    columns: Columns,
    rows: np.ndarray,
    events: Events,
    order: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    if not len(order):
        return order
    at = rows[order]
    rank = rank_in_run(at)
    distinct, how_many = np.unique(at, return_counts=True)
    columns.make_room(distinct, how_many)
    ordinals = columns.count[at] + rank
    columns.append(
        at,
        ordinals,
        {
            "item": events.items[order],
            "action": events.actions[order],
            "time": events.times[order],
            "weight": events.weights[order],
        },
    )
    before = columns.before(at, ordinals, PAIR_STEPS)
    pairs.append(_pairs(before, events.items[order], events.times[order]))
    return order


def _merge(
    columns: Columns,
    row: int,
    events: Events,
    order: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Put events, some of them late, into one row; returns those that were not there yet."""
    held = columns.read(row)
    new = {
        "item": events.items[order],
        "action": events.actions[order],
        "time": events.times[order],
        "weight": events.weights[order],
    }
    both = {name: np.concatenate([held[name], new[name]]) for name in held}
    # `canonical` keeps the first of equals: the one that was held.
    kept = canonical(both["time"], both["action"], both["item"])
    n_held = len(held["item"])
    positions = np.flatnonzero(kept >= n_held)
    oldest = max(0, len(kept) - columns.history)
    columns.remember(np.full(oldest, row), both["item"][kept[:oldest]])
    stays = kept[oldest:]
    columns.put(np.array([row]), np.array([len(stays)]), {name: column[stays] for name, column in both.items()})
    items = both["item"][kept]
    inside = positions[positions >= oldest]
    before = np.zeros((len(inside), PAIR_STEPS), np.uint64)
    for i, position in enumerate(inside.tolist()):
        met = items[max(0, position - PAIR_STEPS) : position][::-1]
        before[i, : len(met)] = met
    pairs.append(_pairs(before, items[inside], both["time"][kept][inside]))
    return order[kept[positions] - n_held]


def _pairs(before: np.ndarray, items: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(met before, new item, its time) of each pair; `before` u64[n, PAIR_STEPS], 0 = none."""
    owner, met = pairs_of(before, items)
    return met, items[owner], times[owner]


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _joined_pairs(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    before, item, time = zip(*parts, strict=True)
    return np.concatenate(before), np.concatenate(item), np.concatenate(time)
