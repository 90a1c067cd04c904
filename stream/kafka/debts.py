"""What a committed offset leaves unsaid: from where on the events before it are applied, but not answered.

Kafka keeps a text beside every committed offset, written with it and at once. Where lists are held back, that text
names the first offset whose users are owed one: `unanswered from 123`. Where state versions take turns in answering
(`stream.answers.turns`), it begins with the last turn that the partition has taken note of: `turn 5`, or
`turn 5, unanswered from 123`. This module writes and reads it; who is owed a list is found in the rows
(`stream.answers.debts`).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code
from faust.types import TP

from stream.kafka.clients import KafkaConfig, admin

_NOTE = re.compile(r"(?:turn (\d{1,9})(?:$|, (?=u)))?(?:unanswered from (\d{1,19}))?")
_NO_MEMBERS = ("Empty", "Dead")
T = TypeVar("T")


class Note(NamedTuple):
    """`first`: the first unanswered offset, None where there is none before the committed one; `turn`: the last turn
    that was taken note of, 0 where none was.
    """

    first: int | None = None
    turn: int = 0


def note(said: Note | None, committed: int) -> str:
    """The text beside a committed offset; empty where everything before it is answered and no turn was ever taken."""
    if said is None:
        return ""
    turn = [f"turn {said.turn}"] if said.turn else []
    first = [f"unanswered from {said.first}"] if said.first is not None and said.first < committed else []
    return ", ".join(turn + first)


def noted(text: str) -> Note:
    """What a text says; nothing where it is empty, or another's."""
    found = _NOTE.fullmatch(text)
    if found is None:
        return Note()
    turn, first = found.groups()
    return Note(int(first) if first else None, int(turn or 0))


async def notes(kafka: KafkaConfig, group: str) -> dict[TP, Note]:
    """What a group has noted beside each offset that it has committed."""
    return {TP(tp.topic, tp.partition): noted(at.metadata) for tp, at in (await offsets(kafka, group)).items()}


async def debts(kafka: KafkaConfig, group: str) -> dict[TP, int]:
    """First unanswered offsets of a group's partitions, where there are any."""
    return {tp: said.first for tp, said in (await notes(kafka, group)).items() if said.first is not None}


async def offsets(kafka: KafkaConfig, group: str) -> dict[TopicPartition, Any]:
    """What a group has committed: `OffsetAndMetadata` by partition."""
    async with admin(kafka) as client:
        return await offsets_of(client, group, kafka.request_timeout_ms / 1000)


async def offsets_of(client: AIOKafkaAdminClient, group: str, timeout_s: float) -> dict[TopicPartition, Any]:
    """The same, by a client that is open."""
    return await _healed(lambda: client.list_consumer_group_offsets(group), timeout_s)


async def has_members(client: AIOKafkaAdminClient, group: str, timeout_s: float) -> bool:
    """Whether anybody is a member of a group; one who was killed is until the session times out."""

    async def state() -> str:
        found: Any
        (found,) = await client.describe_consumer_groups([group])
        code, _, state, *_ = found.groups[0]
        if code:
            raise for_code(code)(f"group {group} cannot be described")
        return state

    return await _healed(state, timeout_s) not in _NO_MEMBERS


async def _healed(ask: Callable[[], Awaitable[T]], timeout_s: float) -> T:
    """A cluster in which nobody ever committed is only now making the topic for it: errors that heal are waited out."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
