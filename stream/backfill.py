"""A range of history read anew into a state version: by any number of workers, and done when all of it is.

What is read is said in `stream.ranges`; a worker of the new version's group reads it (`stream.process.worker`), as it
would anything. Here is what surrounds that: topics made, the range agreed, progress told, and the end found.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka.errors import KafkaError
from faust.types import TP

from stream.cutover import cut_over
from stream.errors import ConfigError
from stream.ingest import Reading
from stream.kafka.clients import admin
from stream.kafka.topics import DAYS, MAX_MESSAGE_BYTES, TopicSpec, create, events_spec, partitions, state_specs
from stream.past import Past, Unread
from stream.past import survey as look_through
from stream.process.keys import settled
from stream.process.preflight import check
from stream.process.worker import Run, work
from stream.ranges import Range, Where, agreed, begin_at, joins, last_offsets, survey
from stream.rekey import copied
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.app import Pipeline

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often it is looked at how far all workers are."""
PACE_S = 10.0
"""The stretch of time that a pace is of."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a backfill is asked for. `into`: the topic of history's lists; `serve`: go on as a worker of the version
    when it is done; `archive`: a folder of what the brokers have forgotten; `allow_gap`: and of what is in neither;
    `instead_of`: where it serves, the version in whose place, by a cut-over.
    """

    since: Where = None
    until: Where = None
    into: str | None = None
    serve: bool = False
    archive: Path | None = None
    allow_gap: bool = False
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """How far one partition is, over all input topics: offsets read, offsets there are, and at what pace."""

    partition: int
    done: int
    total: int
    per_s: float | None
    ours: bool

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left; None where there is no pace yet."""
        left = self.total - self.done
        return 0.0 if not left else (left / self.per_s if self.per_s else None)


Tell = Callable[[Sequence[Part]], None]


@dataclass(slots=True)
class Pace:
    """Offsets a second of each partition, over the last `PACE_S` seconds of a clock that is given."""

    _marks: dict[int, deque[tuple[float, int]]] = field(default_factory=dict)

    def moved(self, now: float, partition: int, done: int) -> float | None:
        """A partition has come so far. Its pace; None before there is one."""
        marks = self._marks.setdefault(partition, deque())
        marks.append((now, done))
        while len(marks) > 2 and marks[1][0] <= now - PACE_S:
            marks.popleft()
        then, before = marks[0]
        return (done - before) / (now - then) if now > then and done > before else None


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it. `read`: offsets that are read of the range, by all workers; `events`: those that this one took
    in, in `seconds`. `code`: the worker's exit code.
    """

    range: Range
    code: int
    complete: bool
    read: int
    events: int
    seconds: float

    def told(self) -> dict[str, Any]:
        """As JSON-able values: begin and end of each partition, too."""
        offsets: dict[str, dict[int, list[int]]] = {}
        for tp, until in sorted(self.range.until.items()):
            offsets.setdefault(tp.topic, {})[tp.partition] = [self.range.begin[tp], until]
        return {
            "complete": self.complete,
            "offsets": offsets,
            "read": self.read,
            "events": self.events,
            "seconds": round(self.seconds, 2),
            "into": self.range.into,
        }


async def backfill(settings: Settings, asked: Asked, status_port: int | None, tell: Tell) -> Done:
    """Read history into the state version of these settings, until all of the range is read, by whoever shares in it.

    What was begun is gone on with: its range is the one that it began with.

    Raises:
        BrokerUnavailable, TopicError, StateError, ConfigError: before anything is started.
    """
    written, settings = settings, await _keyed(settings)
    await _make_topics(settings, asked.into)
    await check(settings)
    name = settings.state.name
    past = archived(settings, asked.archive)
    span = await agreed(settings, await survey(settings, asked.since, asked.until, asked.into, past))
    if span.into != asked.into:
        raise ConfigError(
            f"state {name} reads history {f'into {span.into}' if span.into else 'in silence'}, as it began to",
            f"go on so{f': --into {span.into}' if span.into else ', without --into'}, or choose another name",
        )
    unread = Unread(past, await joins(settings, span, past, asked.allow_gap))
    if not await begin_at(settings, span.begin):
        log.info("state %s was begun before: going on where it stopped", name)
    watch = _Watch(settings, span, tell, asked.instead_of)
    reading = Reading(
        silent_until={} if asked.into else span.until,
        stops={} if asked.serve else span.stops,
        mute=not asked.serve and not asked.into,
        requests=asked.serve,
        into=asked.into,
        begins_silent=asked.instead_of is not None,
        whole=not asked.allow_gap,
    )
    end = watch.done_and_on if asked.serve else watch.done
    code = await work(_lean(written, asked), Run(status_port, reading, unread if past.pieces else None, end))
    committed = await watch.committed()
    return Done(span, code, span.done(committed), watch.read(committed), watch.events, watch.seconds)


async def _keyed(settings: Settings) -> Settings:
    """The settings that are gone by; where events are re-keyed, once what is there is."""
    after, finding = await settled(settings)
    if not finding.needed:
        return settings
    log.info("events are re-keyed into %s first: %s", settings.topics.events, finding.why)
    kafka, topics = settings.kafka, settings.topics
    await create(kafka, [events_spec(topics)], topics.replication)
    count = (await partitions(kafka, [topics.events]))[topics.events]
    await copied(kafka, topics, settings.input, count, await last_offsets(settings))
    return after


