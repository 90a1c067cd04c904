"""Events on their way to a topic of our own, keyed by user, where their owners' topics do not keep users together.

State wants all events of a user in one partition, and the partitions of all topics alike. Topics that others write have
no keys, keys that a client with another hash has placed (librdkafka's CRC32), or as many partitions as suits their
owner. Such events are copied into `eddyline.events`, whose partitions are ours, as eddyline's own: shapes, units and
actions are resolved here, once. Each fetched batch is one Kafka transaction with the offset behind it, so a copy is
there exactly once however often a worker is killed; partitions that are added upstream are more to read, and move
nobody.

Whether that is needed is `stream.process.keys`' to say; windows and lists know nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from model.history import ACTION_NAME
from stream.deadletters import bury
from stream.events import Events, InputConfig
from stream.kafka.batches import Out, send
from stream.kafka.changelog import FENCED, claimed
from stream.kafka.clients import KafkaConfig, gave_up, stop
from stream.kafka.debts import offsets
from stream.kafka.fetch import batches_of
from stream.kafka.placing import placed
from stream.kafka.topics import TopicsConfig
from stream.values import awaited
from stream.windows.blocks import runs

log = logging.getLogger(__name__)

FETCH_WAIT_S = 0.2


class Keyed(msgspec.Struct, gc=False):
    """An event as it is in `eddyline.events`."""

    user: str
    item: str
    ts: int
    action: str


_encode = msgspec.json.Encoder().encode


def rekeyed(config: InputConfig, topics: TopicsConfig) -> InputConfig:
    """What is read in place of the topics of `config`, once they are re-keyed."""
    return InputConfig.model_validate(
        {
            **config.model_dump(),
            "topics": dict.fromkeys(config.topics, topics.events),
            "shapes": {topics.events: {"action": "$.action"}},
            "ts_unit": "ms",
        }
    )


def group(topics: TopicsConfig) -> str:
    """The consumer group that re-keys, one for all state versions."""
    return f"{topics.prefix}rekey"


class Rekeying(ConsumerRebalanceListener):
    """Copies what the group gives to this worker, until it is stopped.

    Args:
        config: the input topics as their owners write them.
        partitions: how many `eddyline.events` has.
        letters: a producer without transactions, for dead letters: one that is too large must not abort a copy.
    """

    def __init__(
        self, kafka: KafkaConfig, topics: TopicsConfig, config: InputConfig, partitions: int, letters: AIOKafkaProducer
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._config = config
        self._partitions = partitions
        self._letters = letters
        self._decoders = config.decoders(keyed=False)
        self._producers: dict[TopicPartition, AIOKafkaProducer] = {}
        self._consumer: AIOKafkaConsumer | None = None
        self._moving = asyncio.Lock()
        self._failure: Exception | None = None
        self.events = 0
        self.dead_letters = 0

    def status(self) -> dict[str, Any]:
        told = {"rekeyed": self.events, "rekeyed_partitions": len(self._producers)}
        awaiting = awaited(decoder.values for decoder in self._decoders.values())
        return {**told, "awaiting": awaiting} if awaiting is not None else told

    async def run(self) -> None:
        """For ever.

        Raises:
            BrokerError: the broker went away, or refused something.
        """
        options = {**self._kafka.member(), "group_instance_id": None}
        self._consumer = client = AIOKafkaConsumer(**options, group_id=group(self._topics))
        try:
            await client.start()
            client.subscribe(self._config.names, listener=self)
            while self._failure is None:
                await self._turn(client)
            raise self._failure
        except KafkaError as error:
            raise gave_up("re-keying", error) from error
        finally:
            await stop(client)
            await self._let_go(list(self._producers))

    async def _turn(self, client: AIOKafkaConsumer) -> None:
        async with self._moving:
            ours = dict(self._producers)
            batches = await batches_of(client, set(ours), FETCH_WAIT_S) if ours else {}
        await asyncio.gather(*(self._decoders[tp.topic].values.prepared(records) for tp, records in batches.items()))
        async with self._moving:
            still = {tp: records for tp, records in batches.items() if self._producers.get(tp) is ours[tp]}
            await asyncio.gather(*(self._copy(client, tp, records) for tp, records in still.items()))
        if not batches:
            await asyncio.sleep(0 if ours else FETCH_WAIT_S)  # or a rebalance would not get its turn

    async def _copy(self, client: AIOKafkaConsumer, tp: TopicPartition, records: Sequence[Any]) -> None:
        """One batch, all of it or nothing."""
        events, bad = self._decoders[tp.topic].decode(records)
        if bad:
            log.warning("%d records of %s are unreadable; the first, at %d: %s",
                        len(bad), tp.topic, bad[0].record.offset, bad[0].reason)  # fmt: skip
            at = tp.partition % self._partitions
            await bury(self._letters, self._topics.dead_letters, TP(*tp), bad, group(self._topics), at)
        producer = self._producers[tp]
        stamps = {record.offset: record.timestamp for record in records}
        try:
            async with producer.transaction():
                sent: list[asyncio.Future] = []
                for partition, outs in self._outs(events, stamps):
                    sent += await send(producer, self._topics.events, partition, outs)
                await asyncio.gather(*sent)
                await producer.send_offsets_to_transaction({tp: records[-1].offset + 1}, group(self._topics))
        except FENCED:
            log.warning("%s, partition %d, is re-keyed by another worker now", *tp)
            await self._let_go([tp])
            client._coordinator.request_rejoin()  # type: ignore[union-attr]
            return
        self.events += len(events)
        self.dead_letters += len(bad)

    def _outs(self, events: Events, stamps: Mapping[int, int]) -> Iterable[tuple[int, list[Out]]]:
        """Records by partition, in the order of offsets in each."""
        keys = [user.encode() for user in events.users]
        at = placed(keys, self._partitions)
        order = np.argsort(at, kind="stable")
        actions, times, offsets = events.actions.tolist(), events.times.tolist(), events.offsets.tolist()
        for start, length in zip(*(part.tolist() for part in runs(at[order])), strict=True):
            outs: list[Out] = []
            for i in order[start : start + length].tolist():
                value = _encode(Keyed(events.users[i], events.names[i], times[i], ACTION_NAME[actions[i]]))
                trace = events.traces.get(offsets[i])
                outs.append(Out(keys[i], value, [("traceparent", trace)] if trace else None, stamps[offsets[i]]))
            yield int(at[order[start]]), outs

    # What the group gives and takes

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # pyright: ignore
        async with self._moving:
            await self._let_go(list(self._producers))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # pyright: ignore
        """Claim them, which ends what a former owner had begun, and only then see how far they are."""
        try:
            await self._claim(list(assigned))
        except Exception as error:  # aiokafka would log it, and go on without
            self._failure = error

    async def _claim(self, tps: Sequence[TopicPartition]) -> None:
        client = self._consumer
        if client is None:
            return
        names = [f"{group(self._topics)}-{tp.topic}-{tp.partition}" for tp in tps]
        made = await asyncio.gather(
            *(claimed(self._kafka, name, f"{tp.topic}, partition {tp.partition}, to re-key it")
              for tp, name in zip(tps, names, strict=True))
        )  # fmt: skip
        for tp in tps:
            offset = await client.committed(tp)
            if offset is None:
                await client.seek_to_beginning(tp)
            else:
                client.seek(tp, offset)
        self._producers.update(zip(tps, made, strict=True))

    async def _let_go(self, tps: Sequence[TopicPartition]) -> None:
        leaving = [self._producers.pop(tp) for tp in tps if tp in self._producers]
        await asyncio.gather(*(producer.stop() for producer in leaving), return_exceptions=True)


async def copied(
    kafka: KafkaConfig, topics: TopicsConfig, config: InputConfig, partitions: int, until: Mapping[TP, int]
) -> None:
    """Copy, beside whoever does already, and return when all is copied up to these offsets."""
    plain: dict[str, Any] = {**kafka.producer(), "enable_idempotence": False}
    letters = AIOKafkaProducer(**plain)
    await letters.start()
    copying = asyncio.ensure_future(Rekeying(kafka, topics, config, partitions, letters).run())
    try:
        while not copying.done():
            there = {TP(*tp): at.offset for tp, at in (await offsets(kafka, group(topics))).items()}
            if all(there.get(tp, 0) >= end for tp, end in until.items() if end):
                return
            await asyncio.wait([copying], timeout=FETCH_WAIT_S)
        copying.result()
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
        await letters.stop()
