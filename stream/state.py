"""The state of one worker: windows and trends of the partitions it owns, and what of them is durable.

Faust restores both tables from their changelogs and tells which partitions are ours; this module is
the `Keeper` that Faust's consumer asks before it commits. The order is: flush in the partition's
transaction, then commit the input offsets whose events are answered. What a batch does to a window is
in `stream.windows.window`; how lists are made is in `stream.lists.recommend`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence, Set
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from stream.answers.progress import Progress
from stream.answers.settling import Settling
from stream.kafka.batches import Record, plain
from stream.kafka.changelog import Changelog, Fenced
from stream.kafka.debts import Note
from stream.process.memory import Spent, give_back
from stream.trends import Trends, merged
from stream.windows.columns import Columns
from stream.windows.leaving import Leaving
from stream.windows.packing import pack, unpack

if TYPE_CHECKING:  # whoever only reads settings should not wait for Faust
    from faust.types import TP

    from stream.kafka.tables import Put
    from stream.kafka.transport import BatchApp

log = logging.getLogger(__name__)


class StateConfig(BaseModel):
    """One version of the state: its name is part of its consumer group, changelogs and transactional ids."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="v1", pattern=r"^[A-Za-z0-9_-]{1,40}$")
    history: int = Field(default=128, ge=96, le=4096, description="interactions kept per user")
    seen_cap: int = Field(default=2048, ge=0, le=65536, description="items remembered beyond the history")
    history_ttl_ms: int | None = Field(
        default=None, ge=60_000, description="users idle for so long by event time leave; none: they stay"
    )
    allowed_lateness_ms: int = Field(
        default=3_600_000, ge=0, description="how much later than newer ones an event may come, before users leave"
    )
    window_ttl_ms: int | None = Field(
        default=None, ge=1, description="how much older than the newest an interaction of the short window may be"
    )
    max_users: int | None = Field(
        default=None, ge=1, description="users kept in a partition; beyond it those idle longest leave"
    )
    commit_interval_s: float = Field(
        default=3.0, gt=0, description="how often rows are made durable and offsets committed; a crash repeats so much"
    )
    settle_timeout_s: float = Field(default=5.0, gt=0, description="how long a rebalance or stop waits for answers")


