"""The range of history that a backfill reads: where it begins and stops in every partition, agreed by all who read it.

Several workers share one backfill, and each may be killed and started again. So the range is worked out once, by
whoever comes first, and kept beside the state's origin; everyone after reads it from there. Reading it is a worker's
ordinary work (`stream.backfill` runs it), and where a batch is cut is decided in `stream.ingest`.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgpack
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError
from faust.types import TP

from stream.errors import ConfigError, StateError
from stream.ingest import Stop
from stream.kafka.clients import consumer, producer
from stream.kafka.debts import offsets as committed_offsets
from stream.kafka.follow import newest_by_key
from stream.kafka.topics import topic_partitions
from stream.past import Past
from stream.settings import Settings

VERSION = 1
KEY = b"range-"
"""How keys of ranges begin, in the topic of the state's origin; a number follows, and a name of its own."""

PATIENCE_SESSIONS = 3
"""How many session timeouts a member that was killed is waited for."""

_NOT_ALONE = CommitFailedError, IllegalGenerationError, RebalanceInProgressError, UnknownMemberIdError

Where = int | Mapping[TP, int] | None
"""A place in every partition: a time in ms, offsets, or None for the end of what there is in that direction."""


@dataclass(frozen=True, slots=True)
class Range:
    """What is read of each partition: from offset `begin` on, up to `stops`. `into`: the topic that history's lists go
    to; None where history is read in silence.
    """

    begin: dict[TP, int]
    stops: dict[TP, Stop]
    into: str | None = None

    @property
    def until(self) -> dict[TP, int]:
        """The next offset of each partition when it is done."""
        return {tp: stop.until for tp, stop in self.stops.items()}

    def done(self, committed: Mapping[Any, int]) -> bool:
        """Whether all of it has been read, by these next offsets."""
        return all(committed.get(tp, -1) >= stop.until for tp, stop in self.stops.items())

    def pack(self) -> bytes:
        rows = [(tp.topic, tp.partition, self.begin[tp], *stop) for tp, stop in sorted(self.stops.items())]
        return cast(bytes, msgpack.packb((VERSION, self.into, rows)))

    @classmethod
    def unpack(cls, packed: bytes) -> Range:
        """Raises ValueError for a range that this version cannot read."""
        version, *fields = msgpack.unpackb(packed)
        if version != VERSION:
            raise ValueError(f"a range of version {version}; this eddyline reads {VERSION}")
        into, rows = fields
        return cls(
            {TP(topic, p): begin for topic, p, begin, *_ in rows},
            {TP(topic, p): Stop(last, until) for topic, p, _, last, until in rows},
            into,
        )


async def survey(
    settings: Settings, since: Where, until: Where, into: str | None = None, past: Past | None = None
) -> Range:
    """The range of the input topics, as they are now, and as they were before where there is a past.

    A time is the first offset whose record is of that time or later, in each partition; its own end where there is
    none. Offsets that are given for some partitions leave the others whole.

    Raises:
        TopicError: a topic is missing.
        ConfigError: an offset is of no input partition, not there any more, or not there yet.
    """
    tps = [TP(*tp) for tp in await topic_partitions(settings.kafka, settings.input.names)]
    async with consumer(settings.kafka) as client:
        client.assign(tps)
        earliest = {TP(*tp): at for tp, at in (await client.beginning_offsets(tps)).items()}
        ends = {TP(*tp): at for tp, at in (await client.end_offsets(tps)).items()}
        past = past or Past({})
        there = _There({tp: min(past.first(tp, at), at) for tp, at in earliest.items()}, earliest, ends, past)
        begin = await _places(client, since, there.first, there)
        stop = {tp: max(at, begin[tp]) for tp, at in (await _places(client, until, ends, there)).items()}
        stops = {tp: Stop(await _last(client, tp, begin[tp], at, there), at) for tp, at in stop.items()}
    # Where there is no record in between, there is nothing to wait for.
    begin = {tp: stops[tp].until if stops[tp].last <= at else at for tp, at in begin.items()}
    return Range(begin, stops, into)


