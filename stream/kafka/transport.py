"""Faust's Kafka transport with two differences: a fetched batch is one message, and commits are ours.

Faust keeps what it is good at: group membership, assignment, agents, tables, recovery. What its
source shows to be unsafe for state is replaced here:

- `getmany` yields one message per fetched partition batch; its value is the list of records.
- Commits are never derived from acks: the `Keeper` says what is flushed and answered, and only that is committed.
- Partitions are claimed before they are restored, and settled before they are given up.
- Input partitions are fetched only once all are restored and sought.
- Committed records only; the end of a restore is a position, because a transaction's marker is no record.
- Topics that belong together are assigned together (`stream.kafka.assignment`).
- The group's consumer is on the event loop (`stream.kafka.group`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence, Set
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol, cast

import faust
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream.kafka.assignment import check_together
from stream.kafka.clients import KafkaConfig
from stream.kafka.debts import Note
from stream.kafka.group import GroupClient
from stream.kafka.tables import SERVICES, Put, Restoring, restored

if TYPE_CHECKING:
    from stream.events import Chunk
    from stream.past import Unread

FETCH_WAIT_S = 0.2
"""How long a fetch waits for records, and so at most a rebalance for a fetch."""


class Keeper(Protocol):
    """Who knows what may be committed."""

    def committable(self) -> dict[TP, int]:
        """Next offsets of input partitions whose events are applied and answered."""
        ...

    def notes(self) -> dict[TP, Note]:
        """What stands beside what is committed: from which offset on lists are held back."""
        ...

    def unread(self) -> Set[TP]:
        """Input partitions that are not to be fetched just now."""
        ...

    async def flush(self) -> set[int]:
        """Make all that has been applied durable; returns the partitions of which it now is."""
        ...

    async def settle(self) -> None:
        """Wait, bounded, until what has been applied is answered."""
        ...

    async def claim(self, assigned: set[TP]) -> None:
        """These partitions are ours from now on; called before they are restored."""
        ...

    async def release(self, revoked: set[TP]) -> None:
        """These partitions are no longer ours; called after a last flush and commit."""
        ...


class BatchConsumer(driver.Consumer):
    """Faust's consumer, a whole fetched partition batch at a time."""

    logger = SERVICES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._no_fetch = asyncio.Event()
        self._no_fetch.set()
        self._ends: dict[TP, tuple[int, int]] = {}  # as of the last fetch: our position, and the log's end
        self._first_ends: dict[TP, int] = {}  # the log's end as of the first fetch of a partition that became ours
        self._fetched: dict[TP, int] = {}
        self.committing: Mapping[TP, Note] = {}
        self._noted: Mapping[TP, Note] = {}
        self._sought: int | None = None  # the generation whose input partitions were put where they are to be read from
        # What the group has. Faust's own note is of what was tried.
        self.committed: dict[TP, int] = {}
        self._begun: set[TP] = set()  # of which it has anything: it may be 0

    def _new_consumer_thread(self) -> GroupClient:
        return GroupClient(self, loop=self.loop, thread_loop=self.loop, beacon=self.beacon)

    @property
    def _keeper(self) -> Keeper:
        return cast(BatchApp, self.app).keeper

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        changelogs, generation = self.app.tables.changelog_topics, self.app.consumer_generation_id
        active = set(self._get_active_partitions())
        if self._sought != generation:
            active = {tp for tp in active if tp.topic in changelogs}
        active -= self._keeper.unread()
        if not active:  # to aiokafka, none would mean all
            await self.sleep(FETCH_WAIT_S)
            return
        if (past := cast(BatchApp, self.app).past) is not None and (waiting := past.of(active)):
            async for tp, chunk in self._from_past(past, waiting, generation):
                yield tp, self._batch_message(tp, chunk, int(chunk.offsets[-1]))
            return
        self._no_fetch.clear()
        try:
            records = await self._getmany(active, FETCH_WAIT_S)
        finally:
            self._no_fetch.set()
        if self.should_stop or not self.flow_active:
            return
        self._measure(active, records)
        for tp, batch in records.items():
            if self.app.consumer_generation_id != generation or not self.flow_active:
                return
            if batch:
                end = max(batch[-1].offset, self._read_to(tp) if tp.topic in changelogs else 0)
                yield tp, self._batch_message(tp, batch, end)
        if self.app.in_recovery:
            for message in self._markers(changelogs, active, set(records)):
                yield message.tp, message

    async def _from_past(self, past: Unread, waiting: Sequence[TP], generation: int) -> AsyncIterator[tuple[TP, Chunk]]:
        """The next of what was in these partitions before the brokers' earliest."""
        for tp in waiting:
            self._no_fetch.clear()
            try:
                chunk = await asyncio.to_thread(past.chunk, tp)
            finally:
                self._no_fetch.set()
            if self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation:
                return
            past.took(tp, chunk)
            if chunk is not None:
                yield tp, chunk

    def _markers(self, changelogs: set[str], active: set[TP], told: set[TP]) -> Iterable[Any]:
        """Empty messages for changelog partitions that were read to where only transaction markers are.

        Recovery waits for the offset before the log's end, which may be a marker's, and a marker is never
        delivered: without these it would wait for ever.
        """
        for tp in active:
            if tp.topic not in changelogs or tp in told:
                continue
            end = self._read_to(tp)
            if end > (self._read_offset[tp] or -1):
                yield self._batch_message(tp, [], end)

    def _batch_message(self, tp: TP, records: Sequence[Any], end: int) -> Any:
        """One Faust message for records of a partition; its offset is `end`."""
        message: Any = self._to_message(tp, _Batch(tp.topic, tp.partition, end))
        message.value = records
        return message

    def _read_to(self, tp: TP) -> int:
        """The offset before the fetch position, or -1."""
        state = self._partition(tp)
        return state.position - 1 if state is not None and state.has_valid_position else -1

    def alive(self) -> None:
        """Tell aiokafka that it is on purpose if nothing is fetched: without a fetch in `max_poll_interval_ms` it would
        leave the group, and not come back before the next one. To be called while the event loop turns.
        """
        consumer = self._thread._consumer
        if consumer is not None:
            consumer._subscription._last_fetch_ended = monotonic()

    def rejoin(self) -> None:
        """Ask the group anew what is ours: another worker wrote, or claimed, what the group says is ours."""
        consumer, loop = self._thread._consumer, self._thread.thread_loop
        if consumer is not None and loop is not None:
            loop.call_soon_threadsafe(cast(Any, consumer._coordinator).request_rejoin)

    def _partition(self, tp: TP) -> Any:
        assignment: Any = self._thread._ensure_consumer()._subscription.subscription
        return assignment.assignment.state_value(tp) if assignment and assignment.assignment else None

    def _measure(self, active: set[TP], records: Mapping[TP, Sequence[Any]]) -> None:
        for tp in active:
            if records.get(tp):
                self._fetched[tp] = records[tp][-1].offset
            state = self._partition(tp)
            if state is not None and state.has_valid_position and state.lso is not None:
                self._ends[tp] = state.position, state.lso
                self._first_ends.setdefault(tp, state.lso)

    def behind(self, tp: TP, applied: int | None) -> int | None:
        """How many offsets lie between `applied`, the next offset to be applied (None: not known), and the end of what
        can be read, as of the last fetch. None where none has told yet.
        """
        if tp not in self._ends:
            return None
        position, end = self._ends[tp]
        fetched = self._fetched.get(tp, -1)
        if applied is None:
            return end - position if fetched < 0 else None
        # The log may go on with a transaction's markers, which are offsets and never applied.
        return max(0, end - (position if applied > fetched else applied))

    def reread(self, tp: TP, applied: int | None) -> bool:
        """Whether all is applied that was there when the partition became ours; `applied` as in `behind`."""
        left = self.behind(tp, applied)
        return left is not None and self._ends[tp][1] - left >= self._first_ends[tp]

    async def perform_seek(self) -> None:
        """Put input partitions where they are to be read from; none is fetched before Faust resumes the flow after it.

        Faust seeks them one by one while they are fetched already, and then empties its queues: a batch that came in
        between would be gone, and its partition read on behind it.
        """
        generation = self.app.consumer_generation_id
        self.stop_flow()
        await self._no_fetch.wait()
        await super().perform_seek()
        await self._skip_what_is_gone()
        if (past := cast(BatchApp, self.app).past) is not None:
            for tp, join in past.begin(self.committed).items():
                await self._seek(tp, join)  # not `seek`: Faust then takes what comes before for read
        self._sought = generation

    async def _skip_what_is_gone(self) -> None:
        """Tell of offsets that the broker has deleted before the group has read them, and commit the ones behind: Kafka
        begins there without a word.
        """
        app = cast(BatchApp, self.app)
        read = {tp: at for tp, at in self.committed.items() if tp in self._begun}
        if not read:
            return
        first = {TP(*tp): at for tp, at in (await self.earliest_offsets(*read)).items()}
        gone = {tp: (at, first[tp]) for tp, at in read.items() if at < first[tp]}
        if app.past is not None:
            gone = {tp: span for tp, span in gone.items() if span[0] >= app.past.joins.get(tp, 0)}
        if not gone:
            return
        try:
            app.on_gone(gone)
        except Exception as error:
            await self.crash(error)
            raise
        self.committing, onward = self._keeper.notes(), {tp: after for tp, (_, after) in gone.items()}
        if await self._commit_offsets(onward):
            self.committed.update(onward)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Offsets between batches are no gaps: a batch is one message, and markers are no records."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what is applied, flushed, and answered or owed.

        1. Snapshot the offsets whose whole batches are applied and answered, and what is noted beside them.
        2. Flush every row that was touched: those batches' rows are among them.
        3. Commit the snapshot: a crash before this costs a repeat, which rows then skip.
        """
        offsets, notes = self._keeper.committable(), self._keeper.notes()
        durable = await self._keeper.flush()
        news = {tp for tp in notes.keys() | self._noted.keys() if notes.get(tp) != self._noted.get(tp)}
        known = {
            tp: at for tp in news if (at := self.committed.get(tp)) or (at == 0 and tp in notes and notes[tp].turn)
        }
        ours = {
            tp: offset
            for tp, offset in (known | offsets).items()
            if tp.partition in durable and (tp in news or self._should_commit(tp, offset))
        }
        if not ours:
            return False
        self.committing = notes
        if not await self._commit_offsets(ours):
            return False
        kept = {tp: said for tp, said in self._noted.items() if tp not in ours}
        self._noted = kept | {tp: notes[tp] for tp in ours if tp in notes}
        self.committed.update(ours)
        return True

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets = await super().seek_to_committed()
        self.committed = {TP(*tp): offset or 0 for tp, offset in offsets.items()}
        self._begun = {TP(*tp) for tp, offset in offsets.items() if offset is not None}
        return offsets

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Finish what was begun, flush and commit it, and only then let go."""
        self.stop_flow()
        await self._keeper.settle()
        await self.maybe_wait_for_commit_to_finish()
        await self.commit()
        await super().on_partitions_revoked(revoked)
        await self._keeper.release(revoked)

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Claim partitions before Faust restores them."""
        self.stop_flow()
        self._sought = None
        try:
            # A fetch that is under way is dropped. It must end before anyone seeks: what it took from where a seek had
            # put the position would be lost, and a changelog that was never read would pass for a restored one.
            await asyncio.wait_for(self._no_fetch.wait(), 10 * FETCH_WAIT_S + self.app.conf.broker_request_timeout)
            check_together(assigned, self.app.tables.changelog_topics)
            self._ends.clear()
            self._first_ends.clear()
            self._fetched.clear()
            await self._keeper.claim(assigned)
            self._noted = self._keeper.notes()
        except Exception as error:
            await self.crash(error)
            raise
        await super().on_partitions_assigned(assigned, generation_id)


class BatchTransport(driver.Transport):
    """Faust's transport, with our consumer."""

    Consumer = BatchConsumer