class State(Settling):
    """Windows, trends and progress of the owned partitions; implements `stream.kafka.transport.Keeper`."""

    def __init__(
        self,
        config: StateConfig,
        inputs: Sequence[str],
        trends: Trends,
        changelog: Changelog,
        windows_topic: str,
        trends_topic: str,
    ) -> None:
        self.config = config
        self.columns = Columns(
            inputs, config.history, config.seen_cap, config.history_ttl_ms, config.allowed_lateness_ms
        )
        self.leaving = Leaving(config.max_users)
        self.trends = trends
        super().__init__(Progress(), config.settle_timeout_s)
        self.owned: set[int] = set()
        self._held: set[int] = set()  # partitions whose rows are in memory, as their changelogs say or newer
        self._abandoned = False
        self._spent, self._written = Spent(time.monotonic), 0
        self._writing = asyncio.Lock()  # a flush that outlived a claim would give up what has just been claimed
        self.on_owned: Callable[[set[int]], None] = lambda owned: None
        self.on_fenced: Callable[[], None] = lambda: None
        self.on_left: Callable[[int, list[str]], None] = lambda partition, users: None
        self.debts_of: Callable[[set[int]], Awaitable[dict[TP, int]]] = _no_debts
        self.noting: Callable[[dict[TP, int]], dict[TP, Note]] = _owed
        self.unread: Callable[[], Set[TP]] = frozenset
        self._changelog = changelog
        self._windows_topic = windows_topic
        self._trends_topic = trends_topic
        self._app: BatchApp | None = None

    def bind(self, app: BatchApp) -> None:
        """Declare the two tables on the app: Faust restores them, and their changelogs are assigned with the inputs."""
        self._app = app
        app.restore("windows", self._windows_topic, self._or_abandon(self._restore_windows))
        app.restore("trends", self._trends_topic, self._or_abandon(self._restore_trends))

    # Keeper

    def committable(self) -> dict[TP, int]:
        return self.progress.committable()

    def notes(self) -> dict[TP, Note]:
        return self.noting(self.progress.owed())

    async def flush(self) -> set[int]:
        """Write every touched row and count of the owned partitions, each partition in one transaction."""
        async with self._writing:
            partitions = sorted(self.owned)
            try:
                fenced = await asyncio.gather(*map(self._flush_partition, partitions))
            except BaseException:
                # Failed or cancelled: which rows were written is not known, and they are marked clean.
                self.abandon()
                raise
            if any(fenced):
                self._give_up({partition for partition, gone in zip(partitions, fenced, strict=True) if gone})
                # Whoever claimed them may be no owner: a worker that was frozen while it claimed, and goes on.
                self.on_fenced()
        if self._spent.add(self._written):
            await asyncio.to_thread(give_back)
        self._written = 0
        return self.owned & set(partitions)

    async def claim(self, assigned: set[TP]) -> None:
        async with self._writing:
            owned = {tp.partition for tp in assigned} if not self._abandoned else set()
            # All are claimed anew: another worker may have had one while this one was frozen.
            await self._changelog.close()
            await self._changelog.own(owned)
            for partition in owned ^ self._held:
                self._drop(partition)
        for tp, first in (await self.debts_of(owned)).items():
            self.progress.owe(tp, first)
        self.owned, self._held = owned, set(owned)
        self.on_owned(owned)

    async def release(self, revoked: set[TP]) -> None:
        partitions = {tp.partition for tp in revoked}
        self._give_up({p for p in partitions if self._dirty(p)})
        self.owned -= partitions
        self.progress.forget(partitions)

    async def close(self) -> None:
        await self._changelog.close()

    def abandon(self) -> None:
        """The rows are not to be trusted: flush and commit nothing more. What is durable stays as it was."""
        self._abandoned = True
        self.owned = set()

    async def _flush_partition(self, partition: int) -> bool:
        """Whether the partition has a new owner. Rows and counts are copied in one step and clean from then on: what is
        touched while they are written is dirty.
        """
        rows = self.columns.dirty_rows(partition)
        trends = self.trends[partition]
        gone = self._let_go(partition)
        if not len(rows) and not trends.dirty and not gone:
            return False
        packed = pack(self.columns, rows)
        counts = trends.flush()
        self.columns.dirty[rows] = False
        while crowded := trends.crowded():
            counts |= trends.replace(crowded, await asyncio.to_thread(merged, trends.parts(crowded)))
        windows = chain(plain(gone, repeat(None)), self._records(packed))
        try:
            await self._changelog.write(
                partition, {self._windows_topic: windows, self._trends_topic: plain(counts, counts.values())}
            )
        except Fenced as error:
            log.warning("%s: its rows are dropped, and its events left to the new owner", error)
            return True
        return False

    def _records(self, packed: Iterable[tuple[bytes, bytes]]) -> Iterator[Record]:
        """Each row is packed when it is written: many small objects that live together tear holes into memory."""
        for user, row in packed:
            self._written += len(row)
            yield user, row, None, None

    def _let_go(self, partition: int) -> list[bytes]:
        """Users whose rows leave with this flush: their tombstones are written before offsets are committed again."""
        if self._app is None or (self.columns.idle_ms is None and self.config.max_users is None):
            return []
        committed = [self._app.committed(topic, partition) for topic in self.columns.topics]
        rows = self.leaving.pick(self.columns, partition, np.array(committed, np.int64))
        names = self.columns.encoded(rows)
        self.columns.drop(rows)
        if names:
            self.on_left(partition, [name.decode() for name in names])
        return names

    def _give_up(self, partitions: set[int]) -> None:
        """Partitions whose rows are not what their changelog says: restored from its beginning, if they come back."""
        for partition in partitions:
            self._drop(partition)
        self.owned -= partitions
        self._held -= partitions
        self.progress.forget(partitions)

    def _dirty(self, partition: int) -> bool:
        return bool(len(self.columns.dirty_rows(partition))) or self.trends[partition].dirty

    def _drop(self, partition: int) -> None:
        """Forget a partition, in Faust's memory too, so that a restore begins at its beginning."""
        self.columns.drop_partition(partition)
        self.trends.drop(partition)
        if self._app is not None:
            self._app.restore_anew(partition)

    def _or_abandon(self, restore: Put) -> Put:
        """`restore`, after whose failure nothing is written: rows are missing, and the process is about to stop."""

        def guarded(partition: int, records: Sequence[Any]) -> None:
            try:
                restore(partition, records)
            except Exception:
                self.abandon()
                raise

        return guarded

    def _restore_windows(self, partition: int, records: Sequence[Any]) -> None:
        last: dict[bytes, bytes | None] = {record.key: record.value for record in records}
        unpack(self.columns, partition, {key: row for key, row in last.items() if row is not None})
        gone = [self.columns.row(partition, key.decode()) for key, row in last.items() if row is None]
        self.columns.drop(np.array([row for row in gone if row is not None], np.int64))

    def _restore_trends(self, partition: int, records: Sequence[Any]) -> None:
        self.trends[partition].restore({record.key: record.value for record in records})
        self.trends.changed()


def _owed(first: dict[TP, int]) -> dict[TP, Note]:
    return {tp: Note(offset) for tp, offset in first.items()}


async def _no_debts(owned: set[int]) -> dict[TP, int]:
    return {}
