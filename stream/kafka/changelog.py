"""Changelogs, written in one transaction per owned partition, so that a former owner cannot write.

A worker that was frozen past its session wakes up believing that it still owns its partitions. Each
partition has a transactional id; the new owner's producer claims it before it restores, and from then
on the broker refuses the old one (`Fenced`). What is in the rows is not known here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from stream.kafka.batches import Record, send
from stream.kafka.clients import KafkaConfig, gave_up, stop

FENCED = (ProducerFenced, InvalidProducerEpoch, OutOfOrderSequenceNumber)


class Fenced(Exception):
    """Another worker owns the partition now: what was to be written is no longer ours to write."""


class Changelog:
    """The writers of the partitions that this worker owns.

    Args:
        state: name of the state version; `<state>-<partition>` is the transactional id.
    """

    def __init__(self, kafka: KafkaConfig, state: str) -> None:
        self._kafka = kafka
        self._state = state
        self._producers: dict[int, AIOKafkaProducer] = {}

    async def own(self, partitions: Iterable[int]) -> None:
        """Claim partitions, fencing off whoever had them: to be done before they are restored.

        Raises:
            BrokerError: the broker does not answer, or refuses it.
        """
        claimed = [p for p in partitions if p not in self._producers]
        started = await asyncio.gather(*(self._claim(p) for p in claimed))
        self._producers.update(zip(claimed, started, strict=True))

    async def disown(self, partitions: Iterable[int]) -> None:
        """Let partitions go."""
        leaving = [self._producers.pop(p) for p in partitions if p in self._producers]
        await asyncio.gather(*(producer.stop() for producer in leaving), return_exceptions=True)

    async def close(self) -> None:
        await self.disown(list(self._producers))

    async def write(self, partition: int, records: Mapping[str, Iterable[Record]]) -> None:
        """Write records to the partition's number in each topic: all of them or none.

        Raises:
            Fenced: another worker has claimed the partition, or it was let go.
            BrokerError: the broker went away in the middle of it, or refused it; which records are there is not known.
        """
        producer = self._producers.get(partition)
        if producer is None:
            raise Fenced(f"partition {partition} is not owned")
        try:
            async with producer.transaction():
                sent: list[asyncio.Future] = []
                for topic, rows in records.items():
                    sent += await send(producer, topic, partition, rows)
                await asyncio.gather(*sent)
        except FENCED as error:
            raise Fenced(f"partition {partition} has a new owner") from error
        except KafkaError as error:
            raise gave_up(f"writing partition {partition} of {', '.join(records)}", error) from error

    async def _claim(self, partition: int) -> AIOKafkaProducer:
        return await claimed(self._kafka, f"{self._state}-{partition}", f"partition {partition} of state {self._state}")


async def claimed(kafka: KafkaConfig, name: str, what: str) -> AIOKafkaProducer:
    """A producer that has claimed a transactional id: what its former owner had begun is aborted, and the owner fenced.

    Raises:
        BrokerError: the broker does not answer, or refuses it.
    """
    producer = AIOKafkaProducer(**kafka.producer(), transactional_id=name, transaction_timeout_ms=60_000)
    try:
        await producer.start()
    except KafkaError as error:
        await stop(producer)
        raise gave_up(f"claiming {what}", error) from error
    return producer
