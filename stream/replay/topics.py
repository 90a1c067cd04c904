"""Topics, or a range of them, as a source: their records as they are, merged over partitions by their times.

Each partition keeps its own order; of those that stand first in theirs the oldest goes next. So the order depends on
the records alone, and a replay that goes on takes them up in the order they would have had.
"""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from stream.errors import ConfigError, ReplayError
from stream.kafka.batches import Out
from stream.kafka.clients import KafkaConfig, consumer
from stream.kafka.fetch import fetched
from stream.kafka.identity import identity
from stream.kafka.placing import place
from stream.kafka.topics import missing_topics
from stream.replay.source import Chunk, Extent, Place, Range

CHUNK = 10_000
FETCH_S = 0.5


def parse(text: str, inputs: Mapping[str, str]) -> dict[str, str]:
    """`topic:old.clicks=click,old.views=view` as {topic: input topic}. Without an action a topic has the name of the
    input topic that it goes to; `topic:*` is all of those.

    Raises:
        ConfigError: an action has no topic, or which one is meant is not said.
    """
    pairs: dict[str, str] = {}
    for part in text.removeprefix("topic:").split(","):
        name, _, action = part.strip().partition("=")
        if name == "*" and not action:
            pairs |= {topic: topic for topic in inputs.values()}
        elif action in inputs and name not in ("", "*"):
            pairs[name] = inputs[action]
        elif not action and name in inputs.values():
            pairs[name] = name
        else:
            raise ConfigError(
                f"{action!r} is no action with an input topic" if action else f"{name!r} is no input topic",
                f"say which one its records are of: topic:{name or 'NAME'}=ACTION, one of {', '.join(inputs)}",
            )
    return pairs


class TopicSource:
    """Records of topics as they are: key, value, headers, timestamp, and the partition where partitions are as many."""

    bad = 0

    def __init__(self, kafka: KafkaConfig, pairs: Mapping[str, str], content: Mapping[str, Any]) -> None:
        self._kafka = kafka
        self._pairs = pairs
        self.content = content
        self.targets: Sequence[str] = list(dict.fromkeys(pairs.values()))
        self._tps = [TopicPartition(topic, p) for topic in pairs for p in range(content["topics"][topic][1])]

    @classmethod
    async def find(cls, source: KafkaConfig, target: KafkaConfig, pairs: Mapping[str, str]) -> TopicSource:
        """The topics on their cluster.

        Raises:
            TopicError: one is missing.
            ConfigError: one would be published into itself.
        """
        there = await identity(source, pairs)
        if missing := [name for name in pairs if name not in there.topics]:
            raise missing_topics(missing)
        same = source == target or there.cluster == (await identity(target, [])).cluster
        if itself := [name for name, to in pairs.items() if same and name == to]:
            raise ConfigError(
                f"{', '.join(itself)} would be published into itself",
                "name topics of another cluster (--from-bootstrap-servers), or another input topic (topic:NAME=ACTION)",
            )
        return cls(source, pairs, {"cluster": there.cluster, "topics": {n: list(t) for n, t in there.topics.items()}})

    async def open(self, wanted: Range, counts: Mapping[str, int]) -> Extent:
        self._counts, self._wanted = counts, wanted
        async with consumer(self._kafka) as client:
            self._earliest = await client.beginning_offsets(self._tps)
            self._ends = await client.end_offsets(self._tps)
            self._starts = await self._at(client, wanted.since) if wanted.since is not None else dict(self._earliest)
        return Extent(sum(self._ends[tp] - self._starts[tp] for tp in self._tps), None, wanted.until)

    async def _at(self, client: AIOKafkaConsumer, ms: int) -> dict[TopicPartition, int]:
        found: Mapping[TopicPartition, Any] = await client.offsets_for_times(dict.fromkeys(self._tps, max(0, ms)))
        return {tp: min(self._ends[tp], found[tp].offset if found[tp] else self._ends[tp]) for tp in self._tps}

    def done(self, place: Place) -> int:
        at = self._of(place)
        return sum(min(at[tp], self._ends[tp]) - self._starts[tp] for tp in self._tps)

    def _of(self, place: Place | None) -> dict[TopicPartition, int]:
        return {tp: self._starts[tp] if place is None else place[tp.topic][tp.partition] for tp in self._tps}

    async def chunks(self, place: Place | None) -> AsyncGenerator[Chunk, None]:
        at = self._of(place)
        if gone := [f"{tp.topic}/{tp.partition}" for tp in self._tps if at[tp] < self._earliest[tp]]:
            raise _gone(", ".join(gone))
        async with consumer(self._kafka, auto_offset_reset="none") as client:
            client.assign([tp for tp in self._tps if at[tp] < self._ends[tp]])
            for tp in client.assignment():
                client.seek(tp, at[tp])
            merging = _Merging(client, self._ends, self._wanted)
            while merged := await merging.next(CHUNK):
                yield self._chunk(merged, at)

    def _chunk(self, merged: list[tuple[TopicPartition, Any]], at: dict[TopicPartition, int]) -> Chunk:
        """Records, and places behind them; `at` moves behind all."""
        base = self._place(at)
        records = []
        for tp, record in merged:
            to = self._pairs[tp.topic]
            out = Out(record.key, record.value, record.headers, record.timestamp)
            records.append((to, self._partition(tp, to, record.key), out))
            at[tp] = record.offset + 1

        def behind(n: int) -> Place:
            place = {topic: list(offsets) for topic, offsets in base.items()}
            for tp, record in merged[:n]:
                place[tp.topic][tp.partition] = record.offset + 1
            return place

        return Chunk(np.array([record.timestamp for _, record in merged], np.int64), records, behind)

    def _place(self, at: Mapping[TopicPartition, int]) -> dict[str, list[int]]:
        place: dict[str, list[int]] = {}
        for tp in self._tps:  # by partition, in order
            place.setdefault(tp.topic, []).append(at[tp])
        return place

    def _partition(self, tp: TopicPartition, to: str, key: bytes | None) -> int:
        """The same where there are as many, whoever chose it; else where Java clients put the key."""
        count = self._counts[to]
        if count == self.content["topics"][tp.topic][1] or key is None:
            return tp.partition % count
        return place(key) % count