class BatchApp(faust.App):
    """A Faust app that consumes batches, opens its clients from `[kafka]`, and asks a keeper what to commit."""

    logger = SERVICES

    kafka: KafkaConfig
    keeper: Keeper

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.restoring = Restoring()
        self.past: Unread | None = None
        self.on_gone: Callable[[Mapping[TP, tuple[int, int]]], None] = lambda _: None

    def restore(self, name: str, changelog: str, put: Put) -> None:
        """Hand the records of a changelog to `put` whenever one of its partitions becomes ours."""
        restored(self, name, changelog, put, self.restoring)

    def committed(self, topic: str, partition: int) -> int:
        """The offset below which the group will not read an input again, as far as is known for sure."""
        return cast(BatchConsumer, self.consumer).committed.get(TP(topic, partition), 0)

    def restore_anew(self, partition: int) -> None:
        """Forget how far a partition's changelogs were read: its next restore begins at their beginning."""
        for topic in self.tables.changelog_topics:
            cast(TableManager, self.tables).recovery.revoke(TP(topic, partition))

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self, loop=self.loop)


class _Batch:
    """What `_to_message` reads of a record, for many."""

    timestamp: int | None = None
    timestamp_type = 0
    headers: tuple[()] = ()
    key = None
    value = None
    checksum = None
    serialized_key_size = 0
    serialized_value_size = 0

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        self.topic, self.partition, self.offset = topic, partition, offset
