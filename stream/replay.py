"""History as input: publish a data set in time order.

Users stay keys, and the events' times become the records' own. Reading topics anew is `stream.backfill`'s.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2

from model.catalog import Item
from model.dataset import Events
from model.history import ACTION_NAME
from model.people import Person
from stream.errors import ConfigError, TopicError
from stream.kafka.batches import Out, send
from stream.kafka.clients import KafkaConfig, producer
from stream.kafka.topics import missing_topics, partitions, topic_partitions
from stream.settings import Settings

CHUNK = 2000
"""Events published at a time: in time order between chunks, and within each topic and partition."""

JSON_HEADERS = [("content-type", b"application/json")]


def partition_of(user: str, count: int) -> int:
    """Where Kafka's Java clients put a user: murmur2 of the key."""
    return (murmur2(user.encode()) & 0x7FFFFFFF) % count


def encode_event(user: str, item: str, ts: int, value: float | None = None) -> bytes:
    """One event as an input topic has it."""
    event: dict[str, Any] = {"user": user, "item": item, "ts": ts}
    if value is not None:
        event["value"] = value
    return json.dumps(event, separators=(",", ":")).encode()


async def publish(
    kafka: KafkaConfig,
    topics: Mapping[str, str],
    events: Events,
    speed: float | None,
    progress: Callable[[int, int], None],
) -> int:
    """Publish events, which are in time order, to the topics of their actions (action -> topic).

    `speed`: how many seconds of history pass in one; None = as fast as the broker takes them.
    Returns how many were published: all of them are acknowledged.

    Raises:
        TopicError: a topic is missing, or an action has none.
    """
    names = _topics_by_code(topics, events)
    counts = await partitions(kafka, set(names.values()))
    if missing := set(names.values()) - set(counts):
        raise missing_topics(missing)
    began, n = time.monotonic(), len(events)
    first = int(events.ts[0]) if n else 0
    async with producer(kafka, linger_ms=5) as client:
        for start in range(0, n, CHUNK if speed is None else 1):
            stop = min(start + (CHUNK if speed is None else 1), n)
            if speed is not None:
                due = (int(events.ts[start]) - first) / 1000 / speed
                await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            await _publish_chunk(client, names, counts, events, start, stop)
            progress(stop, n)
    return n


def _topics_by_code(topics: Mapping[str, str], events: Events) -> dict[int, str]:
    names: dict[int, str] = {}
    for code in np.unique(events.action).tolist():
        action = ACTION_NAME[code]
        if action not in topics:
            raise TopicError(
                f"the data has {action} events, and no input topic is set for them",
                f'add {action} = "TOPIC" to [input.topics]',
            )
        names[code] = topics[action]
    return names


async def _publish_chunk(
    client: AIOKafkaProducer,
    names: Mapping[int, str],
    counts: Mapping[str, int],
    events: Events,
    start: int,
    stop: int,
) -> None:
    rows: dict[tuple[str, int], list[Out]] = {}
    for i in range(start, stop):
        user, topic, ts = str(events.user[i]), names[int(events.action[i])], int(events.ts[i])
        value = float(events.value[i])
        body = encode_event(user, str(events.item[i]), ts, value if np.isfinite(value) else None)
        at = topic, partition_of(user, counts[topic])
        rows.setdefault(at, []).append(Out(user.encode(), body, JSON_HEADERS, ts))
    sent: list[asyncio.Future] = []
    for (topic, partition), records in rows.items():
        sent += await send(client, topic, partition, records)
    await asyncio.gather(*sent)


async def publish_items(kafka: KafkaConfig, topic: str, items: Iterable[Item]) -> int:
    """Publish items to the compacted catalogue topic; returns how many."""
    return await _compacted(kafka, topic, [Out(i.item.encode(), msgspec.json.encode(i), JSON_HEADERS) for i in items])


async def publish_people(kafka: KafkaConfig, topic: str, people: Iterable[Person]) -> int:
    """Publish users to the compacted topic of users, each to the partition of their events; returns how many."""
    count = len(await topic_partitions(kafka, [topic]))
    rows: dict[int, list[Out]] = {}
    for one in people:
        out = Out(one.user.encode(), msgspec.json.encode(one), JSON_HEADERS)
        rows.setdefault(partition_of(one.user, count), []).append(out)
    async with producer(kafka) as client:
        sent = [await send(client, topic, partition, records) for partition, records in rows.items()]
        await asyncio.gather(*chain.from_iterable(sent))
    return sum(map(len, rows.values()))


async def withdraw_items(kafka: KafkaConfig, topic: str, items: Iterable[str]) -> int:
    """Publish tombstones for items; returns how many."""
    return await _compacted(kafka, topic, [Out(item.encode(), None) for item in items])


async def _compacted(kafka: KafkaConfig, topic: str, records: list[Out]) -> int:
    await topic_partitions(kafka, [topic])
    async with producer(kafka) as client:
        await asyncio.gather(*await send(client, topic, 0, records))
    return len(records)


async def send_event(settings: Settings, action: str, user: str, item: str, ts: int) -> tuple[str, int, int]:
    """Send one event by hand; returns where it is: topic, partition, offset."""
    topics = settings.input.topics
    if action not in topics:
        raise ConfigError(f"no topic is set for the action {action!r}", f"use one of: {', '.join(topics)}")
    topic = topics[action]
    await topic_partitions(settings.kafka, [topic])
    async with producer(settings.kafka) as client:
        sent = await client.send_and_wait(
            topic, encode_event(user, item, ts), key=user.encode(), timestamp_ms=ts, headers=JSON_HEADERS
        )
    return sent.topic, sent.partition, sent.offset