async def agreed(settings: Settings, wanted: Range) -> Range:
    """The range that this state version reads: `wanted`, unless it has one that it is not done with.

    Of those who come at once each proposes a range, under the next number and a name of its own, so that none replaces
    another's; the first in the log is the one, and everybody reads which that is.

    Raises:
        StateError: it has one that this eddyline cannot read.
    """
    kept, committed = await _current(settings), await _committed(settings)
    if kept is not None and not kept.span.done(committed):
        return kept.span
    begun = {tp: max(at, committed.get(tp, at)) for tp, at in wanted.begin.items()}
    number = kept.number + 1 if kept is not None else 1
    key = KEY + f"{number}-{uuid.uuid4().hex}".encode()
    async with producer(settings.kafka) as client:
        topic = settings.topics.origin(settings.state.name)
        await client.send_and_wait(topic, replace(wanted, begin=begun).pack(), key, partition=0)
    proposed = await _current(settings)
    return proposed.span if proposed is not None else wanted


class _Kept(NamedTuple):
    number: int
    span: Range


async def _current(settings: Settings) -> _Kept | None:
    """The range of the highest number; of several, the first that was written."""
    name = settings.state.name
    found = await newest_by_key(settings.kafka, settings.topics.origin(name))
    records = [(int(key[len(KEY) :].split(b"-")[0]), r) for key, r in found.items() if key.startswith(KEY) and r.value]
    if not records:
        return None
    number = max(number for number, _ in records)
    first = min((record for n, record in records if n == number), key=lambda record: record.offset)
    return _Kept(number, _unpacked(first.value, name))


async def begin_at(settings: Settings, begin: Mapping[TP, int]) -> bool:
    """Commit, for a state version's group, where it is to begin. Requests begin at their end: those before are another
    version's to answer.

    Returns False, changing nothing, where the group has offsets already: a backfill that was interrupted goes on.
    """
    requests = await topic_partitions(settings.kafka, [settings.topics.requests])
    first: dict[TopicPartition, int] = {TopicPartition(*tp): at for tp, at in begin.items()}
    deadline = time.monotonic() + PATIENCE_SESSIONS * settings.kafka.session_timeout_ms / 1000
    while not begin.keys() <= (await _committed(settings)).keys():
        async with consumer(settings.kafka, group_id=settings.group) as client:
            client.assign([*begin, *requests])
            try:
                await client.commit(first | await client.end_offsets(requests))
            except _NOT_ALONE as error:  # a worker of it reads already, so it has begun; or one was killed just now
                if time.monotonic() > deadline:
                    raise StateError(
                        f"the group {settings.group} has members that have committed nothing, so where state "
                        f"{settings.state.name} is to begin cannot be told",
                        "stop whoever is in it, or choose another name",
                    ) from error
            else:
                return True
        await asyncio.sleep(0.5)
    return False


def offsets_file(path: Path, settings: Settings) -> dict[TP, int]:
    """Offsets out of a JSON file such as {"click": {"0": 120, "1": 98}}: topic, partition, offset.

    Raises:
        ConfigError: it is none, or names a topic that is not an input.
    """
    shape = 'write {"TOPIC": {"PARTITION": OFFSET}}, such as {"click": {"0": 120, "1": 98}}'
    try:
        told = json.loads(path.read_text())
        found = {TP(topic, int(p)): int(at) for topic, parts in told.items() for p, at in parts.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path} has no offsets: {error}", shape) from error
    if foreign := {tp.topic for tp in found} - set(settings.input.names):
        raise ConfigError(f"{path} names {', '.join(sorted(foreign))}, of which no events are read", shape)
    return found


class _There(NamedTuple):
    """What there is of each partition: from `first` to `ends`, of which the brokers have what is from `earliest` on."""

    first: Mapping[TP, int]
    earliest: Mapping[TP, int]
    ends: Mapping[TP, int]
    past: Past


