"""The page's two Kafka clients, kept alive: one subscribes to recommendations, one publishes events.

This module does not read what it carries. It also answers, for as long as the page runs, one question: is
Kafka there?
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from stream.errors import BrokerError, BrokerUnavailable, TopicError

log = logging.getLogger("eddyline.web")

RETRY_S = 1.0
PROBE_EVERY_S = 2.0
PROBE_TIMEOUT_S = 4.0
SEND_TIMEOUT_S = 4.0
STOP_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_MS = 5000
"""Longest wait for one answer, whatever the settings say: a person is looking at the page."""


def explain(error: BaseException, servers: str, topics: Iterable[str]) -> BrokerError:
    """The failure as a person who looks at the page needs it: what happened, and what to check."""
    if isinstance(error, BrokerError):
        return error
    kind = type(error).__name__
    if "Authorization" in kind or "Authentication" in kind:
        named = ", ".join(sorted(topics))
        return BrokerError(f"Kafka at {servers} refuses this client ({kind})", f"check its rights on {named}")
    detail = "" if isinstance(error, TimeoutError) else f" ({str(error) or kind})"
    return BrokerUnavailable(
        f"no answer from Kafka at {servers}{detail}",
        "check that the broker runs (`eddyline broker status`) and that this is its address",
    )


class Link:
    """A producer and a consumer of all partitions of `topic`, from its end, in no consumer group.

    `kafka` holds keyword arguments that every aiokafka client takes (`bootstrap_servers`, ...). `on_record`
    gets each record of the topic, `on_trouble` what keeps the page from Kafka, None when nothing does; both
    are called in the event loop and must not block. `trouble` is the newest of the latter. After an outage
    reading goes on where it stopped, so a list written meanwhile is not lost.
    """

    def __init__(
        self,
        kafka: Mapping[str, Any],
        topic: str,
        inputs: Iterable[str],
        on_record: Callable[[ConsumerRecord[bytes, bytes]], None],
        on_trouble: Callable[[BrokerError | None], None],
    ) -> None:
        patience = min(int(kafka.get("request_timeout_ms", REQUEST_TIMEOUT_MS)), REQUEST_TIMEOUT_MS)
        self._settings = {"client_id": "eddyline-page", **kafka, "request_timeout_ms": patience}
        servers = kafka.get("bootstrap_servers", "localhost")
        self._servers = servers if isinstance(servers, str) else ",".join(servers)
        self._topic = topic
        self._needed = frozenset((topic, *inputs))
        self._on_record = on_record
        self._on_trouble = on_trouble
        self._producer: AIOKafkaProducer  # there as soon as `trouble` is None
        self._positions: dict[TopicPartition, int] = {}
        self.trouble: BrokerError | None = BrokerUnavailable(
            f"not connected to Kafka at {self._servers} yet", "wait a moment"
        )

    async def run(self) -> None:
        """Connect, then follow the topic, saying when Kafka goes and comes; ends only by cancellation."""
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await self._follow(*await self._connect(stack))
            except (KafkaError, BrokerError, OSError, TimeoutError) as error:
                self._become(explain(error, self._servers, self._needed))
            await asyncio.sleep(RETRY_S)

    async def send(self, topic: str, key: bytes, value: bytes) -> tuple[int, int]:
        """Publish one JSON event; its (partition, offset) once every in-sync replica has it.

        Raises `BrokerError` when the broker does not acknowledge it in time (it may still arrive then).
        """
        if self.trouble is not None:  # raised as a copy: an exception that is kept must not gather tracebacks
            raise type(self.trouble)(self.trouble.message, self.trouble.remedy)
        sending = self._producer.send_and_wait(
            topic, value=value, key=key, headers=[("content-type", b"application/json")]
        )
        try:
            written = await asyncio.wait_for(sending, SEND_TIMEOUT_S)
        except (KafkaError, OSError, TimeoutError) as error:
            raise explain(error, self._servers, self._needed) from error
        return written.partition, written.offset

    async def _connect(self, stack: contextlib.AsyncExitStack) -> tuple[AIOKafkaConsumer, set[TopicPartition]]:
        """Both clients started, every partition positioned: from here on no list is missed."""
        # Not idempotent: an event sent twice is one event (a window is a set), and a producer's id would not
        # outlive a broker whose data was wiped.
        producer = AIOKafkaProducer(**self._settings, acks="all")
        stack.push_async_callback(_stop, producer)
        await producer.start()
        consumer: AIOKafkaConsumer = AIOKafkaConsumer(
            **self._settings,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            isolation_level="read_committed",
        )
        stack.push_async_callback(_stop, consumer)
        await consumer.start()
        # All topics are listed first: asking for one by name can create it on brokers that allow that.
        missing = self._needed - await consumer.topics()
        if missing:
            names = ", ".join(sorted(missing))
            raise TopicError(f"Kafka at {self._servers} lacks {names}", "create it: `eddyline topics`")
        partitions = {TopicPartition(self._topic, p) for p in await producer.partitions_for(self._topic)}
        consumer.assign(list(partitions))
        for partition, offset in (await consumer.end_offsets(list(partitions))).items():
            end = offset or 0
            consumer.seek(partition, min(self._positions.get(partition, end), end))
        self._producer = producer
        return consumer, partitions

    async def _follow(self, consumer: AIOKafkaConsumer, partitions: set[TopicPartition]) -> None:
        """Hand over records, and watch whether Kafka is there; returns when the topic has grown.

        An outage is waited out with the same clients: they find the broker again, and know where they were.
        """
        reader = asyncio.create_task(self._read(consumer))
        try:
            while not reader.done():
                try:
                    # While brokers are away a fetch does not fail, it is only silent: ask something else.
                    await asyncio.wait_for(consumer.end_offsets(list(partitions)), PROBE_TIMEOUT_S)
                except (KafkaError, OSError, TimeoutError) as error:
                    self._become(explain(error, self._servers, self._needed))
                else:
                    self._become(None)
                if len(consumer.partitions_for_topic(self._topic) or ()) > len(partitions):
                    return
                await asyncio.wait({reader}, timeout=PROBE_EVERY_S)
            reader.result()
        finally:
            reader.cancel()
            await asyncio.wait({reader})

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=1000)).items():
                for record in records:
                    self._on_record(record)
                self._positions[partition] = records[-1].offset + 1

    def _become(self, trouble: BrokerError | None) -> None:
        if str(trouble) != str(self.trouble):
            if trouble is None:
                log.info("connected to Kafka at %s", self._servers)
            else:
                log.warning("%s", trouble)
            self.trouble = trouble
            self._on_trouble(trouble)


async def _stop(client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
    """Stop a client within bounds, in a task of its own: while brokers are away aiokafka's `stop` waits for
    them, or raises the CancelledError of a fetch that it cancelled itself, which is not for us to obey.
    """
    stopping = asyncio.create_task(client.stop())
    await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    if not stopping.done():
        stopping.cancel()
    elif not stopping.cancelled() and (error := stopping.exception()):
        log.info("a Kafka client did not stop cleanly: %r", error)
