"""A steady load, and how long each event waits for what it causes: seen from outside, by a client of its own.

Events go out at a fixed rate whatever comes back (an open loop: one that waited for answers would hide queues). An
event is answered by the first message about its user whose event time is not before its own; where one message
answers several, all but the newest were conflated.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream.kafka import topics
from stream.kafka.clients import KafkaConfig, consumer, producer
from stream.kafka.placing import partition_of
from stream.publishing import encode_event

PATIENCE_S = 30.0
"""How long after the last event answers are waited for."""

Told = Callable[[bytes], tuple[str, int]]
"""(user, event time in ms) that a message of the output topic is about."""


@dataclass
class Held:
    """What became of the events of one rate: seconds that each waited, when it was sent, and counts."""

    rate: float
    waits: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    conflated: int = 0
    unanswered: int = 0

    def add(self, other: Held) -> None:
        """Take in what became of others at this rate."""
        self.waits += other.waits
        self.sent += other.sent
        self.conflated += other.conflated
        self.unanswered += other.unanswered

    def quantile_ms(self, percent: float) -> float:
        return round(1000 * float(np.percentile(self.waits, percent)), 2) if self.waits else float("inf")

    @property
    def share_conflated(self) -> float:
        return self.conflated / max(1, len(self.waits))

    @property
    def flat(self) -> bool:
        """Whether waits did not grow: the last third's median is within half of, or 10 ms above, the first's."""
        third = max(1, len(self.waits) // 3)
        first, last = float(np.median(self.waits[:third])), float(np.median(self.waits[-third:]))
        return self.unanswered == 0 and last <= max(1.5 * first, first + 0.01)


class Load:
    """Sends events of random users, and listens."""

    def __init__(
        self, sender: AIOKafkaProducer, listener: AIOKafkaConsumer, topic: str, told: Told, users: int, items: int
    ) -> None:
        self._sender = sender
        self._listener = listener
        self._topic = topic
        self._told = told
        self._users = users
        self._items = items
        self._rng = np.random.default_rng(5)
        self._open: defaultdict[str, deque[tuple[int, float]]] = defaultdict(deque)
        self._last_ms = 0

    async def hold(self, rate: float, seconds: float) -> Held:
        """Keep a rate for so long."""
        held = Held(rate)
        self._open.clear()
        ending = asyncio.Event()
        listening = asyncio.ensure_future(self._listen(held, ending))
        n, began = max(1, round(rate * seconds)), time.monotonic()
        sent: list[asyncio.Future] = []
        for i in range(n):
            if (ahead := began + i / rate - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            sent.append(await self._send())
        await asyncio.gather(*sent)
        ending.set()
        await listening
        held.unanswered = sum(map(len, self._open.values()))
        return held

    async def _send(self) -> asyncio.Future:
        user, item = f"u{self._rng.integers(self._users)}", f"i{self._rng.integers(self._items)}"
        # No two events of one time, so that an answer tells which it knows of.
        self._last_ms = max(self._last_ms + 1, int(time.time() * 1000))
        self._open[user].append((self._last_ms, time.monotonic()))
        return await self._sender.send(
            self._topic,
            encode_event(user, item, self._last_ms),
            user.encode(),
            partition=partition_of(user, topics_partitions(self._sender, self._topic)),
        )

    async def _listen(self, held: Held, ending: asyncio.Event) -> None:
        deadline: float | None = None
        while True:
            if ending.is_set():
                deadline = deadline or time.monotonic() + PATIENCE_S
                if time.monotonic() > deadline or not any(self._open.values()):
                    return
            for records in (await self._listener.getmany(timeout_ms=50)).values():
                now = time.monotonic()
                for record in records:
                    user, time_ms = self._told(record.value)
                    waiting, answered = self._open[user], 0
                    while waiting and waiting[0][0] <= time_ms:
                        held.sent.append(waiting.popleft()[1])
                        held.waits.append(now - held.sent[-1])
                        answered += 1
                    held.conflated += max(0, answered - 1)


def topics_partitions(client: AIOKafkaProducer, topic: str) -> int:
    return len(client.client.cluster.partitions_for_topic(topic) or ())


@asynccontextmanager
async def load(kafka: KafkaConfig, topic: str, output: str, told: Told, users: int, items: int) -> AsyncIterator[Load]:
    """A load on `topic`, that listens at the end of `output`."""
    async with producer(kafka) as sender, consumer(kafka, auto_offset_reset="latest") as listener:
        tps = await topics.topic_partitions(kafka, [output])
        listener.assign(tps)
        await listener.seek_to_end(*tps)
        await sender.partitions_for(topic)
        yield Load(sender, listener, topic, told, users, items)
