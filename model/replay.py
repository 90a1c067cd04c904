"""Events one by one: what any ranker would have known before each of them.

Not a metric and not a model. Histories are exact: each event is ranked from the history before it and then
added. Counts are those of all events before the step's first one, so they lag by less than `refresh` events,
as they do in a worker that rebuilds its scores from time to time; `refresh=1` is exact and slow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.dataset import Events, numbered
from model.history import Histories, HistoryLog, by_user, item_hashes, weight_table
from model.online import (
    NO_TIME,
    PAIR_STEPS,
    Counts,
    OnlineParams,
    OnlineScores,
    bucket_of,
    pairs,
    pairs_of,
    steady,
)

CHUNK = 65_536


@dataclass(frozen=True, eq=False)
class Timeline:
    """n events in time order as numbers, and the pairs each of them counts.

    users i64[n] (codes), items u64[n] (hashes), rows i32[n] (catalogue rows), actions u8[n], times i64[n],
    weights f32[n], fresh bool[n] (counted: not an exact repeat, nor steady where such are left out); pair_event i64[P]
    ascending, pair_from u64[P]: event pair_event[p] counts pair_from[p] -> its item.
    """

    users: NDArray[np.int64]
    items: NDArray[np.uint64]
    rows: NDArray[np.int32]
    actions: NDArray[np.uint8]
    times: NDArray[np.int64]
    weights: NDArray[np.float32]
    fresh: NDArray[np.bool_]
    pair_event: NDArray[np.int64]
    pair_from: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.times)

    def part(self, shard: int, shards: int) -> Timeline:
        """The same events, of which only those of every `shards`-th user count: what one of so many workers would
        count that shared nothing.
        """
        mine = self.users % shards == shard
        counted = mine[self.pair_event]
        pairs = self.pair_event[counted], self.pair_from[counted]
        return replace(self, fresh=self.fresh & mine, pair_event=pairs[0], pair_from=pairs[1])

    def as_of(self, end: int, params: OnlineParams) -> int:
        """The bucket that counts of the first `end` events are read in: the newest that was counted, as in a worker,
        which does not know when the next event will come.
        """
        return int(bucket_of(self.times[:end].max(initial=0), params.bucket_ms))

    def counts(self, end: int, params: OnlineParams, begin: int = 0) -> Counts:
        """The counts of the events begin..end-1; of the first `end` events, unless `begin` is given."""
        first, last = np.searchsorted(self.pair_event, [begin, end])
        event = self.pair_event[first:last]
        fresh = begin + np.flatnonzero(self.fresh[begin:end])
        return Counts(
            self.pair_from[first:last],
            self.items[event],
            bucket_of(self.times[event], params.bucket_ms),
            np.ones(len(event), np.uint32),
            self.items[fresh],
            bucket_of(self.times[fresh], params.bucket_ms),
            np.ones(len(fresh), np.uint32),
        )


@dataclass(frozen=True, eq=False)
class Step:
    """Events first..last-1: the history before each of them, and the scores from the counts before the first."""

    first: int
    last: int
    histories: Histories
    online: OnlineScores


def timeline(
    events: Events, catalog: Catalog, weights: Mapping[str, float] | None = None, variation: float = 0.0
) -> Timeline:
    """Events as a timeline; `weights` overrides the action weights by name, `variation` is that of `online.steady`."""
    users = numbered(events.user)[0]
    items = item_hashes(events.item)
    event, before, fresh = _counted(users, items, events, variation)
    return Timeline(
        users=users,
        items=items,
        rows=catalog.index_of(items),
        actions=events.action,
        times=events.ts,
        weights=weight_table(weights)[events.action],
        fresh=fresh,
        pair_event=event,
        pair_from=before,
    )


def human(events: Events, variation: float) -> Events:
    """Without what is counted nowhere: exact repeats, and what is `online.steady`. All of them where that is 0."""
    if variation <= 0:
        return events
    users = numbered(events.user)[0]
    return events.take(np.flatnonzero(_counted(users, item_hashes(events.item), events, variation)[2]))


def arrives_in_order(users: NDArray[np.int64], events: Events, items: NDArray[np.uint64]) -> bool:
    """Whether every user's events come in the order of a history, without an exact repeat."""
    order, _ = by_user(users, events.ts, events.action, items)
    return len(order) == len(users) and bool((np.argsort(users, kind="stable") == order).all())


