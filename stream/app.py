"""The topology on one page: topics, tables, agent, followers, and the tasks around them.

    input topics --agent--> windows, trends (tables) --waiting users--> recommender --> recommendations
    catalog, release, other partitions' trends --followers--> serving --^

Nothing is decided here, and nothing else imports this module but the worker that runs it.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP

from model.encoder import TextEncoder
from stream.ingest import Ingest
from stream.kafka.changelog import Changelog
from stream.kafka.follow import Follower
from stream.kafka.tables import raw_topic
from stream.kafka.transport import BatchApp, BatchConsumer, Keeper, Together
from stream.monitor import Monitor
from stream.recommend import Recommender
from stream.serving import Serving, leave_a_core, pick_device
from stream.settings import Settings
from stream.state import State
from stream.trends import Trends

log = logging.getLogger(__name__)


class Pipeline:
    """One worker's parts, wired.

    Args:
        partitions: the partition count of inputs and changelogs.
        silent_until: next offsets up to which state advances without lists.
    """

    def __init__(self, settings: Settings, partitions: int, silent_until: dict[TP, int] | None = None) -> None:
        kafka, topics, name = settings.kafka, settings.topics, settings.state.name
        self.settings = settings
        self.partitions = partitions
        self.monitor = Monitor()
        self.trends = Trends(settings.trends)
        inputs = list(settings.input.topics.values())
        self._trends_topic = topics.trends(name)
        self.state = State(
            settings.state,
            inputs,
            self.trends,
            Changelog(kafka, topics.named(name)),
            topics.windows(name),
            self._trends_topic,
        )
        device = pick_device(settings.recommend.device)
        self.serving = Serving(
            TextEncoder(settings.encoder.name, device, settings.cache),
            self.trends,
            device,
            topics.catalog,
            self.monitor,
            settings.recommend.shadow,
        )
        self.producer = AIOKafkaProducer(**kafka.producer())
        # Of its own, and not idempotent: a letter that is refused for its size must not fail those that follow.
        plain: dict[str, Any] = {**kafka.producer(), "enable_idempotence": False}
        self.letters = AIOKafkaProducer(**plain)
        self._device = ThreadPoolExecutor(1, "eddyline-device", leave_a_core)
        self.recommender = Recommender(
            settings.recommend,
            self.state,
            self.serving,
            self.producer,
            topics.recommendations,
            topics.shadow,
            self.monitor,
            self._device,
            lambda: int(time.time() * 1000),
        )
        self.ingest = Ingest(
            settings.input,
            self.state,
            self.letters,
            topics.dead_letters,
            settings.group,
            self.monitor,
            self.recommender.wake,
            silent_until,
        )
        self._followers = {
            topics.catalog: Follower(kafka, self.serving.on_catalog),
            topics.release: Follower(kafka, self.serving.on_release),
            self._trends_topic: Follower(kafka, self.state.follow_trends),
        }
        self.app = faust_app(settings, partitions, self.state, self.ingest.agent)
        self.state.bind(self.app)
        self.state.on_owned = self._on_owned
        self._tasks: list[asyncio.Task] = []

    async def start(self) -> None:
        """Start everything that runs beside Faust. The app itself is started by the worker."""
        await asyncio.gather(self.producer.start(), self.letters.start())
        topics = self.settings.topics
        for topic in (topics.catalog, topics.release):
            self._followers[topic].follow([TopicPartition(topic, 0)])
        caught_up = [self._followers[topic].caught_up for topic in (topics.catalog, topics.release)]
        tasks: list[Coroutine[Any, Any, None]] = [follower.run() for follower in self._followers.values()]
        tasks += [
            self.serving.run(lambda: all(event.is_set() for event in caught_up)),
            self.serving.refresh_trends(),
            self.recommender.run(),
            self.recommender.refresh_profiles(),
        ]
        for task in tasks:
            self._tasks.append(asyncio.ensure_future(self._watched(task)))

    @property
    def ready(self) -> bool:
        """Restored, with a catalogue and an index: events are being answered."""
        return self.app.tables.actives_ready and not self.app.rebalancing and self.serving.ready.is_set()

    def committed(self, tp: TP) -> int:
        """The next offset that was committed for an input partition of ours; 0 where none was."""
        return cast(BatchConsumer, self.app.consumer)._committed_offset.get(tp) or 0

    def describe(self) -> str:
        """One line for a person."""
        served = self.serving.current
        return (
            f"state {self.settings.state.name}, partitions {sorted(self.state.owned)}, "
            f"{len(self.state.columns)} users, {len(served.catalog)} items, model {served.name}"
        )

    def status(self) -> dict[str, Any]:
        """What is to be known from outside, as JSON-able values."""
        served = self.serving.current if self.serving.ready.is_set() else None
        return {
            "ready": self.ready,
            "state": self.settings.state.name,
            "partitions": sorted(self.state.owned),
            "users": len(self.state.columns),
            "state_bytes": self.state.columns.nbytes,
            "waiting": self.state.progress.waiting,
            "conflated": self.state.progress.conflated,
            "items": len(served.catalog) if served else 0,
            "model": served.name if served else None,
            **self.monitor.snapshot(),
        }

    async def drain(self) -> None:
        """Stop taking events in; answer, flush and commit what was taken in. Bounded by the state's settle timeout."""
        consumer = cast(BatchConsumer, self.app.consumer)
        consumer.stop_flow()
        self.app.flow_control.suspend()
        if self.serving.ready.is_set():
            await self.state.settle()
        await consumer.maybe_wait_for_commit_to_finish()
        await consumer.commit()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.state.close()
        await asyncio.gather(self.producer.stop(), self.letters.stop())
        self.serving.close()
        self._device.shutdown(wait=False, cancel_futures=True)

    async def _watched(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.critical("%s failed", getattr(work, "__qualname__", work), exc_info=True)
            await self.app.crash(error)

    def _on_owned(self, owned: set[int]) -> None:
        """Our own trends are restored by Faust; those of the other partitions are followed."""
        self.recommender.profiles.forget(set(range(self.partitions)) - owned)
        others = set(range(self.partitions)) - owned
        self._followers[self._trends_topic].follow(TopicPartition(self._trends_topic, p) for p in others)


def faust_app(
    settings: Settings, partitions: int, keeper: Keeper, agent: Callable[[Any], Coroutine[Any, Any, None]]
) -> BatchApp:
    """The Faust app: `stream.kafka.transport` decides what is fetched and committed, Faust the rest."""
    kafka = settings.kafka
    app = BatchApp(
        settings.group,
        broker=[f"kafka://{server.strip()}" for server in kafka.bootstrap_servers.split(",")],
        store="memory://",
        datadir=tempfile.gettempdir(),
        PartitionAssignor=Together,
        broker_commit_interval=settings.state.commit_interval_s,
        broker_request_timeout=kafka.request_timeout_ms / 1000,
        broker_session_timeout=kafka.session_timeout_ms / 1000,
        broker_heartbeat_interval=kafka.heartbeat_interval_ms / 1000,
        consumer_auto_offset_reset="earliest",
        # Both count batches here, not records.
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        stream_recovery_delay=0,
        stream_publish_on_commit=False,
        table_standby_replicas=0,
        topic_partitions=partitions,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
    )
    app.kafka, app.keeper = kafka, keeper
    channel = raw_topic(app, *settings.input.topics.values())

    async def ingest(stream: Any) -> None:
        # Faust restarts an agent that raises, and goes on past the batch: it must stop the process instead.
        try:
            await agent(stream)
        except Exception as error:
            log.critical("the ingest agent failed", exc_info=True)
            await app.crash(error)
            raise

    app.agent(channel, name="ingest", concurrency=1)(ingest)
    return app
