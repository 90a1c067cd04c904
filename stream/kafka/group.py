"""The group's consumer: opened from `[kafka]`, and on the event loop rather than in a thread of its own.

Beside a loop that is busy a thread waits for Python each time it reads or writes, and an event for many such waits.
What is fetched through it, and what is committed, is `stream.kafka.transport`'s affair.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Set
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode.threads import WorkerThread

from stream.kafka.assignment import Together, learn
from stream.kafka.clients import gave_up, stop
from stream.kafka.debts import note
from stream.kafka.fetch import batches_of
from stream.kafka.tables import SERVICES

if TYPE_CHECKING:
    from stream.kafka.transport import BatchApp, BatchConsumer


class _OnLoop(WorkerThread):
    """Serves what Faust would give a thread to, as a task of the loop that starts it."""

    def start(self) -> None:
        self._serving = asyncio.ensure_future(self.service._serve())
        self._serving.add_done_callback(_told_elsewhere)

    def stop(self) -> None:
        """It has stopped: who calls this has waited for that."""


def _told_elsewhere(task: asyncio.Task[None]) -> None:
    """A failure crashes the app before it ends the task."""
    if not task.cancelled():
        task.exception()


class GroupClient(driver.AIOKafkaConsumerThread):
    """Opens the group's consumer from `[kafka]`, reading committed records only."""

    logger = SERVICES
    Worker = _OnLoop
    _learning: asyncio.Task[None] | None = None

    async def _gather_remaining_tasks(self) -> None:
        """Those of the loop are not ours alone."""

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        app = cast("BatchApp", self.app)
        self._assignor = assignor = cast(Together, app.assignor)
        consumer = AIOKafkaConsumer(
            **app.kafka.member(), group_id=app.conf.id, partition_assignment_strategy=[assignor]
        )
        assignor.on_unknown = lambda topics: self._learn(consumer, topics)
        return consumer

    def _learn(self, consumer: AIOKafkaConsumer, topics: set[str]) -> None:
        if self._learning is None or self._learning.done():
            self._learning = asyncio.ensure_future(learn(consumer._client, topics))

    async def on_thread_stop(self) -> None:
        if self._learning is not None:
            self._learning.cancel()
        await super(driver.AIOKafkaConsumerThread, self).on_thread_stop()
        if self._consumer is not None:
            await stop(self._consumer)

    async def getmany(self, active_partitions: Set[TP] | None, timeout: float) -> Any:
        if not self.consumer.flow_active:
            return {}
        return await batches_of(self._ensure_consumer(), active_partitions or set(), timeout)

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """False where the group has moved on: the new owner reads those events again, and its rows skip them.

        Faust tells this case by words that aiokafka breaks over two lines, and so crashes on it.
        """
        owned, notes = self.assignment(), cast("BatchConsumer", self.consumer).committing
        ours = {
            TopicPartition(*tp): OffsetAndMetadata(o, note(notes.get(tp), o))
            for tp, o in offsets.items()
            if tp in owned
        }
        try:
            await self._ensure_consumer().commit(ours)
        except (CommitFailedError, IllegalStateError) as error:
            self.log.warning("not committed, the group has moved on: %s", type(error).__name__)
            return False
        except Exception as error:
            self.log.exception("committing failed")
            await self.crash(gave_up("committing", error) if isinstance(error, KafkaError) else error)
            return False
        now = monotonic()
        self.tp_last_committed_at.update(dict.fromkeys(offsets, now))
        return True