class _Merging:
    """Fetches partitions up to their ends, and takes the oldest of their first records each time."""

    def __init__(self, client: AIOKafkaConsumer, ends: Mapping[TopicPartition, int], wanted: Range) -> None:
        self._client = client
        self._fetcher: Any = client._fetcher
        self._ends = ends
        self._wanted = wanted
        self._tps = sorted(client.assignment())
        self._empty = set(self._tps)  # nothing of these is in the heap, and there may be more
        self._read: dict[int, list[Any]] = {}
        self._heap: list[tuple[int, int, int]] = []  # time, number of the partition, index in what was read of it

    async def next(self, most: int) -> list[tuple[TopicPartition, Any]]:
        """The next records, at most so many; none at the end."""
        out: list[tuple[TopicPartition, Any]] = []
        while len(out) < most:
            if self._empty:
                await self._fetch()
            elif not self._heap:
                break
            else:
                self._take(out, most)
        return out

    def _take(self, out: list[tuple[TopicPartition, Any]], most: int) -> None:
        heap = self._heap
        while heap and len(out) < most:
            _, n, i = heap[0]
            records = self._read[n]
            out.append((self._tps[n], records[i]))
            if i + 1 < len(records):
                heapq.heapreplace(heap, (records[i + 1].timestamp, n, i + 1))
            else:
                heapq.heappop(heap)
                self._empty.add(self._tps[n])
                return

    async def _fetch(self) -> None:
        for tp in list(self._empty):
            if await self._client.position(tp) >= self._ends[tp]:
                self._empty.discard(tp)
        if not self._empty:
            return
        try:
            found = await fetched(self._fetcher, self._empty, FETCH_S)
        except OffsetOutOfRangeError as error:
            raise _gone(", ".join(f"{tp.topic}/{tp.partition}" for tp in error.args[0])) from error
        for tp, records in found.items():
            if kept := list(self._kept(records, self._ends[tp])):
                n = self._tps.index(tp)
                self._read[n] = kept
                heapq.heappush(self._heap, (kept[0].timestamp, n, 0))
                self._empty.discard(tp)

    def _kept(self, records: Iterable[Any], end: int) -> Iterable[Any]:
        since, until = self._wanted.since, self._wanted.until
        for record in records:
            if (
                record.offset < end
                and (since is None or record.timestamp >= since)
                and (until is None or record.timestamp < until)
            ):
                yield record


def _gone(where: str) -> ReplayError:
    return ReplayError(
        f"records of {where} that were to come next are gone: their retention is over",
        "publish what is left of the topic into new input topics, or from its beginning again: --restart",
    )
