"""The asker's side of a request: send one, and wait for its answer. Any Kafka client can do the same."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Any

import msgspec
from aiokafka import TopicPartition

from stream import messages
from stream.errors import UnansweredError
from stream.kafka.clients import consumer, producer
from stream.kafka.placing import partition_of
from stream.kafka.topics import topic_partitions
from stream.publishing import JSON_HEADERS
from stream.settings import Settings


async def ask(
    settings: Settings, user: str, n: int | None, context: dict[str, Any], timeout_s: float
) -> messages.Recommendation:
    """Ask for a list of n items (None: as many as ever) for a user, and return the answer.

    Raises:
        TopicError: a topic is missing.
        UnansweredError: no answer came in time.
    """
    topics, correlation_id = settings.topics, uuid.uuid4().hex
    await topic_partitions(settings.kafka, [topics.recommendations])
    count = len(await topic_partitions(settings.kafka, [topics.requests]))
    tp = TopicPartition(topics.recommendations, partition_of(user, count))
    said = {"user": user, "correlation_id": correlation_id, "n": n, "context": context or None}
    async with consumer(settings.kafka) as answers, producer(settings.kafka) as client:
        answers.assign([tp])
        await answers.seek_to_end(tp)
        await answers.position(tp)  # seeking is lazy: what is answered from here on is read
        await client.send_and_wait(
            topics.requests, msgspec.json.encode(said), user.encode(), tp.partition, headers=JSON_HEADERS
        )
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                record = await asyncio.wait_for(answers.getone(), left)
            except TimeoutError:
                break
            if record.value and (answer := messages.decode(record.value)).correlation_id == correlation_id:
                return answer
    raise UnansweredError(
        f"no answer for {user} within {timeout_s:g} s",
        "look whether a worker runs and is ready, and in the dead letters for what it says of the request",
    )
