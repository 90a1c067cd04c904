"""What an operator tells all workers of a deployment: whether lists are sent, and by which state version.

Two small records in a compacted topic of its own, which every worker follows (`stream.app`). The release
topic would not do: its readers take its newest record for the release, and who may announce a model need
not be who may stop one from being heard. What a worker does about a turn is in `stream.answers.turns`; who
writes one, and when, in `stream.cutover`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from stream.kafka.clients import KafkaConfig, producer
from stream.kafka.topics import topic_partitions

log = logging.getLogger(__name__)

KEY = b"emission"
TURN = b"turn"
T = TypeVar("T")


class Emission(msgspec.Struct, frozen=True):
    """`paused`: whether lists are held back; `since`: when that was said, in ms."""

    paused: bool
    since: int


class Turn(msgspec.Struct, frozen=True):
    """Whose turn it is to answer. Where none was ever written, every state version answers that runs.

    Not yet `given`, `before` is to fall silent, and `speaker` waits for it; given, `speaker` answers, and nobody else.

    number: counts up, from 1; it stays the same when a turn is given.
    began: the number of the turn with which the one who is `answering` began; 0 where it was before all turns.
    floor: topic -> offset by partition, from which that one answers: what is below was another's to answer. Empty where
        it began before all turns.
    since: when this was written, in ms.
    """

    number: int
    speaker: str
    before: str
    given: bool
    began: int
    floor: Mapping[str, Sequence[int]]
    since: int

    @property
    def answering(self) -> str:
        """The state version whose lists may go out."""
        return self.speaker if self.given else self.before

    def floor_of(self, topic: str, partition: int) -> int:
        offsets = self.floor.get(topic, ())
        return offsets[partition] if partition < len(offsets) else 0


async def say(kafka: KafkaConfig, topic: str, emission: Emission) -> None:
    """Tell all workers.

    Raises:
        TopicError: the topic is missing.
    """
    await topic_partitions(kafka, [topic])
    async with producer(kafka) as client:
        await client.send_and_wait(topic, msgspec.json.encode(emission), key=KEY, partition=0)


def heard(records: Sequence[Any]) -> Emission | None:
    """The newest word on emission in records of the topic; None where they have none."""
    return _newest(records, KEY, Emission, Emission(False, 0))


def turn_heard(records: Sequence[Any]) -> Turn | None:
    """The newest turn in records of the topic; None where they have none."""
    return _newest(records, TURN, Turn, None)


def _newest(records: Sequence[Any], key: bytes, kind: type[T], withdrawn: T | None) -> T | None:
    """What cannot be read is told and left out."""
    found = None
    for record in records:
        if record.key != key:
            continue
        try:
            found = msgspec.json.decode(record.value, type=kind) if record.value else withdrawn
        except (msgspec.MsgspecError, RecursionError) as error:
            log.error("%s at offset %d says nothing and is ignored: %s", record.topic, record.offset, error)
    return found
