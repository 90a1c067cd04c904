"""What an operator tells all workers of a deployment: whether lists are sent.

One small record in a compacted topic of its own, which every worker follows (`stream.app`). The release
topic would not do: its readers take its newest record for the release, and who may announce a model need
not be who may stop one from being heard.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec

from stream.kafka.clients import KafkaConfig, producer
from stream.kafka.topics import topic_partitions

log = logging.getLogger(__name__)

KEY = b"emission"


class Emission(msgspec.Struct, frozen=True):
    """`paused`: whether lists are held back; `since`: when that was said, in ms."""

    paused: bool
    since: int


async def say(kafka: KafkaConfig, topic: str, emission: Emission) -> None:
    """Tell all workers.

    Raises:
        TopicError: the topic is missing.
    """
    await topic_partitions(kafka, [topic])
    async with producer(kafka) as client:
        await client.send_and_wait(topic, msgspec.json.encode(emission), key=KEY, partition=0)


def heard(records: Sequence[Any]) -> Emission | None:
    """The newest word in records of the topic; None where they have none. What cannot be read is told and left out."""
    found = None
    for record in records:
        if record.key != KEY:
            continue
        try:
            found = msgspec.json.decode(record.value, type=Emission) if record.value else Emission(False, 0)
        except (msgspec.MsgspecError, RecursionError) as error:
            log.error("%s at offset %d says nothing and is ignored: %s", record.topic, record.offset, error)
    return found
