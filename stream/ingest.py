"""Steps 1 and 2 on one fetched batch: decode, apply, count, and say who waits for a list.

The agent is this function bound to the input topics. It only carries: decoding is in `stream.events`,
windows in `stream.windows.window`, counts in `stream.trends`, tickets in `stream.answers.progress`. A batch is applied
without awaiting anything, so a commit, a rebalance or a stop never sees half of one. Requests come the same way: they
touch no state, and what is committed waits for their answers too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from faust.types import TP

from stream.answers.debts import Debts
from stream.answers.emission import EmitConfig
from stream.answers.progress import Trigger
from stream.deadletters import bury
from stream.events import Chunk, Events, InputConfig
from stream.process.monitor import Monitor
from stream.records import Unreadable
from stream.requests import decode
from stream.state import State
from stream.values import awaited
from stream.windows import window

log = logging.getLogger(__name__)

WAITING_HIGH = 50_000
"""Users who wait for a list before input is paused; a newer event of one who waits adds nothing."""


class Stop(NamedTuple):
    """Where reading of a partition ends: at `until`, once the record before `last` is applied. Between the two lie none
    that will be delivered: a transaction's markers are offsets too.
    """

    last: int
    until: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What of the topics is read, and who hears of it; by default all of it, for ever, and whoever it touches.

    `silent_until`: next offsets up to which state advances without lists. `stops`: partitions of which no more is
    read. `mute`: nobody is answered, and what is owed stays so. `requests`: whether these are read. `into`: the topic
    of lists, in place of the deployment's. `begins_silent`: nobody is answered before a cut-over gives the turn to the
    state version. `whole`: nothing of it may have been deleted before it was read.
    """

    silent_until: Mapping[TP, int] = field(default_factory=dict)
    stops: Mapping[TP, Stop] = field(default_factory=dict)
    mute: bool = False
    requests: bool = True
    into: str | None = None
    begins_silent: bool = False
    whole: bool = False


class _Taken(NamedTuple):
    """What a batch brings: events, what is none, its first offset, and the next one once it is applied."""

    events: Events
    bad: list[Unreadable]
    first: int
    next_offset: int


