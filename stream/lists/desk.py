"""Users who were handed over by other workers, and wait here: the recommend side where it runs apart.

A message on `interests` brings rows; a user's newest row waits, by what it knows (`applied`) and not by when it
came, and older ones are dropped and counted. Nothing here is durable but the offsets of the topic: they are
committed when the lists behind them are acknowledged, so what was under way at a crash is read and answered
again, with the same names. Lists are made in `stream.lists.recommend`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from faust.types import TP

from model.history import Histories
from stream.answers.progress import Progress, Waiting
from stream.answers.settling import Settling
from stream.errors import StateError
from stream.lists.interests import Interests, Row, joined, unpack
from stream.process.monitor import Monitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from stream.answers.emission import Key
    from stream.kafka.debts import Note

log = logging.getLogger(__name__)

WAITING_HIGH = 20_000
"""Users who wait before messages are left in Kafka: their rows are 200 MB at most."""
REMEMBERED = 100_000
"""Users of whom it is remembered what the newest row knew."""
RECENT = 4096
"""Users whose rows are kept for a profile that may be due: 45 MB at most."""


class Desk(Settling):
    """Implements `stream.kafka.transport.Keeper` and `stream.lists.interests.Source`."""

    def __init__(self, settle_timeout_s: float, monitor: Monitor, wake: Callable[[], None]) -> None:
        super().__init__(Progress(), settle_timeout_s)
        self.owned: set[int] = set()
        self.on_owned: Callable[[set[int]], None] = lambda owned: None
        self._monitor = monitor
        self._wake = wake
        self._newest: OrderedDict[Key, Mapping[str, int]] = OrderedDict()
        self._recent: OrderedDict[Key, Row] = OrderedDict()

    # Messages in

    async def agent(self, stream: Any) -> None:
        """Faust's agent: one message is one fetched batch of one partition."""
        async for event in stream.events():
            tp = event.message.tp
            self.batch(TP(tp.topic, tp.partition), event.message.value)
            while self.progress.waiting > WAITING_HIGH:
                await asyncio.sleep(0.02)

    def batch(self, tp: TP, records: Sequence[Any]) -> None:
        """Let the users of these messages wait.

        Raises:
            StateError: a message that this version cannot read.
        """
        if tp.partition not in self.owned or not records:
            return
        arrived = time.monotonic()
        next_offset, users = records[-1].offset + 1, 0
        ticket = self.progress.applied(tp, next_offset, records[0].offset)
        for record in records:
            try:
                found = unpack(record.value or b"", arrived)
            except ValueError as error:
                raise StateError(
                    f"{tp.topic}, partition {tp.partition}, offset {record.offset}: {error}",
                    "run one version of eddyline on all workers, and let none but them write to this topic",
                ) from error
            users += len(found)
            for user, trigger in found:
                if trigger.request is not None:
                    self.progress.ask(ticket, tp.partition, user, trigger)
                    continue
                key = (tp.partition, user)
                if trigger.row is not None and self._is_news(key, trigger.row.applied):
                    self.progress.wait(ticket, tp.partition, user, trigger)
        self._wake()
        self._monitor.ingested(tp, users, 0, next_offset, time.monotonic() - arrived)

    def _is_news(self, key: Key, applied: Mapping[str, int]) -> bool:
        """Whether a row knows something that the newest one did not; an equal one may come again after a crash."""
        newest = self._newest.get(key)
        if newest is not None and is_older(applied, newest):
            self.progress.conflated += 1
            return False
        self._newest[key] = applied
        self._newest.move_to_end(key)
        if len(self._newest) > REMEMBERED:
            self._newest.popitem(last=False)
        return True

    # Source

    def interests(self, users: Sequence[Waiting], now: float) -> Interests | None:
        found = [(w, w.trigger.row) for w in users if w.trigger is not None and w.trigger.row is not None]
        if not found:
            return None
        for w, row in found:
            if len(row.interactions):  # one who asked may have none, and no profile to be made
                self._recent[w.key] = row
                self._recent.move_to_end(w.key)
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        rows = [row for _, row in found]
        return Interests([w for w, _ in found], joined(rows), [row.ever for row in rows], [row.applied for row in rows])

    def known(self, keys: Sequence[Key]) -> tuple[list[Key], Histories, list[int]]:
        found = [(key, row) for key in keys if (row := self._recent.get(key)) is not None]
        return [key for key, _ in found], joined([row for _, row in found]), [row.ever for _, row in found]

    # Keeper

    def committable(self) -> dict[TP, int]:
        return self.progress.committable()

    def notes(self) -> dict[TP, Note]:
        return {}

    def unread(self) -> Set[TP]:
        return frozenset()

    async def flush(self) -> set[int]:
        return set(self.owned)

    async def claim(self, assigned: set[TP]) -> None:
        self.owned = {tp.partition for tp in assigned}
        self._newest.clear()
        self.on_owned(self.owned)

    async def release(self, revoked: set[TP]) -> None:
        partitions = {tp.partition for tp in revoked}
        self.owned -= partitions
        self.progress.forget(partitions)

    async def close(self) -> None:
        """Nothing is held open."""


def is_older(applied: Mapping[str, int], than: Mapping[str, int]) -> bool:
    """Whether a row knows less of some topic and more of none."""
    topics = applied.keys() | than.keys()
    gaps = [than.get(topic, -1) - applied.get(topic, -1) for topic in topics]
    return max(gaps, default=0) > 0 and min(gaps) >= 0