async def _places(client: AIOKafkaConsumer, where: Where, default: Mapping[TP, int], there: _There) -> dict[TP, int]:
    if where is None:
        return dict(default)
    if isinstance(where, int):
        found = await client.offsets_for_times(dict.fromkeys(default, where))
        return {tp: _at(tp, where, found.get(tp), there) for tp in default}
    for tp, at in where.items():
        if tp not in default:
            raise ConfigError(f"there is no partition {tp.partition} of {tp.topic}", "correct the offsets")
        first, end = there.first[tp], there.ends[tp]
        if not first <= at <= end:
            raise ConfigError(
                f"offset {at} of {tp.topic}/{tp.partition} is not there: there are {first} to {end}",
                "give an offset in between, or leave the partition out; what the brokers have forgotten may be read "
                "from an archive: --archive FOLDER",
            )
    return {**default, **where}


def _at(tp: TP, ms: int, found: Any, there: _There) -> int:
    """Where a time is. `found`: where the brokers have it."""
    at = there.ends[tp] if found is None else min(found.offset, there.ends[tp])
    if at > there.earliest[tp] or there.first[tp] == there.earliest[tp]:
        return at
    before = there.past.at(tp, ms)  # all that the brokers have is of that time or later
    return at if before is None else min(before, at)


async def _last(client: AIOKafkaConsumer, tp: TP, begin: int, end: int, there: _There) -> int:
    """The offset after the last record from `begin` up to `end`; `begin` where there is none."""
    join = max(begin, min(there.earliest[tp], end))
    last = await _after_last_record(client, tp, join, end)
    if last > join:
        return last
    return max(begin, there.past.end(tp, join) or begin)


async def joins(settings: Settings, span: Range, past: Past, allow_gap: bool) -> dict[TP, int]:
    """Where the brokers' part of each partition begins, before which the past is read.

    Raises:
        StateError: between what has been read, or the past, and the brokers' earliest, offsets are missing.
    """
    committed = await _committed(settings)
    async with consumer(settings.kafka) as client:
        earliest = {TP(*tp): at for tp, at in (await client.beginning_offsets(list(span.stops))).items()}
    join = {tp: min(earliest[tp], stop.until) for tp, stop in span.stops.items()}
    gaps = [
        f"{tp.topic}/{tp.partition}: {first} to {last}"
        for tp, at in sorted(join.items())
        for first, last in past.missing(tp, max(committed.get(tp, 0), span.begin[tp]), at)
    ]
    if gaps and not allow_gap:
        more = f", and {len(gaps) - 8} more" if len(gaps) > 8 else ""
        raise StateError(
            f"offsets are missing, neither in an archive nor on the brokers: {'; '.join(gaps[:8])}{more}",
            "add the files that have them (--archive FOLDER), begin later (--since), or read on without them: "
            "--allow-gap, as where they were a transaction's markers, or compacted away",
        )
    return join


async def last_offsets(settings: Settings) -> dict[TP, int]:
    """The offset after the last record of every input partition, as of now."""
    tps = await topic_partitions(settings.kafka, settings.input.names)
    async with consumer(settings.kafka) as client:
        client.assign(tps)
        firsts, ends = await client.beginning_offsets(tps), await client.end_offsets(tps)
        return {TP(*tp): await _after_last_record(client, TP(*tp), firsts[tp], ends[tp]) for tp in tps}


async def _after_last_record(client: AIOKafkaConsumer, tp: TP, first: int, end: int) -> int:
    """Looks back from `end`: a log may end with the markers of transactions, which are offsets but never delivered."""
    back, at = 1, TopicPartition(*tp)
    while (start := max(first, end - back)) < end:
        client.seek(at, start)
        last = -1
        while await client.position(at) < end:
            for records in (await client.getmany(at, timeout_ms=200)).values():
                last = max([last, *(record.offset for record in records if record.offset < end)])
        if last >= 0:
            return last + 1
        if start == first:
            return first
        back *= 8
    return end


async def _committed(settings: Settings) -> dict[TP, int]:
    found = await committed_offsets(settings.kafka, settings.group)
    inputs: Iterable[str] = set(settings.input.names)
    return {TP(*tp): at.offset for tp, at in found.items() if tp.topic in inputs and at.offset >= 0}


def _unpacked(packed: bytes, state: str) -> Range:
    try:
        return Range.unpack(packed)
    except ValueError as error:
        raise StateError(
            f"what state {state} reads of history is {error}", "go on with the version that began it, or build another"
        ) from error