class Ingest:
    """Applies fetched batches to the state.

    Args:
        requests: the topic of requests.
    """

    def __init__(
        self,
        config: InputConfig,
        emit: EmitConfig,
        state: State,
        debts: Debts,
        producer: AIOKafkaProducer,
        requests: str,
        dead_letters: str,
        group: str,
        monitor: Monitor,
        wake: Callable[[], None],
        reading: Reading | None = None,
    ) -> None:
        self._decoders = config.decoders()
        self._speaks = {topic: emit.speaking(config.actions_of(topic)) for topic in config.names}
        self._number = {topic: i for i, topic in enumerate(state.columns.topics)}
        self._state = state
        self._debts = debts
        self._producer = producer
        self._requests = requests
        self._dead_letters = dead_letters
        self._group = group
        self._monitor = monitor
        self._wake = wake
        self._reading = reading or Reading()
        self.ended: set[TP] = set()
        """Partitions that have been read up to their stop."""
        self._burials: set[asyncio.Task] = set()
        self._aside: dict[TP, list[Any]] = {}
        self._claims = 0

    async def agent(self, stream: Any) -> None:
        """Faust's agent: one message is one fetched batch of one partition."""
        async for event in stream.events():
            tp = event.message.tp
            if not await self._prepared(tp.topic, event.message.value):
                continue
            if self._debts.holding and not await self._held():
                continue
            try:
                self.batch(TP(tp.topic, tp.partition), event.message.value)
            except Exception:
                # Half a batch may be in the rows: nothing of this process is durable or committed from here on.
                self._state.abandon()
                raise
            while self._state.progress.waiting > WAITING_HIGH:
                await asyncio.sleep(0.05)

    async def _prepared(self, topic: str, batch: Sequence[Any] | Chunk) -> bool:
        """Wait until a batch can be decoded; False as in `_held`."""
        decoder, claims = self._decoders.get(topic), self._claims
        if decoder is not None and not isinstance(batch, Chunk):
            await decoder.values.prepared(batch)
        return claims == self._claims

    @property
    def awaiting(self) -> str | None:
        """What batches wait for that is not here: why nothing is taken in."""
        return awaited(decoder.values for decoder in self._decoders.values())

    async def _held(self) -> bool:
        """Wait until batches are taken in again; False where partitions moved meanwhile: the batch is read again."""
        claims = self._claims
        while self._debts.holding:
            await asyncio.sleep(0.005)
        return claims == self._claims

    def batch(self, tp: TP, records: Sequence[Any] | Chunk) -> None:
        """Apply one batch. A partition that is no longer ours is left to its new owner."""
        state = self._state
        if tp.partition not in state.owned or not records:
            return
        if tp.topic == self._requests:
            self._asked(tp, records)
            return
        arrived = time.monotonic()
        taken = self._past(tp, records) if isinstance(records, Chunk) else self._decoded(tp, records)
        if taken is None:
            return
        events, bad, first, next_offset = taken
        quiet = self._debts.quiet(tp, first)
        trends = state.trends.config
        number = self._number[tp.topic]
        applied = window.apply(state.columns, tp.partition, number, events, trends.enabled, trends.variation)
        if trends.enabled:
            counts = applied.counted
            state.trends[tp.partition].count(events.items[counts], events.times[counts], applied.pairs)
            state.trends.changed()
        ticket = state.progress.applied(tp, next_offset, first)
        until, speaks = max(self._reading.silent_until.get(tp, 0), self._debts.floor(tp)), self._speaks[tp.topic]
        if speaks is not False and next_offset > until and len(applied.rows):
            causes = applied.last if speaks is True else _causes(events, speaks)
            causes = causes if first >= until else causes[events.offsets[causes] >= until]
            if quiet and len(causes):
                state.progress.owe(tp, max(first, until))
            elif len(causes):
                self._answer(ticket, tp, events, causes, arrived)
        self._debts.applied(tp, next_offset)
        if bad:
            self._bury(ticket, tp, bad)
        self._monitor.ingested(tp, len(events) + len(bad), len(bad), next_offset, time.monotonic() - arrived)

    def _decoded(self, tp: TP, records: Sequence[Any]) -> _Taken | None:
        """Those of a fetched batch that lie before the partition's stop. None where none do."""
        next_offset, stop = records[-1].offset + 1, self._reading.stops.get(tp)
        if stop is not None and next_offset >= stop.last:
            self.ended.add(tp)
            next_offset = stop.until
            records = [record for record in records if record.offset < stop.last]
            if not records:  # what there was has gone meanwhile, or all was read before
                self._state.progress.applied(tp, next_offset, next_offset)
                self._monitor.ingested(tp, 0, 0, next_offset, 0.0)
                return None
        events, bad = self._decoders[tp.topic].decode(records)
        return _Taken(events, bad, records[0].offset, next_offset)

    def _past(self, tp: TP, chunk: Chunk) -> _Taken:
        """What was there before the brokers' earliest; of which no more is read than is wanted."""
        events, stop = self._decoders[tp.topic].columns(chunk), self._reading.stops.get(tp)
        next_offset = int(chunk.offsets[-1]) + 1
        if stop is not None and next_offset >= stop.last:
            self.ended.add(tp)
            next_offset = stop.until
        return _Taken(events, [], int(chunk.offsets[0]), next_offset)

    def _answer(self, ticket: int, tp: TP, events: Events, causes: np.ndarray, arrived: float) -> None:
        """Let the users of these events, i64[t], wait for a list."""
        state = self._state
        for last in causes.tolist():
            offset = int(events.offsets[last])
            trigger = Trigger(tp.topic, offset, int(events.times[last]), arrived, events.traces.get(offset))
            state.progress.wait(ticket, tp.partition, events.users[last], trigger)
        self._wake()

    def _asked(self, tp: TP, records: Sequence[Any]) -> None:
        """Let those who ask wait for their answers, whatever holds other lists back; but where another state version
        answers, what comes yet is laid aside, and goes no further than the offset that is committed.
        """
        if self._debts.mute(tp.partition):
            self._aside.setdefault(tp, []).extend(records)
            return
        records = [*self._aside.pop(tp, ()), *records]
        arrived, progress = time.monotonic(), self._state.progress
        found, bad = decode(records)
        if records[0].offset < (floor := self._debts.floor(tp)):
            found = [a for a in found if a.offset >= floor]
        next_offset = records[-1].offset + 1
        ticket = progress.applied(tp, next_offset, records[0].offset)
        for a in found:
            trigger = Trigger(tp.topic, a.offset, a.ts, arrived, a.trace, request=a.request)
            progress.ask(ticket, tp.partition, a.user, trigger)
        if found:
            self._wake()
        if bad:
            self._bury(ticket, tp, bad)
        self._monitor.asked(tp, len(found), len(bad), next_offset)

    def take_up(self) -> None:
        """Let those wait who were laid aside, where it is our turn to answer them."""
        for tp in [tp for tp in self._aside if not self._debts.mute(tp.partition)]:
            self.batch(tp, self._aside.pop(tp))

    def claimed(self) -> None:
        """Partitions were assigned anew: what was laid aside is read again."""
        self._claims += 1
        self._aside.clear()

    def _bury(self, ticket: int, tp: TP, bad: list[Unreadable]) -> None:
        """Dead letters hold the ticket: their offsets are committed only when they are safe."""
        self._state.progress.hold(ticket)
        task = asyncio.ensure_future(self._buried(ticket, tp, bad))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _buried(self, ticket: int, tp: TP, bad: list[Unreadable]) -> None:
        log.warning(
            "%d records of %s/%d are unreadable and go to %s; the first, at %d: %s",
            len(bad), tp.topic, tp.partition, self._dead_letters, bad[0].record.offset, bad[0].reason,
        )  # fmt: skip
        while True:
            try:
                await bury(self._producer, self._dead_letters, tp, bad, self._group)
            except KafkaError as error:
                # The ticket stays open, so nothing after it is committed until they are safe.
                self._monitor.failures["bury"] += 1
                log.warning("dead letters could not be written to %s (%r); trying again", self._dead_letters, error)
                await asyncio.sleep(1.0)
            else:
                break
        self._state.answered(ticket)


def _causes(events: Events, speaks: np.ndarray) -> np.ndarray:
    """i64[t]: each user's last event whose action causes a list; `speaks` bool[256] by action."""
    last = {events.users[i]: i for i in speaks[events.actions].nonzero()[0].tolist()}
    return np.array(list(last.values()), np.int64)
