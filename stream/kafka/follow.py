"""Following compacted topics: read all of them from the beginning, then go on reading.

For what every worker must know in full (the catalogue, the current release, trends of partitions that
others own). There is no group and nothing is committed; what the records mean is the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.kafka.clients import KafkaConfig

Records = Sequence[Any]


class Follower:
    """Reads partitions from their beginning and calls `on_records(partition, records)` for each batch, for ever.

    `caught_up` is set once everything that was there when reading began has been handed over.
    """

    def __init__(self, kafka: KafkaConfig, on_records: Callable[[TopicPartition, Records], None]) -> None:
        self._kafka = kafka
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
        consumer = AIOKafkaConsumer(**self._kafka.consumer())
        await consumer.start()
        try:
            ends: dict[TopicPartition, int] = {}
            while True:
                if self._changed.is_set():
                    self._changed.clear()
                    ends = await self._assign(consumer)
                if not self._wanted:
                    self.caught_up.set()
                    await self._changed.wait()
                    continue
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    if tp in self._wanted:
                        self._on_records(tp, records)
                if ends:
                    # A position, not a record: the log may end with a transaction's marker.
                    ends = {tp: end for tp, end in ends.items() if await consumer.position(tp) < end}
                if not ends and not self._changed.is_set():
                    self.caught_up.set()
        finally:
            await consumer.stop()

    async def _assign(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
        before = consumer.assignment()
        positions = {tp: await consumer.position(tp) for tp in before & self._wanted}
        consumer.assign(list(self._wanted))
        for tp in self._wanted:
            if tp in positions:
                consumer.seek(tp, positions[tp])
        if fresh := [tp for tp in self._wanted if tp not in positions]:
            await consumer.seek_to_beginning(*fresh)
            return await consumer.end_offsets(fresh)
        return {}
