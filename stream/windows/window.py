"""Step 2 of an event's path: columns of events -> each user's window.

A window is a set, not an order of arrival: the greatest distinct (time, action, item) of a user. A
batch whose events come in order is applied with one sort and one scatter; a row with a late event is
merged by itself. Offsets at or below a row's `applied` are skipped, so a batch that is read again
changes nothing. Pure functions of the columns; Kafka is not here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from model.history import canonical
from model.online import PAIR_STEPS, pairs_of
from stream.events import Events
from stream.windows.blocks import runs
from stream.windows.columns import NEVER, Columns, by_group, rank_in_run

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


def apply(columns: Columns, partition: int, topic: int, events: Events, paired: bool = True) -> Applied:
    """Apply the events of one topic (its index in `columns.topics`) and partition; pairs only where they are wanted."""
    rows = columns.rows(partition, events.users)
    order = by_group(rows)  # events of a row together, as they came
    starts, lengths = runs(rows[order])
    distinct, first, last = rows[order[starts]], order[starts], order[starts + lengths - 1]
    before = columns.applied[distinct, topic]
    after = events.offsets[last]
    moved = distinct[after > before]
    columns.applied[moved, topic] = after[after > before]
    columns.dirty[moved] = True
    touched = np.argsort(first)

    if (before >= events.offsets[first]).any():  # some have been applied before
        order = order[events.offsets[order] > np.repeat(before, lengths)]
    order = _canonical(rows, events, order)
    fresh: list[np.ndarray] = []
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None = [] if paired else None
    if len(order):
        columns.moved_on(partition, int(events.times[order].max()))
    for anew, stretch in _stretches(columns, rows, events, order):
        columns.clear(anew)
        _apply_stretch(columns, rows, events, stretch, fresh, pairs)
    return Applied(distinct[touched], last[touched], _joined(fresh), _joined_pairs(pairs or []))


def _stretches(
    columns: Columns, rows: np.ndarray, events: Events, order: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows to begin anew, events to apply then): a row begins anew after a pause of more than `ttl_ms`.

    Whether such a row has left already depends on when it was flushed; beginning anew makes it the same either way.
    """
    nobody = np.zeros(0, np.int64)
    if columns.ttl_ms is None or not len(order):
        yield nobody, order
        return
    at, times = rows[order], events.times[order]
    starts = runs(at)[0]
    previous = np.r_[times[0], times[:-1]]
    previous[starts] = columns.newest(at[starts]).time
    # NEVER is that of a row without events; it must not wrap round.
    pause = (previous != NEVER) & (times - np.maximum(previous, 0) > columns.ttl_ms)
    stretch = np.cumsum(pause)
    stretch -= np.repeat((stretch - pause)[starts], runs(at)[1])
    for number in range(int(stretch.max()) + 1):
        here = stretch == number
        yield at[here & pause], order[here]


def _apply_stretch(
    columns: Columns,
    rows: np.ndarray,
    events: Events,
    order: np.ndarray,
    fresh: list[np.ndarray],
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None,
) -> None:
    """Apply events in canonical order, row by row."""
    rank = rank_in_run(rows[order])
    while len(order):
        now = order if rank.max() < ROUND else order[rank < ROUND]
        order, rank = order[rank >= ROUND], rank[rank >= ROUND] - ROUND
        late = _late_rows(columns, rows, events, now)
        in_order = now[~np.isin(rows[now], late)] if len(late) else now
        fresh.append(_append(columns, rows, events, in_order, pairs))
        for row in late.tolist():
            fresh.append(_merge(columns, row, events, now[rows[now] == row], pairs))


def _canonical(rows: np.ndarray, events: Events, order: np.ndarray) -> np.ndarray:
    """`order`, in which events of a row lie together, with each row's by (time, action, item) and without repeats."""
    row, time, action, item = rows[order], events.times[order], events.actions[order], events.items[order]
    same = row[1:] == row[:-1]
    tied = same & (time[1:] == time[:-1])
    behind = same & (time[1:] < time[:-1])
    if tied.any():
        behind |= tied & ((action[1:] < action[:-1]) | ((action[1:] == action[:-1]) & (item[1:] < item[:-1])))
    if behind.any():
        order = order[np.lexsort((item, action, time, row))]
        row, time, action, item = rows[order], events.times[order], events.actions[order], events.items[order]
        tied = (row[1:] == row[:-1]) & (time[1:] == time[:-1])
    if tied.any():
        order = order[np.r_[True, ~(tied & (action[1:] == action[:-1]) & (item[1:] == item[:-1]))]]
    return order


def _late_rows(columns: Columns, rows: np.ndarray, events: Events, order: np.ndarray) -> np.ndarray:
    """Rows whose first event here is not after the newest that they hold."""
    first = order[runs(rows[order])[0]]
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
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None,
) -> np.ndarray:
    if not len(order):
        return order
    at, items, times = rows[order], events.items[order], events.times[order]
    starts, lengths = runs(at)
    distinct = at[starts]
    held = columns.before(distinct, columns.count[distinct], PAIR_STEPS) if pairs is not None else None
    columns.make_room(distinct, lengths)
    ordinals = np.repeat(columns.count[distinct] - starts, lengths) + np.arange(len(at))
    columns.append(
        at,
        ordinals,
        {"item": items, "action": events.actions[order], "time": times, "weight": events.weights[order]},
    )
    if pairs is not None and held is not None:
        pairs.append(_pairs(_met_before(held, items, lengths), items, times))
    return order


def _met_before(held: np.ndarray, items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """u64[n, PAIR_STEPS]: the items before each of n new ones, which come row by row, `lengths` i64[d] of each.

    `held` u64[d, PAIR_STEPS]: what each row held before, nearest first. Held and new items are laid side by side, so
    that what was met before an item is what lies before it.
    """
    line = np.empty(held.size + len(items), np.uint64)
    new = np.zeros(len(line), bool)
    new[np.repeat(np.arange(1, len(held) + 1) * PAIR_STEPS, lengths) + np.arange(len(items))] = True
    line[new], line[~new] = items, held[:, ::-1].ravel()
    return sliding_window_view(line, PAIR_STEPS)[np.flatnonzero(new) - PAIR_STEPS]


def _merge(
    columns: Columns,
    row: int,
    events: Events,
    order: np.ndarray,
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] | None,
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
    if columns.ttl_ms is not None:
        pauses = np.flatnonzero(np.diff(both["time"][kept]) > columns.ttl_ms)
        kept = kept[pauses[-1] + 1 :] if len(pauses) else kept
    n_held = len(held["item"])
    positions = np.flatnonzero(kept >= n_held)
    oldest = max(0, len(kept) - columns.history)
    columns.remember(np.full(oldest, row), both["item"][kept[:oldest]])
    stays = kept[oldest:]
    columns.put(np.array([row]), np.array([len(stays)]), {name: column[stays] for name, column in both.items()})
    if pairs is None:
        return order[kept[positions] - n_held]
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
