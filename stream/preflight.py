"""What is made sure of before a worker starts: topics that fit together, and a state that is theirs.

Nothing here looks into the state or the events; shapes are `stream.kafka.topics`', origins `stream.origin`'s.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from stream.errors import StateError
from stream.kafka.clients import admin, consumer, producer
from stream.kafka.follow import newest
from stream.kafka.identity import identity
from stream.kafka.topics import check_inputs
from stream.origin import Origin, rebuild
from stream.settings import Settings


async def ready_to_start(settings: Settings) -> int:
    """`check`, and that the state was kept over these very topics; one that begins now is bound to them.

    Raises:
        BrokerUnavailable, TopicError, StateError: with the remedy.
    """
    count = await check(settings)
    await _refuse_lost_records(settings)
    now = Origin.of(await identity(settings.kafka, settings.input.topics.values()), count)
    topic = settings.topics.origin(settings.state.name)
    record = await newest(settings.kafka, topic)
    stored = record.value if record is not None else None
    origin = now.after(Origin.unpack(stored), settings.state.name) if stored else now
    if origin.pack() != stored:
        async with producer(settings.kafka) as client:
            await client.send_and_wait(topic, origin.pack(), b"origin", partition=0)
    return count


async def check(settings: Settings) -> int:
    """The partition count of this deployment, whose topics are there and fit together. Changes nothing.

    Raises:
        BrokerUnavailable, TopicError: with the remedy.
    """
    topics, state = settings.topics, settings.state.name
    alike = [
        topics.windows(state),
        topics.trends(state),
        topics.recommendations,
        topics.dead_letters,
        *([topics.shadow] if settings.recommend.shadow else []),
    ]
    return await check_inputs(
        settings.kafka, settings.input.topics.values(), alike, [topics.catalog, topics.release, topics.origin(state)]
    )


async def _refuse_lost_records(settings: Settings) -> None:
    """Topics that end before what was read of them: Kafka would start over, and rows skip what they get."""
    found = await _offsets(settings)
    committed = {tp: at.offset for tp, at in found.items() if tp.topic in set(settings.input.topics.values())}
    if not committed:
        return
    async with consumer(settings.kafka) as client:
        ends = await client.end_offsets(committed)
    for tp, end in ends.items():
        if committed[tp] > end:
            state = settings.state.name
            raise StateError(
                f"{tp.topic}, partition {tp.partition}, ends at offset {end}, and state {state} has read up to "
                f"{committed[tp]}: records were lost, or the topic was put back from a copy",
                rebuild(state),
            )


async def _offsets(settings: Settings) -> dict[TopicPartition, Any]:
    """What the group has committed. A cluster in which nobody ever committed is only now making the topic for it."""
    deadline = time.monotonic() + settings.kafka.request_timeout_ms / 1000
    async with admin(settings.kafka) as client:
        while True:
            try:
                return await client.list_consumer_group_offsets(settings.group)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
