"""A replay from its beginning, or from where it ended, to its end: source, pace and ledger brought together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from stream.errors import ConfigError, ReplayError
from stream.kafka.identity import identity
from stream.kafka.topics import create, missing_topics, replay_spec
from stream.replay.ledger import Ledger, Position, differences, ledger
from stream.replay.pace import TICK_S, Pace
from stream.replay.retention import retention_ms, too_short
from stream.replay.source import Chunk, Extent, Range, Source, ahead
from stream.settings import Settings


@dataclass(frozen=True, slots=True)
class Order:
    """What a replay is to do: `asked` in words, by which it is known again, and what these mean now."""

    asked: dict[str, Any]
    wanted: Range
    name: str | None = None
    speed: float | None = None
    restart: bool = False

    def called(self) -> str:
        """The replay's name: that given, or one made of what was asked for."""
        if self.name is not None:
            if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", self.name):
                raise ConfigError(f"{self.name!r} is no name", "write letters, digits, dots, _ and -, 100 at most")
            return self.name
        whole = hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", str(self.asked["source"]).rstrip("/").rpartition("/")[2])
        return f"{stem[:60].strip('-')}-{whole[:10]}"


class At(NamedTuple):
    """Where a replay is: `done` of `total` as its source counts, records published by this run and in all, and the
    time of the last one and of the source's last, in ms."""

    name: str
    done: int
    total: int
    published: int
    in_all: int
    ts: int | None
    last: int | None
    finished: bool
    stopped: bool = False


async def replay(
    settings: Settings,
    source: Source,
    order: Order,
    stop: asyncio.Event,
    tell: Callable[[At], None],
    warn: Callable[[str], None] = lambda text: None,
) -> At:
    """Publish what is left of a source. `tell` is called when it is known where to begin, and after each transaction.
    Once `stop` is set, the transaction under way is finished.

    Raises:
        TopicError: a topic is missing. ReplayError: there is nothing to publish, the source or a topic is not what it
        was, or another replay of the name has begun.
    """
    name, topics = order.called(), settings.topics
    targets = (await identity(settings.kafka, source.targets)).topics
    if missing := [topic for topic in source.targets if topic not in targets]:
        raise missing_topics(missing)
    await create(settings.kafka, [replay_spec(topics)], topics.replication)
    async with ledger(settings.kafka, topics.replays, name) as book:
        known = None if order.restart else await book.read()
        if known is not None:
            _check(name, order, source, targets, known)
        wanted = order.wanted if known is None else order.wanted._replace(since=known.since, until=known.until)
        extent = await source.open(wanted, {topic: count for topic, (_, count) in targets.items()})
        position = known or Position(
            asked=order.asked, content=dict(source.content), targets=targets, since=wanted.since, until=wanted.until
        )
        if extent.total and extent.first is not None:
            kept = await retention_ms(settings.kafka, targets)
            if short := too_short(kept, extent.first, int(time.time() * 1000)):
                warn(short)
        at = await _Run(book, source, Pace(order.speed), stop, tell, position, name, extent).all()
        if not at.in_all and not at.stopped:
            raise _nothing(wanted, extent)
        return at


@dataclass(eq=False)
class _Run:
    """One run of a replay; `position` is where it is."""

    book: Ledger
    source: Source
    pace: Pace
    stop: asyncio.Event
    tell: Callable[[At], None]
    position: Position
    name: str
    extent: Extent

    def __post_init__(self) -> None:
        self._before = self.position.published

    async def all(self) -> At:
        """Publish until the end, or until it is to stop."""
        self.tell(self._at())
        async with aclosing(ahead(self.source.chunks(self.position.place))) as chunks:
            async for chunk in chunks:
                await self._publish(chunk)
                if self.stop.is_set():
                    return self._at()._replace(stopped=True)
        if self.position.published and not self.position.finished:
            await self._write([], self._moved(finished=True))
        return self._at()

    async def _publish(self, chunk: Chunk) -> None:
        """As parts of it are due, a transaction each."""
        start, n = 0, len(chunk.records)
        while start < n and not self.stop.is_set():
            stop = self.pace.due(chunk.times, start)
            if stop == start:
                await self._pause(self.pace.wait(int(chunk.times[start])))
                continue
            moved = self._moved(
                place=chunk.behind(stop),
                published=self.position.published + stop - start,
                ts=int(chunk.times[stop - 1]),
                finished=False,
            )
            await self._write(chunk.records[start:stop], moved)
            start = stop
            if self.pace.speed is not None:
                await self._pause(TICK_S)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    def _moved(self, **changes: Any) -> Position:
        return msgspec.structs.replace(self.position, updated_ms=int(time.time() * 1000), **changes)

    async def _write(self, records: Any, position: Position) -> None:
        await self.book.write(records, position)
        self.position = position
        self.tell(self._at())

    def _at(self) -> At:
        p, total = self.position, self.extent.total
        done = total if p.finished else 0 if p.place is None else self.source.done(p.place)
        published = p.published - self._before
        return At(self.name, done, total, published, p.published, p.ts, self.extent.last, p.finished)


def _check(name: str, order: Order, source: Source, targets: dict[str, tuple[str, int]], known: Position) -> None:
    """Whether what was begun may go on."""
    aside = {"source": order.asked["source"]}  # a file may have been moved: it is known by its content
    if differ := differences(order.asked, {**known.asked, **aside}):
        raise ReplayError(
            f"the replay {name} was begun otherwise: {differ}",
            "call this one by another --name, or forget that one with --restart: what it published stays",
        )
    if dict(source.content) != known.content:
        raise ReplayError(
            f"{order.asked['source']} has changed since {known.published} records of {name} were published",
            "bring back what it was, or begin anew with --restart or another --name: what is there stays there",
        )
    if changed := [topic for topic in targets if tuple(targets[topic]) != tuple(known.targets.get(topic, ()))]:
        raise ReplayError(
            f"{', '.join(changed)} is not the topic that {known.published} records were published to: it was made anew",
            "publish all of it to the new topic with --restart",
        )


def _nothing(wanted: Range, extent: Extent) -> ReplayError:
    since, until, first, last = (None if ms is None else iso(ms) for ms in (*wanted[:2], *extent[1:]))
    there = f"; those there are go from {first} to {last}" if first and last else ""
    return ReplayError(
        f"no events from {since or 'the first'} until {until or 'the last'}{there}",
        "widen --since and --until (and --begin and --end), or leave them out",
    )


def iso(ms: int) -> str:
    """A time in words, as `--since` takes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms / 1000))
