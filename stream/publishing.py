"""What is published by us: events, items and users as records, each in the partition of its key.

Users are keys, and the events' times the records' own. What is read again, from where, and how an archive is
published so that nothing is missing or twice, is in `stream.replay`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer

from model.catalog import Item
from model.dataset import Events
from model.history import ACTION_NAME
from model.people import Person
from stream.errors import ConfigError, TopicError
from stream.kafka.batches import Out, send
from stream.kafka.clients import KafkaConfig, producer
from stream.kafka.placing import partition_of, place
from stream.kafka.topics import missing_topics, partitions, topic_partitions
from stream.settings import Settings

if TYPE_CHECKING:  # a worker reads no archives
    import polars as pl

JSON_HEADERS = [("content-type", b"application/json")]


_ENCODE = msgspec.json.Encoder().encode


class _Event(msgspec.Struct, omit_defaults=True, gc=False):
    """One event as an input topic has it."""

    user: str
    item: str
    ts: int | float
    value: float | None = None
    session: str | None = None
    context: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def encode_event(user: str, item: str, ts: int | float, value: float | None = None) -> bytes:
    """One event as an input topic has it."""
    return _ENCODE(_Event(user, item, ts, value))


def in_unit(ms: int, unit: str) -> int | float:
    """A time in the unit that the workers are told to expect (`input.ts_unit`)."""
    if unit == "s":
        return ms / 1000 if ms % 1000 else ms // 1000
    return ms * 1000 if unit == "us" else ms


def events_as_records(
    names: Mapping[int, str], counts: Mapping[str, int], frame: pl.DataFrame, unit: str = "ms"
) -> list[tuple[str, int, Out]]:
    """Events (`model.archive.SCHEMA`) as records, in their order: topic, partition, record.

    Args:
        names: action code -> topic; counts: topic -> partitions; unit: that of the `ts` in an event.
    """
    users = frame["user"].to_list()
    rows = zip(
        users,
        frame["item"].to_list(),
        frame["action"].to_list(),
        frame["ts"].to_list(),
        frame["value"].to_list(),
        frame["session"].to_list(),
        frame["context"].to_list(),
        strict=True,
    )
    out = []
    for user, item, action, ts, value, session, context in rows:
        topic, key = names[action], user.encode()
        raw = msgspec.UNSET if context is None else msgspec.Raw(context.encode())
        body = _ENCODE(_Event(user, item, in_unit(ts, unit), value, session, raw))
        out.append((topic, place(key) % counts[topic], Out(key, body, JSON_HEADERS, ts)))
    return out


async def publish(
    kafka: KafkaConfig, topics: Mapping[str, str], events: Events, progress: Callable[[int, int], None]
) -> int:
    """Publish events that are in memory, in time order, to the topics of their actions (action -> topic), as fast as
    the broker takes them. Not resumed if it is interrupted: `stream.replay` is.

    Returns how many were published: all of them are acknowledged.

    Raises:
        TopicError: a topic is missing, or an action has none.
    """
    from model.archive import of_events

    names = topics_by_code(topics, np.unique(events.action).tolist())
    counts = await partitions(kafka, set(names.values()))
    if missing := set(names.values()) - set(counts):
        raise missing_topics(missing)
    done, n = 0, len(events)
    async with producer(kafka) as client:
        for frame in of_events(events).read():
            await asyncio.gather(*await send_all(client, events_as_records(names, counts, frame)))
            done += len(frame)
            progress(done, n)
    return n


async def send_all(client: AIOKafkaProducer, records: Iterable[tuple[str, int, Out]]) -> list[asyncio.Future]:
    """Hand records to the producer, within each topic and partition in their order."""
    rows: dict[tuple[str, int], list[Out]] = {}
    for topic, partition, record in records:
        rows.setdefault((topic, partition), []).append(record)
    sent: list[asyncio.Future] = []
    for (topic, partition), outs in rows.items():
        sent += await send(client, topic, partition, outs)
    return sent


def topics_by_code(topics: Mapping[str, str], codes: Iterable[int]) -> dict[int, str]:
    """The topics of actions by their codes. Raises TopicError where one has none."""
    names: dict[int, str] = {}
    for code in sorted(codes):
        action = ACTION_NAME[code]
        if action not in topics:
            raise TopicError(
                f"the data has {action} events, and no input topic is set for them",
                f'add {action} = "TOPIC" to [input.topics]',
            )
        names[code] = topics[action]
    return names


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
    settings.input.refuse_foreign([topic])
    await topic_partitions(settings.kafka, [topic])
    async with producer(settings.kafka) as client:
        sent = await client.send_and_wait(
            topic,
            encode_event(user, item, in_unit(ts, settings.input.ts_unit)),
            key=user.encode(),
            timestamp_ms=ts,
            headers=JSON_HEADERS,
        )
    return sent.topic, sent.partition, sent.offset
