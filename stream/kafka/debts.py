"""What a committed offset leaves unsaid: from where on the events before it are applied, but not answered.

Kafka keeps a text beside every committed offset, written with it and at once. Where lists are held back,
that text names the first offset whose users are owed one: `unanswered from 123`. This module writes and
reads it; who is owed a list is found in the rows (`stream.answers.debts`).
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from stream.kafka.clients import KafkaConfig, admin

_NOTE = re.compile(r"unanswered from (\d{1,19})")


def note(first: int | None, committed: int) -> str:
    """The text beside a committed offset; empty where everything before it is answered."""
    return f"unanswered from {first}" if first is not None and first < committed else ""


def noted(text: str) -> int | None:
    """The offset that a text names; None where it is empty, or another's."""
    found = _NOTE.fullmatch(text)
    return int(found[1]) if found else None


async def debts(kafka: KafkaConfig, group: str) -> dict[TP, int]:
    """First unanswered offsets of a group's partitions, where there are any."""
    return {
        TP(tp.topic, tp.partition): first
        for tp, at in (await offsets(kafka, group)).items()
        if (first := noted(at.metadata)) is not None
    }


async def offsets(kafka: KafkaConfig, group: str) -> dict[TopicPartition, Any]:
    """What a group has committed: `OffsetAndMetadata` by partition.

    A cluster in which nobody ever committed is only now making the topic for it: errors that heal are waited out.
    """
    deadline = time.monotonic() + kafka.request_timeout_ms / 1000
    async with admin(kafka) as client:
        while True:
            try:
                return await client.list_consumer_group_offsets(group)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
