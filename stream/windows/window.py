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

from model.history import canonical
from model.online import PAIR_STEPS, pairs_of, steady
from stream.events import Events
from stream.windows.blocks import runs
from stream.windows.columns import NEVER, Columns, by_group, rank_in_run

ROUND = 64
"""Interactions that a row takes at a time: fewer than a ring holds, so that those before them are still there."""
STEPS_BEFORE = np.arange(-PAIR_STEPS, 0)


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch did.

    `rows` i64[t]: touched rows, distinct, in the order of their first event, skipped events included: a crash
    between flush and emission must cost a repeat, not an answer. `last` i64[t]: index of each one's last event.
    `pairs` (before u64[p], item u64[p], time i64[p]): the pairs that `model.online` defines.
    `fresh` i64[m]: indices of the events that were new; `counted` i64[c]: of those that count, all of them unless
    steady ones are left out.
    """

    rows: np.ndarray
    last: np.ndarray
    fresh: np.ndarray
    counted: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray]


class _Tally:
    """What the events of a batch count. variation: see `online.steady`."""

    def __init__(self, variation: float) -> None:
        self.variation = variation
        self._pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._counted: list[np.ndarray] = []

    def add(
        self, order: np.ndarray, items: np.ndarray, times: np.ndarray, before: np.ndarray, when: np.ndarray | None
    ) -> None:
        """Events `order` i64[n], their items and times, items before u64[n, PAIR_STEPS] (0 = none) and, where beats
        are looked for, their times i64[n, PAIR_STEPS], oldest first.
        """
        if when is not None:
            free = ~steady(when, times, self.variation)
            order, items, times, before = order[free], items[free], times[free], before[free]
        owner, met = pairs_of(before, items)
        self._pairs.append((met, items[owner], times[owner]))
        self._counted.append(order)

    def add_old(self, order: np.ndarray) -> None:
        """Events that came too late for the window: nothing is known of what was before them."""
        self._counted.append(order)

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Applied`."""
        return _joined_pairs(self._pairs)

    @property
    def counted(self) -> np.ndarray:
        """See `Applied`."""
        return _joined(self._counted)


def apply(
    columns: Columns, partition: int, topic: int, events: Events, paired: bool = True, variation: float = 0.0
) -> Applied:
    """Apply the events of one topic (its index in `columns.topics`) and partition; pairs only where they are wanted,
    and without those of steady events (`online.steady`) where `variation` is above 0.
    """
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
    tally = _Tally(variation) if paired else None
    if len(order):
        columns.moved_on(partition, int(events.times[order].max()))
    for anew, stretch in _stretches(columns, rows, events, order):
        columns.clear(anew)
        _apply_stretch(columns, rows, events, stretch, fresh, tally)
    tally = tally or _Tally(variation)
    return Applied(distinct[touched], last[touched], _joined(fresh), tally.counted, tally.pairs)


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
    tally: _Tally | None,
) -> None:
    """Apply events in canonical order, row by row."""
    rank = rank_in_run(rows[order])
    while len(order):
        now = order if rank.max() < ROUND else order[rank < ROUND]
        order, rank = order[rank >= ROUND], rank[rank >= ROUND] - ROUND
        late = _late_rows(columns, rows, events, now)
        in_order = now[~np.isin(rows[now], late)] if len(late) else now
        fresh.append(_append(columns, rows, events, in_order, tally))
        for row in late.tolist():
            fresh.append(_merge(columns, row, events, now[rows[now] == row], tally))


def _canonical(rows: np.ndarray, events: Events, order: np.ndarray) -> np.ndarray:
    """`order`, in which events of a row lie together, with each row's by (time, action, item) and without repeats."""
    if len(order) < 2:
        return order
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
    tally: _Tally | None,
) -> np.ndarray:
    if not len(order):
        return order
    at, items, times = rows[order], events.items[order], events.times[order]
    starts, lengths = runs(at)
    distinct = at[starts]
    counts, held, held_times = columns.count[distinct], None, None
    if tally is not None:
        held = columns.before(distinct, counts, PAIR_STEPS)
        held_times = columns.times_before(distinct, counts, PAIR_STEPS) if tally.variation > 0 else None
    columns.make_room(distinct, lengths)
    ordinals = np.repeat(columns.count[distinct] - starts, lengths) + np.arange(len(at))
    columns.append(
        at,
        ordinals,
        {"item": items, "action": events.actions[order], "time": times, "weight": events.weights[order]},
    )
    if tally is not None and held is not None:
        when = None if held_times is None else _met_before(held_times, times, lengths)
        tally.add(order, items, times, _met_before(held, items, lengths), when)
    return order


def _met_before(held: np.ndarray, items: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """[n, PAIR_STEPS]: the items, or times, before each of n new ones, which come row by row, `lengths` i64[d] of each.

    `held` [d, PAIR_STEPS]: what each row held before, nearest first. Held and new items are laid side by side, so
    that what was met before an item is what lies before it.
    """
    line = np.empty(held.size + len(items), items.dtype)
    new = np.zeros(len(line), bool)
    new[np.repeat(np.arange(1, len(held) + 1) * PAIR_STEPS, lengths) + np.arange(len(items))] = True
    line[new], line[~new] = items, held[:, ::-1].ravel()
    return line[new.nonzero()[0][:, None] + STEPS_BEFORE]


def _merge(
    columns: Columns,
    row: int,
    events: Events,
    order: np.ndarray,
    tally: _Tally | None,
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
    new_ones = order[kept[positions] - n_held]
    if tally is None:
        return new_ones
    items, times = both["item"][kept], both["time"][kept]
    inside = positions[positions >= oldest]
    before = np.zeros((len(inside), PAIR_STEPS), np.uint64)
    when = np.full((len(inside), PAIR_STEPS), NEVER)
    for i, position in enumerate(inside.tolist()):
        near = slice(max(0, position - PAIR_STEPS), position)
        before[i, PAIR_STEPS - (near.stop - near.start) :] = items[near]
        when[i, PAIR_STEPS - (near.stop - near.start) :] = times[near]
    tally.add(
        new_ones[positions >= oldest], items[inside], times[inside], before, when if tally.variation > 0 else None
    )
    tally.add_old(new_ones[positions < oldest])
    return new_ones


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _joined_pairs(
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not parts:
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64)
    before, item, time = zip(*parts, strict=True)
    return np.concatenate(before), np.concatenate(item), np.concatenate(time)
