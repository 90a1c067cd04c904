"""Replays events as their users would have caused them: the next only after the list for the one before was read.

Users go side by side. Events keep their order in time up to `AHEAD`: while one user's list is awaited,
events of others that come soon after are published, and no further. Lists are only observed here; how
they are compared is in `stream.dev.scoring`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from model.dataset import Events
from model.history import ACTION_NAME
from stream import messages
from stream.kafka.clients import KafkaConfig
from stream.kafka.topics import topic_partitions
from stream.publishing import JSON_HEADERS, encode_event

AHEAD = 1000
"""How many events the replay may run ahead of its oldest one that still waits."""
PATIENCE_S = 60.0
"""How long a list is awaited before its user counts as unanswered."""

Lists = dict[str, messages.Recommendation]


class LiveReplay:
    """Publishes events one user at a time and reads their lists from several topics.

    Args:
        topics: action -> input topic.
        lists: name -> topic of lists; all of them must answer an event before its user goes on.
        on_event: called with (index, the user's lists before it, or None) when an event is about to be published.
    """

    def __init__(
        self,
        kafka: KafkaConfig,
        topics: Mapping[str, str],
        lists: Mapping[str, str],
        events: Events,
        on_event: Callable[[int, Lists | None], None],
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._names = {topic: name for name, topic in lists.items()}
        self._events = events
        self._on_event = on_event
        self._latest: dict[str, Lists] = {}
        self._waits: dict[str, _Wait] = {}
        self._queued: dict[str, deque[int]] = {}
        self._entered = 0
        self._published: set[int] = set()
        self._head = 0
        self._slot = asyncio.Event()
        self.latencies_ms: list[float] = []
        self.unanswered = 0
        self.seconds = 0.0

    @property
    def done(self) -> int:
        """Events whose lists have come."""
        return len(self.latencies_ms)

    def examples(self, name: str, n: int) -> list[messages.Recommendation]:
        """The newest lists of the n users whose windows are longest."""
        mine = [lists[name] for lists in self._latest.values() if name in lists]
        return sorted(mine, key=lambda event: (-event.interest.window, event.user))[:n]

    async def run(self) -> None:
        """Publish all events; returns when the last one is answered."""
        consumer = AIOKafkaConsumer(**self._kafka.consumer())
        producer = AIOKafkaProducer(**self._kafka.producer())
        tps = await topic_partitions(self._kafka, self._names)
        await consumer.start()
        await producer.start()
        try:
            consumer.assign(tps)
            await consumer.seek_to_end(*tps)
            reading = asyncio.ensure_future(self._read(consumer))
            began = time.monotonic()
            await self._publish_all(producer, reading)
            self.seconds = time.monotonic() - began
            reading.cancel()
        finally:
            await consumer.stop()
            await producer.stop()

    async def _publish_all(self, producer: AIOKafkaProducer, reading: asyncio.Future) -> None:
        events, sending = self._events, set()
        while self._head < len(events) or self._waits:
            if reading.done():
                reading.result()
            while self._entered < min(len(events), self._head + AHEAD):
                self._queued.setdefault(str(events.user[self._entered]), deque()).append(self._entered)
                self._entered += 1
            self._give_up_late()
            for user in [user for user in self._queued if user not in self._waits]:
                index = self._queued[user].popleft()
                if not self._queued[user]:
                    del self._queued[user]
                self._begin(user, index)
                task = asyncio.ensure_future(self._publish(producer, user, index))
                sending.add(task)
                task.add_done_callback(sending.discard)
            self._slot.clear()
            try:
                await asyncio.wait_for(self._slot.wait(), 1.0)
            except TimeoutError:
                continue

    def _begin(self, user: str, index: int) -> None:
        self._on_event(index, self._latest.get(user))
        self._waits[user] = _Wait(time.monotonic(), set(self._names.values()))
        self._published.add(index)
        while self._head in self._published:
            self._published.discard(self._head)
            self._head += 1

    async def _publish(self, producer: AIOKafkaProducer, user: str, index: int) -> None:
        events = self._events
        ts, topic = int(events.ts[index]), self._topics[ACTION_NAME[int(events.action[index])]]
        body = encode_event(user, str(events.item[index]), ts)
        sent = await producer.send_and_wait(topic, body, key=user.encode(), timestamp_ms=ts, headers=JSON_HEADERS)
        wait = self._waits[user]
        wait.topic, wait.offset = sent.topic, sent.offset
        self._check(user)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                for record in records:
                    self._take(self._names[tp.topic], record)

    def _take(self, name: str, record: Any) -> None:
        event = messages.decode(record.value)
        mine = self._latest.setdefault(event.user, {})
        if name not in mine or _newer(event, mine[name]):
            mine[name] = event
        self._check(event.user)

    def _check(self, user: str) -> None:
        """Whether every list of this user covers the event that is waited for."""
        wait, mine = self._waits.get(user), self._latest.get(user, {})
        if wait is None or wait.topic is None:
            return
        if all(n in mine and mine[n].source.applied.get(wait.topic, -1) >= wait.offset for n in wait.names):
            self.latencies_ms.append(1000 * (time.monotonic() - wait.since))
            del self._waits[user]
            self._slot.set()

    def _give_up_late(self) -> None:
        now = time.monotonic()
        for user in [u for u, w in self._waits.items() if now - w.since > PATIENCE_S]:
            self.unanswered += 1
            del self._waits[user]


class _Wait:
    """One event whose lists are awaited."""

    __slots__ = ("names", "offset", "since", "topic")

    def __init__(self, since: float, names: set[str]) -> None:
        self.since = since
        self.names = names
        self.topic: str | None = None
        self.offset = -1


def _newer(event: messages.Recommendation, than: messages.Recommendation) -> bool:
    """Lists are ordered by what they know, not by when they come."""
    old = than.source.applied
    return all(event.source.applied.get(topic, -1) >= offset for topic, offset in old.items())


def lists_of(latest: Lists, names: Sequence[str]) -> dict[str, list[str]] | None:
    """Item ids of each named list, or None while one of them is missing."""
    if any(name not in latest for name in names):
        return None
    return {name: [item.item for item in latest[name].items] for name in names}
