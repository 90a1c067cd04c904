"""What can be replayed: records in time order, and a place behind any of them to go on from; here, of an archive.

Topics are another source (`topics.py`). A source knows neither when its records are due (`pace.py`) nor what has
been published of them (`ledger.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from model.archive import Archive
from stream.kafka.batches import Out
from stream.publishing import events_as_records, topics_by_code

Place = Any
"""Where a source goes on, as JSON has it: a count of events, or the next offsets."""
Placed = tuple[str, int, Out]
"""Topic and partition that a record goes to, and the record."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """n records in their order: `times` i64[n] in ms, and the place behind the first k of them."""

    times: NDArray[np.int64]
    records: Sequence[Placed]
    behind: Callable[[int], Place]


class Range(NamedTuple):
    """What is wanted of a source: since <= time < until in ms, and of these the events between two shares."""

    since: int | None = None
    until: int | None = None
    begin: float = 0.0
    end: float = 1.0


class Extent(NamedTuple):
    """How many records there are (of topics: at most), and where known the first and last time in ms; where there are
    none, those of the source's whole."""

    total: int
    first: int | None
    last: int | None


class Source(Protocol):
    """Where records come from.

    `content`: by what the same records are known again; `targets`: the topics they go to; `bad`: how many were left out
    as unreadable.
    """

    content: Mapping[str, Any]
    targets: Sequence[str]
    bad: int

    async def open(self, wanted: Range, counts: Mapping[str, int]) -> Extent:
        """Find what is there of a range; counts: partitions of each target."""
        ...

    def chunks(self, place: Place | None) -> AsyncGenerator[Chunk, None]:
        """The records behind a place, or all."""
        ...

    def done(self, place: Place) -> int:
        """How much of the extent's total lies before a place."""
        ...


class ArchiveSource:
    """An archive's events, to the topics of their actions, their times in the unit that these have.

    Raises:
        TopicError: an action has no topic.
    """

    def __init__(self, archive: Archive, topics: Mapping[str, str], unit: str = "ms") -> None:
        self._archive = archive
        self._unit = unit
        self._names = topics_by_code(topics, archive.survey.actions)
        self.content: Mapping[str, Any] = {"sha256": archive.content}
        self.targets: Sequence[str] = list(self._names.values())
        self.bad = archive.survey.bad

    async def open(self, wanted: Range, counts: Mapping[str, int]) -> Extent:
        self._counts, self._wanted = counts, wanted
        n, first, last = await asyncio.to_thread(self._archive.extent, wanted.since, wanted.until)
        self._begin, self._end = int(wanted.begin * n), int(wanted.end * n)
        found = self._archive.survey
        return Extent(max(0, self._end - self._begin), first if n else found.first, last if n else found.last)

    async def chunks(self, place: int | None) -> AsyncGenerator[Chunk, None]:
        frames = self._archive.between(self._wanted.since, self._wanted.until)
        at, done = 0, place or 0  # events of the range that were read; events of the replay that are behind us
        while (frame := await asyncio.to_thread(next, frames, None)) is not None:
            first, last = self._begin + done - at, self._end - at
            at += len(frame)
            if first < len(frame) and last > 0:
                part = frame.slice(max(0, first), min(last, len(frame)) - max(0, first))
                records = await asyncio.to_thread(events_as_records, self._names, self._counts, part, self._unit)
                yield Chunk(part["ts"].to_numpy(), records, done.__add__)
                done += len(part)
            if at >= self._end:
                return

    def done(self, place: int) -> int:
        return place


async def ahead(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """The same chunks; each is made while the one before it is at work."""
    async with aclosing(chunks):
        pending = asyncio.ensure_future(_next(chunks))
        try:
            while (chunk := await pending) is not None:
                pending = asyncio.ensure_future(_next(chunks))
                yield chunk
        finally:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)


async def _next(chunks: AsyncGenerator[Chunk, None]) -> Chunk | None:
    return await anext(chunks, None)
