"""How far a replay has come: a record in a compacted topic, written in one transaction with the events it counts.

So neither a crash nor a second replay of the same name can publish an event and not know it, or know of one that is
not there. Offsets of a group would say the same, but brokers forget those after a week.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, KafkaError, OutOfOrderSequenceNumber, ProducerFenced

from stream.errors import BrokerError, ReplayError
from stream.kafka.batches import Out, send
from stream.kafka.clients import KafkaConfig, consumer, producer
from stream.publishing import send_all
from stream.replay.source import Place, Placed

TRANSACTION_MS = 20_000
"""For how long a replay that was killed may hold up who reads the topics; starting it again ends that at once."""
_FENCED = (ProducerFenced, InvalidProducerEpoch, OutOfOrderSequenceNumber)


class Position(msgspec.Struct, kw_only=True, frozen=True):
    """One replay: what was asked for (`asked`, in words), what that meant when it began, and how far it is.

    `content` is that of the source, `targets` are the ids and partition counts of the topics; `place` is where the
    source goes on, None before the first record, and `ts` the time of the last one, in ms.
    """

    asked: dict[str, Any]
    content: dict[str, Any]
    targets: dict[str, tuple[str, int]]
    since: int | None
    until: int | None
    place: Place | None = None
    published: int = 0
    ts: int | None = None
    finished: bool = False
    updated_ms: int = 0


class Ledger:
    """Reads and writes one replay's position; its transactions are those of `client`."""

    def __init__(self, kafka: KafkaConfig, topic: str, name: str, client: AIOKafkaProducer) -> None:
        self._kafka = kafka
        self._topic = topic
        self._name = name
        self._client = client

    async def read(self) -> Position | None:
        """The position that was committed last; None where nothing was.

        The log is read to its very end: an open transaction of another replay's may hide what was committed behind it,
        and is waited for.
        """
        tp, found = TopicPartition(self._topic, 0), None
        async with consumer(self._kafka, isolation_level="read_uncommitted") as client:
            end = (await client.end_offsets([tp]))[tp]
        async with consumer(self._kafka) as client:
            client.assign([tp])
            await client.seek_to_beginning(tp)
            while await client.position(tp) < end:
                for record in (await client.getmany(tp, timeout_ms=200)).get(tp, ()):
                    if record.key == self._name.encode():
                        found = record.value
        return None if found is None else msgspec.json.decode(found, type=Position)

    async def write(self, records: Iterable[Placed], position: Position) -> None:
        """Publish records and the position behind them: all of it or nothing.

        Raises:
            ReplayError: another replay of the name has begun.
            BrokerError: the broker went away or refused; what is there is known when the replay is begun again.
        """
        try:
            async with self._client.transaction():
                sent = await send_all(self._client, records)
                sent += await send(
                    self._client, self._topic, 0, [Out(self._name.encode(), msgspec.json.encode(position))]
                )
                for future in sent:
                    await future
        except _FENCED as error:
            raise ReplayError(
                f"another replay called {self._name} has begun, or the broker gave up on this one",
                "let the other one go on; if there is none, run the command again: it goes on where this one ended",
            ) from error
        except KafkaError as error:
            remedy = "the same command goes on without a gap or a repeat"
            raise BrokerError(
                f"the broker went away or refused what replay {self._name} was writing: {error!r}",
                f"when the broker is well, {remedy}"
                if error.retriable
                else f"correct what it refuses (its log may say more), then {remedy}",
            ) from error


@asynccontextmanager
async def ledger(kafka: KafkaConfig, topic: str, name: str) -> AsyncIterator[Ledger]:
    """Begin as the one replay of this name: what another one has under way is aborted, and it can write no more."""
    id_ = f"{topic}-{name}"
    async with producer(kafka, transactional_id=id_, transaction_timeout_ms=TRANSACTION_MS) as client:
        yield Ledger(kafka, topic, name, client)


def differences(asked: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """What is asked for otherwise than before, in words; empty where it is the same."""
    return ", ".join(
        f"{key} is {asked.get(key)} and was {before.get(key)}"
        for key in {**before, **asked}
        if asked.get(key) != before.get(key)
    )