def _counted(
    users: NDArray[np.int64], items: NDArray[np.uint64], events: Events, variation: float
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_]]:
    """Pairs as `Timeline` has them, and which events are fresh."""
    if arrives_in_order(users, events, items):
        return _counted_in_order(users, items, events.ts, variation)
    log = HistoryLog()
    fresh = np.zeros(len(events), bool)
    counted: list[NDArray[np.uint64]] = []
    keys = zip(users.tolist(), events.ts.tolist(), events.action.tolist(), items.tolist(), strict=True)
    for e, key in enumerate(keys):
        before = log.items_before(*key)
        beat = variation > 0 and _beats(log.times_before(*key), key[1], variation)
        fresh[e] = log.add(*key) and not beat
        counted.append(pairs(before, key[-1]) if fresh[e] else before[:0])
    event = np.repeat(np.arange(len(events)), [len(c) for c in counted])
    return event, np.concatenate([np.zeros(0, np.uint64), *counted]), fresh


def _beats(before: NDArray[np.int64], time: int, variation: float) -> bool:
    return bool(steady(before[None], np.array([time], np.int64), variation)[0])


def _counted_in_order(
    users: NDArray[np.int64], items: NDArray[np.uint64], times: NDArray[np.int64], variation: float
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.bool_]]:
    """`_counted` of events that come in order, many at once: what is before an event is what came before it."""
    order = np.argsort(users, kind="stable")
    u, i, t = users[order], items[order], times[order]
    fresh = np.ones(len(u), bool)
    place = np.arange(len(u)) - np.searchsorted(u, u)
    events, found = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
    for first in range(0, len(u), CHUNK):
        at = np.arange(first, min(first + CHUNK, len(u)))
        back = np.arange(-PAIR_STEPS, 0)[None]
        there, near = -back <= place[at, None], np.maximum(at[:, None] + back, 0)
        if variation > 0:
            beat = steady(np.where(there, t[near], NO_TIME), t[at], variation)
            fresh[order[at[beat]]] = False
            at, there, near = at[~beat], there[~beat], near[~beat]
        row, a = pairs_of(np.where(there, i[near], np.uint64(0)), i[at])
        events.append(order[at[row]])
        found.append(a)
    event, a = np.concatenate(events), np.concatenate(found)
    by_event = np.argsort(event, kind="stable")
    return event[by_event], a[by_event], fresh


def steps(
    line: Timeline, first: int, last: int, catalog: Catalog, params: OnlineParams, refresh: int = 250
) -> Iterator[Step]:
    """Events first..last-1 in steps of `refresh`; everything before `first` is known at the start."""
    log = HistoryLog()
    for e in range(first):
        _add(log, line, e)
    for start in range(first, last, refresh):
        end = min(start + refresh, last)
        rows = []
        for e in range(start, end):
            rows.append(log.histories([int(line.users[e])]))
            _add(log, line, e)
        scores = OnlineScores.build(catalog, line.counts(start, params), line.as_of(start, params), params)
        yield Step(start, end, Histories.concat(rows), scores)


def _add(log: HistoryLog, line: Timeline, e: int) -> None:
    log.add(int(line.users[e]), int(line.times[e]), int(line.actions[e]), int(line.items[e]), float(line.weights[e]))


def liked(line: Timeline, first: int, last: int) -> NDArray[np.int64]:
    """Events first..last-1 of items that the catalogue knows and that are a sign of interest: indices."""
    return first + np.flatnonzero((line.rows[first:last] >= 0) & (line.weights[first:last] > 0))
