"""Following compacted topics: read all of them from the beginning, then go on reading.

For what every worker must know in full (the catalogue, the current release, trends of partitions that
others own). There is no group and nothing is committed; what the records mean is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.kafka.clients import KafkaConfig, consumer, stop
from stream.kafka.topics import topic_partitions

Records = Sequence[Any]


async def newest(kafka: KafkaConfig, topic: str) -> Any | None:
    """The newest record of a short topic of one partition, as of now; None where it is empty.

    Raises:
        TopicError: the topic is missing.
    """
    return max((await newest_by_key(kafka, topic)).values(), key=lambda record: record.offset, default=None)


async def newest_by_key(kafka: KafkaConfig, topic: str) -> dict[bytes, Any]:
    """The newest record of each key of such a topic.

    Raises:
        TopicError: the topic is missing.
    """
    (tp,) = await topic_partitions(kafka, [topic])
    last: dict[bytes, Any] = {}
    async with consumer(kafka) as client:
        client.assign([tp])
        await client.seek_to_beginning(tp)
        end = (await client.end_offsets([tp]))[tp]
        while await client.position(tp) < end:
            for records in (await client.getmany(tp, timeout_ms=200)).values():
                last |= {record.key or b"": record for record in records}
    return last


class Follower:
    """Reads partitions from their beginning and calls `on_records(partition, records)` for each batch, for ever.

    `caught_up` is set once everything that was there when reading began has been handed over. since: a record's time in
    ms, before which nothing is read.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        on_records: Callable[[TopicPartition, Records], None],
        since: Callable[[], int] | None = None,
    ) -> None:
        self._kafka = kafka
        self._since = since
        self._on_records = on_records
        self._wanted: set[TopicPartition] = set()
        self._changed = asyncio.Event()
        self.caught_up = asyncio.Event()

    def follow(self, partitions: Iterable[TopicPartition]) -> None:
        """Follow exactly these; one that is new is read from its beginning."""
        wanted = set(partitions)
        if wanted != self._wanted:
            self._wanted = wanted
            self.caught_up.clear()
        self._changed.set()

    async def run(self) -> None:
        """Read until cancelled."""
        client = AIOKafkaConsumer(**self._kafka.consumer())
        await client.start()
        try:
            ends: dict[TopicPartition, int] = {}
            while True:
                if self._changed.is_set():
                    self._changed.clear()
                    ends = await self._assign(client)
                if not self._wanted:
                    self.caught_up.set()
                    await self._changed.wait()
                    continue
                for tp, records in (await client.getmany(timeout_ms=200)).items():
                    if tp in self._wanted:
                        self._on_records(tp, records)
                if ends:
                    # A position, not a record: the log may end with a transaction's marker.
                    ends = {tp: end for tp, end in ends.items() if await client.position(tp) < end}
                if not ends and not self._changed.is_set():
                    self.caught_up.set()
        finally:
            await stop(client)

    async def _assign(self, client: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        before = client.assignment()
        positions = {tp: await client.position(tp) for tp in before & self._wanted}
        client.assign(list(self._wanted))
        for tp in self._wanted:
            if tp in positions:
                client.seek(tp, positions[tp])
        if fresh := [tp for tp in self._wanted if tp not in positions]:
            await client.seek_to_beginning(*fresh)
            ends = await client.end_offsets(fresh)
            if self._since is not None:
                for tp, found in (await client.offsets_for_times(dict.fromkeys(fresh, self._since()))).items():
                    client.seek(tp, ends[tp] if found is None else found.offset)
            return ends
        return {}
