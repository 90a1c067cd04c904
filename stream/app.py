"""The topology on one page: topics, tables, agent, followers, and the tasks around them.

    input topics, requests --agent--> windows, trends (tables) --users who wait--> recommender --> recommendations
    catalog, users, release, other partitions' trends --followers--> serving --^

With roles apart, what lies before the recommender is one worker (`stream.intake`) and hands over by a topic, what
lies behind it another (`stream.outlet`):

    ... windows --users who wait--> handover --> interests --agent--> desk --users who wait--> recommender ...

Nothing is decided here, and nothing else imports this module but the worker that runs it.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP

from stream.errors import EddylineError, StateError
from stream.events import InputConfig
from stream.ingest import Reading
from stream.intake import Intake
from stream.kafka.assignment import Together
from stream.kafka.clients import KafkaConfig
from stream.kafka.follow import Follower
from stream.kafka.tables import raw_topic
from stream.kafka.topics import topic_partitions
from stream.kafka.transport import BatchApp, BatchConsumer, Keeper
from stream.lists.desk import Desk
from stream.lists.handover import Handover
from stream.lists.interests import Source
from stream.lists.recommend import Recommender
from stream.outlet import Outlet
from stream.process.health import Health
from stream.process.monitor import Monitor
from stream.rekey import Rekeying
from stream.settings import Settings
from stream.state import State
from stream.trends import Trends

if TYPE_CHECKING:
    from stream.past import Unread

log = logging.getLogger(__name__)

ALIVE_S = 0.2
"""How often the group is told that this worker is there."""


class _Read:
    """What the consumer, once there is one, knows of how far partitions were read (`stream.answers.debts.Reach`)."""

    def __init__(self, consumer: Callable[[], BatchConsumer]) -> None:
        self._consumer = consumer

    def behind(self, tp: TP, applied: int | None) -> int | None:
        return self._consumer().behind(tp, applied)

    def reread(self, tp: TP, applied: int | None) -> bool:
        return self._consumer().reread(tp, applied)

    def committed(self, tp: TP) -> int:
        return self._consumer().committed.get(tp, 0)


class Pipeline:
    """One worker's parts, wired. By its role it has both halves, or one of them and what takes the other's place.

    Args:
        partitions: the partition count of inputs and changelogs.
        reading: what of the topics is read, where it is not all of them for ever.
        past: what is read before what the brokers have.
        written: the topics that are re-keyed into what `settings` has for input; None where they are read as they are.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        reading: Reading | None = None,
        past: Unread | None = None,
        written: InputConfig | None = None,
    ) -> None:
        topics, name = settings.topics, settings.state.name
        self.settings = settings
        self._reading = reading or Reading()
        self.partitions = partitions
        self.monitor = Monitor()
        self.trends = Trends(settings.trends)
        self.producer = AIOKafkaProducer(**settings.kafka.producer())
        self.health = Health(settings.health, settings.kafka, self._expected)
        self._trends_topic = topics.trends(name)
        self._followers = {self._trends_topic: Follower(settings.kafka, self._on_trends)}

        self.intake = None if settings.role == "recommend" else self._intake()
        if self.intake is not None:
            self.keeper: State | Desk = self.intake.state
            self.source: Source = self.intake.rows
            asked = [topics.requests] if self._reading.requests else []
            self._inputs, agent = [*settings.input.names, *asked], self.intake.ingest.agent
        else:
            self.keeper = self.source = desk = Desk(settings.state.settle_timeout_s, self.monitor, self._wake)
            self._inputs, agent = [topics.interests(name)], desk.agent
        self.rekeying = (
            Rekeying(settings.kafka, topics, written, partitions, self.intake.letters)
            if self.intake is not None and written is not None
            else None
        )
        self.outlet = None if settings.role == "ingest" else self._outlet()
        self._answering: Recommender | Handover = (
            self.outlet.recommender
            if self.outlet is not None
            else Handover(self.source, self.producer, topics.interests(name), self.monitor)
        )
        self.app = faust_app(settings, self._inputs, partitions, self.keeper, agent)
        self.app.past = past
        self._tie()
        self._tasks: list[asyncio.Task] = []
        self._failure: EddylineError | None = None

    def _intake(self) -> Intake:
        """From events to the users who wait."""
        intake = Intake(
            self.settings,
            self.trends,
            self.monitor,
            _Read(lambda: self._consumer),
            lambda: self.restored,
            self._wake,
            self._reading,
        )
        self._followers[self.settings.topics.control] = Follower(self.settings.kafka, intake.on_control)
        return intake

    def _outlet(self) -> Outlet:
        """From the users who wait to lists."""
        kafka, topics = self.settings.kafka, self.settings.topics
        outlet = Outlet(self.settings, self.source, self.trends, self.producer, self.monitor, self._reading.into)
        self._followers[topics.catalog] = Follower(kafka, outlet.serving.on_catalog)
        self._followers[topics.users] = Follower(kafka, outlet.people.on_users)
        self._followers[topics.release] = Follower(kafka, outlet.serving.on_release)
        if outlet.reactions is not None:
            self._followers[topics.feedback] = Follower(kafka, outlet.reactions.on_feedback, outlet.reacted_since)
        return outlet

    def _tie(self) -> None:
        """What one part is told of another."""
        self.keeper.on_owned, self.app.on_gone = self._on_owned, self._on_gone
        if self.intake is not None:
            self.intake.state.bind(self.app)
            self.intake.state.on_fenced = lambda: self._consumer.rejoin()
            if self.outlet is not None:
                self.intake.state.on_left = self.outlet.on_left
                self.intake.debts.hurry = self.outlet.recommender.hurry

    def _on_gone(self, gone: Mapping[TP, tuple[int, int]]) -> None:
        """Brokers have deleted what was not read yet, from one offset up to the other.

        Raises:
            StateError: all of it is wanted.
        """
        count = sum(after - at for at, after in gone.values())
        where = ", ".join(f"{tp.topic}/{tp.partition}: {at} to {after - 1}" for tp, (at, after) in sorted(gone.items()))
        what = f"{count} offsets were deleted by their topics' retention before they were read ({where})"
        if self._reading.whole:
            raise StateError(what, "read on without them: --allow-gap; or begin another version later (--since)")
        self.monitor.gone += count
        log.error(
            "%s: state %s goes on without them. Where they are kept elsewhere, `eddyline backfill --archive` makes a "
            "state that has them; for the next time, lengthen the topics' retention.ms",
            *(what, self.settings.state.name),
        )

    def _wake(self) -> None:
        """Someone waits."""
        self._answering.wake()

    async def start(self) -> None:
        """Start everything that runs beside Faust. The app itself is started by the worker."""
        await self.producer.start()
        followed = self._followers.keys() - {self._trends_topic}
        there = await topic_partitions(self.settings.kafka, followed)
        for topic in followed:
            self._followers[topic].follow(tp for tp in there if tp.topic == topic)
        if self.intake is None:
            self._on_owned(set())  # all trends are others'
        tasks: list[Coroutine[Any, Any, None]] = [follower.run() for follower in self._followers.values()]
        tasks += [self.health.run(), self._stay_a_member(), self._answering.run()]
        if self.intake is not None:
            await self.intake.start()
            tasks.append(self.intake.tend(self._followers[self.settings.topics.control].caught_up, self.commit))
        if self.rekeying is not None:
            tasks.append(self.rekeying.run())
        if self.outlet is not None:
            topics = self.settings.topics
            begun = [topics.catalog, topics.users, topics.release]
            begun += [topics.feedback] if self.outlet.reactions is not None else []
            tasks += self.outlet.tasks([self._followers[t].caught_up for t in begun])
        for task in tasks:
            self._tasks.append(asyncio.ensure_future(self._watched(task)))

    async def warm(self) -> None:
        """Return when joining makes nobody wait: lists can be made, or there is no catalogue to make any from."""
        if self.outlet is not None:
            await self.outlet.serving.tried.wait()

    @property
    def ready(self) -> bool:
        """Restored, and with a catalogue and an index where lists are made: events are being answered."""
        return self.restored and (self.outlet is None or self.outlet.serving.ready.is_set())

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
        return self.app.committed(*tp)

    def _expected(self) -> dict[TP, int]:
        """What progress is measured by; nothing is expected of a worker that is not ready, waits for what others run,
        or is beyond its stop.
        """
        if not self.ready or (self.intake is not None and self.intake.ingest.awaiting):
            return {}
        inputs = {TP(topic, p) for topic in self._inputs for p in self.keeper.owned}
        return {tp: self.committed(tp) for tp in inputs - self.keeper.unread()}

    def describe(self) -> str:
        """One line for a person."""
        parts = [f"state {self.settings.state.name}", f"partitions {sorted(self.keeper.owned)}"]
        if self.intake is not None:
            parts.append(f"{len(self.intake.state.columns)} users")
        if self.outlet is not None:
            served = self.outlet.serving.current
            parts.append(f"{len(served.catalog)} items, model {served.name}")
        return ", ".join(parts)

    def status(self) -> dict[str, Any]:
        """What is to be known from outside, as JSON-able values."""
        progress = self.keeper.progress
        return {
            "ready": self.ready,
            "role": self.settings.role,
            "state": self.settings.state.name,
            "partitions": sorted(self.keeper.owned),
            "restore": self.app.restoring.status() if self.app.in_recovery else None,
            "waiting": progress.waiting,
            "conflated": progress.conflated,
            "owed": progress.backlog + (self.outlet.recommender.pace.deferred if self.outlet is not None else 0),
            "stalled": self.health.reason,
            **(self.intake.status() if self.intake is not None else {}),
            **(self.outlet.status() if self.outlet is not None else {}),
            **(self.rekeying.status() if self.rekeying is not None else {}),
            **self.monitor.snapshot(),
        }

    async def drain(self) -> None:
        """Stop taking events in; answer, flush and commit what was taken in. Bounded by the state's settle timeout."""
        consumer = self._consumer
        consumer.stop_flow()
        self.app.flow_control.suspend()
        if self.outlet is None or self.outlet.serving.ready.is_set():
            await self.keeper.settle()
        await self.commit()

    async def commit(self) -> None:
        """Flush and commit what can be, now rather than at the next interval."""
        await self._consumer.maybe_wait_for_commit_to_finish()
        await self._consumer.commit()

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.keeper.close()
        await self.producer.stop()
        if self.intake is not None:
            await self.intake.stop()
        if self.outlet is not None:
            self.outlet.stop()

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

    async def _stay_a_member(self) -> None:
        """However long nothing is fetched, for ever."""
        while True:
            self._consumer.alive()
            await asyncio.sleep(ALIVE_S)

    def _on_trends(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Counts of partitions that other workers own."""
        if self.intake is None or tp.partition not in self.keeper.owned:
            self.trends[tp.partition].restore({record.key: record.value for record in records})
            self.trends.changed()

    def _on_owned(self, owned: set[int]) -> None:
        """Our own trends are restored by Faust; where lists are made, those of the other partitions are followed."""
        if self.intake is not None:
            self.intake.claimed()
        if self.outlet is not None:
            self.outlet.on_owned(set(range(self.partitions)) - owned)
            others = set(range(self.partitions)) - (owned if self.intake is not None else set())
            self._followers[self._trends_topic].follow(TopicPartition(self._trends_topic, p) for p in others)


def faust_app(
    settings: Settings,
    inputs: Sequence[str],
    partitions: int,
    keeper: Keeper,
    agent: Callable[[Any], Coroutine[Any, Any, None]],
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
    channel = raw_topic(app, *inputs)

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
