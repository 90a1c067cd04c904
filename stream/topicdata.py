"""The input topics, or a range of them, as the data set that a training, an evaluation or a trial is made of.

Not a store, and nobody's group: partitions are read as someone who only looks does (`stream.kafka.reading`). What is an
event is decided by the worker's own decoder, so what a worker would bury is left out here, and counted. An event is in
the range by its own time, whenever it arrived; items and users are as they were described by the end of the
range (`stream.described`).

Events come in the order of histories (`model.dataset.as_history`), in which no order of arrival shows: what is learned
from topics is what is learned from the folder that was replayed into them. In memory an event is 21 bytes while it is
read, and a name is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from aiokafka import TopicPartition

from model.dataset import Dataset, Events, as_history
from stream.described import Items, items_of, people_of
from stream.errors import LogError, TopicError
from stream.events import InputConfig
from stream.kafka.reading import OnRecords, read
from stream.kafka.topics import partitions
from stream.process.keys import look
from stream.settings import Settings


@dataclass(frozen=True, eq=False)
class TopicData:
    """A range of the input topics as a data set, and what reading it came to.

    `records` that were read, of `size` bytes with their keys; of these `unreadable` are no events, `outside` lie
    outside the range by their own time, and `repeats` were there already. `described`: items that the catalogue had by
    then; `lent`: those of which only later texts are left. `fetching`: CPU seconds of fetching, before anything was
    decoded. `partitions`: of an input topic, the greatest count; `share`: how many of all partitions were read.
    """

    data: Dataset
    records: int
    size: int
    unreadable: int
    outside: int
    repeats: int
    described: int
    lent: int
    fetching: float
    partitions: int
    share: float = 1.0


async def read_topics(
    settings: Settings,
    since: int | None = None,
    until: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    also: OnRecords | None = None,
    most: int | None = None,
) -> TopicData:
    """Events of since <= time < until (ms; None: all there are) with all that was known of items and users then.

    `also` is handed every batch as well. most: only so many partitions of each topic are read, and the users in them
    with all that they did. Nothing is written to the broker, and nothing is committed.

    Raises:
        TopicError: an input topic is not there, or may not be read.
        LogError: there is no event in the range.
    """
    every = await _inputs(settings)
    tps = [tp for tp in every if most is None or tp.partition < most]
    # What the worker would bury is no event here either.
    kept = Columns(settings.input, since, until, keyed=not (await look(settings)).needed)

    def on_records(tp: TopicPartition, records: Sequence[Any]) -> None:
        kept.take(tp, records)
        if also is not None:
            also(tp, records)

    # A record may be written before its event by as much as clocks are allowed to differ.
    first = None if since is None else since - settings.input.max_skew_ms
    spent = await read(settings.kafka, tps, on_records, first, progress)
    events = kept.events()
    if not len(events):
        raise _nothing(settings, kept)
    items = Items(await items_of(settings, until), kept.met, int(events.ts[0]))
    people = await people_of(settings, until)
    found = TopicData(
        Dataset("topics", "as its owner says", events, items.items, (), people),
        kept.records,
        kept.size,
        kept.unreadable,
        kept.outside,
        kept.taken - len(events),
        items.described,
        items.lent,
        spent.fetching,
        max(tp.partition for tp in every) + 1,
        len(tps) / len(every),
    )
    return _told(found, settings, kept.first_bad)


class Bad(NamedTuple):
    """The first record that is no event."""

    tp: TopicPartition
    offset: int
    reason: str


class Columns:
    """Decodes batches of any input topic into columns, names interned; `events` makes one sequence of them."""

    def __init__(
        self, config: InputConfig, since: int | None = None, until: int | None = None, keyed: bool = True
    ) -> None:
        self._decoders = config.decoders(keyed, valued=True)
        self._since, self._until = since, until
        self._users: dict[str, int] = {}
        self._items: dict[str, int] = {}
        self._parts: list[tuple[np.ndarray, ...]] = []
        self.records = self.size = self.unreadable = self.outside = self.taken = 0
        self.first_bad: Bad | None = None

    @property
    def met(self) -> Iterable[str]:
        """Items of these events, once each."""
        return self._items.keys()

    def take(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Take in a batch of one partition, in the order of its offsets."""
        self.records += len(records)
        self.size += sum(len(r.value or b"") + len(r.key or b"") for r in records)
        events, bad = self._decoders[tp.topic].decode(records)
        if bad:
            self.unreadable += len(bad)
            self.first_bad = self.first_bad or Bad(tp, bad[0].record.offset, bad[0].reason)
        inside = self._inside(events.times)
        at = np.flatnonzero(inside)
        self.outside += len(events) - len(at)
        if not len(at):
            return
        users, names, values = events.users, events.names, events.values
        assert values is not None
        if len(at) < len(events):
            users, names, values = [users[i] for i in at.tolist()], [names[i] for i in at.tolist()], values[at]
        self.taken += len(at)
        self._parts.append(
            (
                _interned(self._users, users),
                _interned(self._items, names),
                events.actions[at],
                events.times[at],
                values,
            )
        )

    def _inside(self, times: np.ndarray) -> np.ndarray:
        inside = np.ones(len(times), bool)
        if self._since is not None:
            inside &= times >= self._since
        if self._until is not None:
            inside &= times < self._until
        return inside

    def events(self) -> Events:
        """All of them in the order of histories, exact repeats once. What was taken in is let go of."""
        parts, self._parts = self._parts, []
        none = tuple(np.zeros(0, kind) for kind in (np.int32, np.int32, np.uint8, np.int64, np.float32))
        user, item, action, ts, value = (np.concatenate(column) for column in zip(none, *parts, strict=True))
        users, items = (np.array(list(names), object) for names in (self._users, self._items))
        return as_history(Events(users[user], items[item], action, ts, value))


