"""Reading and writing topics as the tests need it: raw records in, whole topics and offsets out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.kafka import topics
from stream.kafka.batches import Out, send
from stream.kafka.clients import admin
from stream.kafka.placing import partition_of
from stream.settings import Settings

PARTITIONS = 4

Raw = tuple[str, bytes | None, bytes | None, int | None, list]
"""A record as it is sent: topic, key, value, time, headers."""


async def send_raw(settings: Settings, records: Iterable[Raw]) -> None:
    """Publish records to the partitions of their keys."""
    producer = AIOKafkaProducer(**settings.kafka.producer())
    await producer.start()
    try:
        futures = [await _send(producer, record) for record in records]
        await asyncio.gather(*futures)
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, record: Raw) -> asyncio.Future:
    topic, key, value, ts, headers = record
    partition = partition_of(key.decode(errors="replace"), PARTITIONS) if key is not None else 0
    if key is None and value is None:  # aiokafka's `send` refuses what Kafka takes
        return (await send(producer, topic, partition, [Out(key, value, headers, ts)]))[0]
    return await producer.send(topic, value, key=key, timestamp_ms=ts, headers=headers, partition=partition)


def outs(records: Iterable[tuple[bytes | None, bytes | None]]) -> list[Out]:
    return [Out(key, value) for key, value in records]


async def send_raw_to(settings: Settings, topic: str, partition: int, records: Iterable[Out]) -> None:
    """Publish records to one partition."""
    producer = AIOKafkaProducer(**settings.kafka.producer())
    await producer.start()
    try:
        await asyncio.gather(*await send(producer, topic, partition, records))
    finally:
        await producer.stop()


async def records(settings: Settings, topic: str) -> list[Any]:
    """Every committed record of a topic, in the order of each partition."""
    tps = await topics.topic_partitions(settings.kafka, [topic])
    ends = await _log_ends(settings, tps)
    consumer = AIOKafkaConsumer(**settings.kafka.consumer())
    await consumer.start()
    out: list[Any] = []
    try:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                out.extend(batch)
    finally:
        await consumer.stop()
    return out


async def _log_ends(settings: Settings, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
    """Where the logs end. To readers of committed records they end earlier for a moment: a transaction that its
    producer has seen committed is there only when its markers are.
    """
    consumer = AIOKafkaConsumer(**settings.kafka.consumer() | {"isolation_level": "read_uncommitted"})
    await consumer.start()
    try:
        return await consumer.end_offsets(tps)
    finally:
        await consumer.stop()


async def committed(settings: Settings, names: Iterable[str] | None = None) -> dict[TopicPartition, int | None]:
    """Committed offsets of the group in these topics; by default its inputs."""
    consumer = AIOKafkaConsumer(**settings.kafka.consumer(), group_id=settings.group)
    await consumer.start()
    try:
        tps = await topics.topic_partitions(settings.kafka, names or settings.input.names)
        return {tp: await consumer.committed(tp) for tp in tps}
    finally:
        await consumer.stop()


async def ends(settings: Settings, names: Iterable[str]) -> dict[TopicPartition, int]:
    """Where the logs of topics end."""
    consumer = AIOKafkaConsumer(**settings.kafka.consumer())
    await consumer.start()
    try:
        return await consumer.end_offsets(await topics.topic_partitions(settings.kafka, names))
    finally:
        await consumer.stop()


async def configure(settings: Settings, topic: str, config: dict[str, str]) -> None:
    """Give a topic this configuration and no other."""
    async with admin(settings.kafka) as client:
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
