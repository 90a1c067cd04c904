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
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP

from model.encoder import TextEncoder
from stream.control import heard
from stream.debts import Debts
from stream.emission import Silence
from stream.errors import EddylineError
from stream.health import Health
from stream.ingest import Ingest
from stream.kafka.changelog import Changelog
from stream.kafka.clients import KafkaConfig
from stream.kafka.debts import debts
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

TEND_S = 0.2
"""How often it is asked whether a silence is over."""


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
        self.state.debts_of = self._debts_of
        self.silence = Silence(inputs, settings.emit.max_lag)
        self.debts = Debts(
            self.state,
            self.silence,
            {action: topic for action, topic in settings.input.topics.items() if settings.emit.speaks_on(action)},
            lambda tp, applied: self._consumer.behind(tp, applied),
            lambda: self.restored,
            lambda: self.recommender.wake(),
        )
        self.health = Health(settings.health, kafka, self._expected)
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
            settings.emit,
            self.state,
            self.debts,
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
            settings.emit,
            self.state,
            self.debts,
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
            topics.control: Follower(kafka, self._on_control),
            self._trends_topic: Follower(kafka, self.state.follow_trends),
        }
        self.app = faust_app(settings, partitions, self.state, self.ingest.agent)
        self.state.bind(self.app)
        self.state.on_owned = self._on_owned
        self._tasks: list[asyncio.Task] = []
        self._failure: EddylineError | None = None

    async def start(self) -> None:
        """Start everything that runs beside Faust. The app itself is started by the worker."""
        await asyncio.gather(self.producer.start(), self.letters.start())
        topics = self.settings.topics
        for topic in (topics.catalog, topics.release, topics.control):
            self._followers[topic].follow([TopicPartition(topic, 0)])
        caught_up = [self._followers[topic].caught_up for topic in (topics.catalog, topics.release)]
        tasks: list[Coroutine[Any, Any, None]] = [follower.run() for follower in self._followers.values()]
        tasks += [
            self.serving.run(lambda: all(event.is_set() for event in caught_up)),
            self.serving.refresh_trends(),
            self.recommender.run(),
            self.recommender.refresh_profiles(),
            self._tend(),
            self.health.run(),
        ]
        for task in tasks:
            self._tasks.append(asyncio.ensure_future(self._watched(task)))

    @property
    def ready(self) -> bool:
        """Restored, with a catalogue and an index: events are being answered."""
        return self.restored and self.serving.ready.is_set()

    @property
    def restored(self) -> bool:
        """The rows of our partitions are there."""
        return bool(self.app.tables.actives_ready) and not self.app.rebalancing

    @property
    def _consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self.app.consumer)

    @property
    def failure(self) -> BaseException | None:
        """Why the worker cannot go on."""
        return self._failure or self.app.crash_reason

    def committed(self, tp: TP) -> int:
        """The next offset that was committed for an input partition of ours; 0 where none was."""
        return self._consumer._committed_offset.get(tp) or 0

    def _inputs(self) -> list[TP]:
        """The input partitions that are ours."""
        return [TP(topic, p) for topic in self.settings.input.topics.values() for p in self.state.owned]

    def _expected(self) -> dict[TP, int]:
        """What progress is measured by; nothing is expected of a worker that is not ready."""
        return {tp: self.committed(tp) for tp in self._inputs()} if self.ready else {}

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
            "paused": bool(self.silence.paused),
            "silent": sorted(self.state.progress.quiet),
            "owed": self.state.progress.backlog + self.recommender.pace.deferred,
            "stalled": self.health.reason,
            "items": len(served.catalog) if served else 0,
            "model": served.name if served else None,
            **self.monitor.snapshot(),
        }

    async def drain(self) -> None:
        """Stop taking events in; answer, flush and commit what was taken in. Bounded by the state's settle timeout."""
        consumer = self._consumer
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
        except EddylineError as error:  # which says what is to be known, where Faust would say it at length
            self._failure = error
        except Exception as error:
            log.critical("%s failed", getattr(work, "__qualname__", work), exc_info=True)
            await self.app.crash(error)

    async def _debts_of(self, owned: set[int]) -> dict[TP, int]:
        """What former owners of these partitions left unanswered."""
        inputs = set(self.settings.input.topics.values())
        found = await debts(self.settings.kafka, self.settings.group)
        return {tp: first for tp, first in found.items() if tp.topic in inputs and tp.partition in owned}

    def _on_control(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        if (said := heard(records)) is not None and self.silence.paused != said.paused:
            if said.paused or self.silence.paused:
                log.warning(
                    "emission is %s", "paused: state advances, lists are held back" if said.paused else "resumed"
                )
            self.silence.paused = said.paused
            self.debts.tend(self._inputs())

    async def _tend(self) -> None:
        """Begin and end silences, and stay a member of the group however long nothing is fetched; for ever."""
        await self._followers[self.settings.topics.control].caught_up.wait()
        if self.silence.paused is None:  # nothing was ever said
            self.silence.paused = False
        while True:
            self.debts.tend(self._inputs())
            self._consumer.alive()
            await asyncio.sleep(TEND_S)

    def _on_owned(self, owned: set[int]) -> None:
        """Our own trends are restored by Faust; those of the other partitions are followed."""
        self.debts.claimed()
        if self.recommender.changes is not None:
            self.recommender.changes.forget()
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
        **_static(kafka),
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


def _static(kafka: KafkaConfig) -> dict[str, Any]:
    """Faust's assignor gives every member an address and asserts that it keeps it: that of a static member, whose host
    may change between two starts, is made of its name.
    """
    return {"canonical_url": f"http://{kafka.group_instance_id}:6066"} if kafka.group_instance_id else {}