def _interned(numbers: dict[str, int], names: Sequence[str]) -> np.ndarray:
    """The number of each name, i32[n]; new ones are added."""
    try:
        return np.fromiter(map(numbers.__getitem__, names), np.int32, len(names))
    except KeyError:
        return np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int32, len(names))


async def _inputs(settings: Settings) -> list[TopicPartition]:
    """Every partition of the input topics."""
    names = settings.input.names
    counts = await partitions(settings.kafka, names)
    if missing := [name for name in names if name not in counts]:
        raise TopicError(
            f"no such topics, or not to be seen by this user: {', '.join(missing)}",
            'name those that you have, in eddyline.toml: [input.topics] click = "shop.clicks"',
        )
    return [TopicPartition(name, p) for name in names for p in range(counts[name])]


def _nothing(settings: Settings, kept: Columns) -> LogError:
    """The one error for a range without events, with what it had in place of them."""
    topics = ", ".join(settings.input.names)
    if not kept.records:
        return LogError(
            f"{topics}: no record in the range",
            "begin earlier (--since), or send events first: eddyline send click USER ITEM",
        )
    if kept.unreadable and not kept.outside:
        why = kept.first_bad.reason if kept.first_bad is not None else ""
        return LogError(
            f"{topics}: none of {kept.records:,} records is an event; the first is none because: {why}",
            "send JSON or MessagePack with user and item, keyed by its user: docs/data.md",
        )
    return LogError(
        f"{topics}: {kept.records:,} records, and no event's own time is in the range",
        "widen it with --since and --until, or set input.ts_unit if `ts` is not in milliseconds",
    )


def _told(found: TopicData, settings: Settings, bad: Bad | None) -> TopicData:
    """The same, with what must be said of it as notes."""
    events = found.data.events
    first, last = int(events.ts[0]), int(events.ts[-1])
    notes = [
        f"{len(events):,} events, {_utc(first)} to {_utc(last)}, of {found.records:,} records of "
        f"{', '.join(settings.input.names)}; the same again: --since {first} --until {last + 1}"
    ]
    if bad is not None:
        notes.append(
            f"{found.unreadable:,} records are no events, and a worker would bury them; the first, {bad.tp.topic} "
            f"{bad.tp.partition} at offset {bad.offset}: {bad.reason}"
        )
    if found.repeats:
        notes.append(f"{found.repeats:,} exact repeats count once")
    if not found.described and not found.lent:
        notes.append(f"{settings.topics.catalog} describes no item: ids stand for them, without texts")
    elif found.lent:
        notes.append(f"of {found.lent:,} items only descriptions from after the range are left; their texts are used")
    return replace(found, data=replace(found.data, notes=tuple(notes)))


def _utc(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