def archived(settings: Settings, folder: Path | None) -> Past:
    """What is in a folder of the input topics; nothing where there is none.

    Raises:
        DatasetError: it has no such files, or one cannot be read.
        ConfigError: a topic has events of several actions, re-keyed ones for one: of an archive's it is known by topic.
    """
    if folder is None:
        return Past({})
    if mixed := [topic for topic in settings.input.names if len(settings.input.actions_of(topic)) > 1]:
        raise ConfigError(
            f"{', '.join(mixed)} has events of several actions, which --archive cannot take up",
            "leave --archive out, and begin at what the brokers have; or replay the archive into topics of one action",
        )
    return look_through(folder, {topic: action for action, topic in settings.input.topics.items()})


def _lean(settings: Settings, asked: Asked) -> Settings:
    """What keeps a state needs no catalogue and no index; and history is a backlog by itself, not as fast as it was."""
    if asked.serve:
        return settings
    if asked.into is None:
        return settings.model_copy(update={"role": "ingest"})
    emit = settings.emit.model_copy(update={"max_lag": None, "min_interval_ms": 0})
    return settings.model_copy(update={"emit": emit})


async def _make_topics(settings: Settings, into: str | None) -> None:
    """Those of the version, as many partitions as its inputs have, and the one that lists go to.

    Raises:
        ConfigError: that is one of the deployment's, or of other partitions.
    """
    if into in {*settings.input.names, settings.topics.recommendations, settings.topics.requests}:
        raise ConfigError(f"{into} is the deployment's own", "give history's lists a topic of their own: --into NAME")
    counts = await partitions(settings.kafka, settings.input.names)
    if not counts:
        return
    count = next(iter(counts.values()))
    wanted = state_specs(settings.topics.model_copy(update={"partitions": count}), settings.state.name)
    if into is not None:
        config = {"retention.ms": str(7 * DAYS), "max.message.bytes": str(MAX_MESSAGE_BYTES)}
        wanted.append(TopicSpec(into, count, config))
    await create(settings.kafka, wanted, settings.topics.replication)
    if into is not None and (has := (await partitions(settings.kafka, [into])).get(into)) != count:
        raise ConfigError(f"{into} has {has} partitions, and the input topics have {count}", "name another topic")


class _Watch:
    """Looks at how far the group is, tells it, and knows when all of the range is done."""

    def __init__(self, settings: Settings, span: Range, tell: Tell, instead_of: str | None) -> None:
        self._settings = settings
        self._instead_of = instead_of
        self._span = span
        self._tell = tell
        self._pace = Pace()
        self._began = time.monotonic()
        self.events = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    async def done(self, pipeline: Pipeline) -> None:
        """Return when every partition is read, whoever reads it."""
        self._began = time.monotonic()
        committed: dict[TP, int] = {}
        async with admin(self._settings.kafka) as client:
            while True:
                try:
                    committed = await _offsets(client.list_consumer_group_offsets, self._settings)
                except KafkaError as error:
                    log.warning("how far all workers are is not known: %r", error)
                self.look(pipeline, committed)
                if self._span.done(committed):
                    return
                if self._ready_to_commit(pipeline, committed):
                    await pipeline.commit()
                await asyncio.sleep(LOOK_S)

    async def done_and_on(self, pipeline: Pipeline) -> None:
        """The same, take the turn from another version where that is wanted, and then stay for ever."""
        await self.done(pipeline)
        if self._instead_of is not None:
            await cut_over(self._settings, self._instead_of, self._settings.state.name, log.info)
        await asyncio.Event().wait()

    def look(self, pipeline: Pipeline, committed: Mapping[TP, int]) -> None:
        """Tell how far all partitions are: ours as applied, the others as committed."""
        self.events = pipeline.monitor.events
        owned, now = pipeline.keeper.owned, time.monotonic()
        applied = {tp: at for tp, at in pipeline.monitor.offsets.items() if tp.partition in owned}
        done: dict[int, int] = {}
        total: dict[int, int] = {}
        for tp, until in self._span.until.items():
            begin = self._span.begin[tp]
            at = min(max(committed.get(tp, begin), applied.get(tp, begin)), until)
            done[tp.partition] = done.get(tp.partition, 0) + max(0, at - begin)
            total[tp.partition] = total.get(tp.partition, 0) + max(0, until - begin)
        self._tell([Part(p, done[p], total[p], self._pace.moved(now, p, done[p]), p in owned) for p in sorted(done)])

    def _ready_to_commit(self, pipeline: Pipeline, committed: Mapping[TP, int]) -> bool:
        """All of ours is applied and answered, and only the next commit is waited for."""
        ours = {tp: at for tp, at in self._span.until.items() if tp.partition in pipeline.keeper.owned}
        done = pipeline.keeper.committable()
        open_ones = [tp for tp, until in ours.items() if committed.get(tp, -1) < until]
        return bool(open_ones) and all(done.get(tp, -1) >= ours[tp] for tp in open_ones)

    async def committed(self) -> dict[TP, int]:
        """As of now."""
        async with admin(self._settings.kafka) as client:
            return await _offsets(client.list_consumer_group_offsets, self._settings)

    def read(self, committed: Mapping[TP, int]) -> int:
        """Offsets of the range that are read."""
        span = self._span
        return sum(max(0, min(committed.get(tp, 0), until) - span.begin[tp]) for tp, until in span.until.items())


async def _offsets(ask: Callable[[str], Awaitable[Any]], settings: Settings) -> dict[TP, int]:
    return {TP(*tp): at.offset for tp, at in (await ask(settings.group)).items()}
