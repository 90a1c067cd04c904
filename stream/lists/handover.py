"""Steps 1 and 2 to steps 3 to 5, where these run in other workers: users who wait -> messages on `interests`.

The loop is the recommender's without the computing: take, copy, write, and close tickets when the broker has
acknowledged. So an input offset is committed when its rows are durable and its users handed over; from there on
the recommend side's own offsets stand for them (`stream.lists.desk`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import groupby

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from stream.answers.progress import Waiting
from stream.kafka.batches import Out, send
from stream.lists.interests import Interests, Source, pack
from stream.process.monitor import Monitor
from stream.windows.packing import INTERACTION

log = logging.getLogger(__name__)

AT_ONCE = 512
"""Users that are copied at a time: their rows are 6 MB at most."""
MESSAGE_BYTES = 512 * 1024
"""A message is closed before its rows grow beyond this; one row is far below it."""


class Handover:
    """Hands over the users who wait."""

    def __init__(self, source: Source, producer: AIOKafkaProducer, topic: str, monitor: Monitor) -> None:
        self._source = source
        self._producer = producer
        self._topic = topic
        self._monitor = monitor
        self._work = asyncio.Event()
        self._acks: set[asyncio.Task] = set()

    def wake(self) -> None:
        """Someone waits."""
        self._work.set()

    async def run(self) -> None:
        """Hand over for ever."""
        progress = self._source.progress
        while True:
            await self._work.wait()
            interests = self._source.interests(progress.take(AT_ONCE), time.monotonic())
            if interests is not None:
                await self._send(interests)
            elif not progress.waiting and not progress.backlog:
                self._work.clear()

    async def _send(self, interests: Interests) -> None:
        for partition, members in messages(interests):
            users = [interests.users[i] for i in members]
            try:
                sent = await send(self._producer, self._topic, partition, [Out(None, pack(interests, members))])
            except KafkaError as error:
                await self._retry(users, error)
                continue
            task = asyncio.ensure_future(self._acknowledged(users, sent))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

    async def _acknowledged(self, users: Sequence[Waiting], sent: Sequence[asyncio.Future]) -> None:
        try:
            await asyncio.gather(*sent)
        except KafkaError as error:
            await self._retry(users, error)
            return
        moment = time.monotonic()
        self._monitor.answered([moment - w.trigger.arrived for w in users if w.trigger is not None])
        for w in users:
            self._source.answered(w.ticket)

    async def _retry(self, users: Sequence[Waiting], error: KafkaError) -> None:
        self._monitor.failures["handover"] += 1
        log.warning("%d users were not handed over (%r); they wait again", len(users), error)
        await asyncio.sleep(1.0)
        self._source.progress.give_back(users)
        self.wake()


def messages(interests: Interests) -> Iterator[tuple[int, list[int]]]:
    """(partition, users by their index) of each message: of one partition, and below `MESSAGE_BYTES` in rows."""
    users, h = interests.users, interests.histories
    sizes = (h.lengths * INTERACTION.itemsize + 4 * (h.seen_offsets[1:] - h.seen_offsets[:-1])).tolist()
    order = sorted(range(len(users)), key=lambda i: users[i].partition)
    for partition, group in groupby(order, key=lambda i: users[i].partition):
        members: list[int] = []
        size = 0
        for i in group:
            if members and size + sizes[i] > MESSAGE_BYTES:
                yield partition, members
                members, size = [], 0
            members.append(i)
            size += sizes[i]
        yield partition, members
