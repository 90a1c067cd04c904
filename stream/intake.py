"""The half of a worker that takes events in, wired: state, silences and the agent, up to the users who wait.

What becomes of these is the other half's affair: `stream.outlet`, or `stream.lists.handover` where that runs elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP

from stream.answers.control import Emission, Turn, heard, turn_heard
from stream.answers.debts import Debts, Reach
from stream.answers.emission import Silence
from stream.answers.turns import Turns
from stream.ingest import Ingest, Reading
from stream.kafka.changelog import Changelog
from stream.kafka.debts import notes
from stream.lists.interests import OwnRows
from stream.process.monitor import Monitor
from stream.settings import Settings
from stream.state import State
from stream.trends import Trends

log = logging.getLogger(__name__)

SILENCE_CHECK_S = 0.2
"""How often it is asked whether a silence is over."""
HOLDING_CHECK_S = 0.01
"""How often it is asked, while nothing is taken in, whether all that was is answered."""


class Intake:
    """Args:
    read, restored, wake: as `Debts` has them.
    reading: what is read, and who hears of it.
    """

    def __init__(
        self,
        settings: Settings,
        trends: Trends,
        monitor: Monitor,
        read: Reach,
        restored: Callable[[], bool],
        wake: Callable[[], None],
        reading: Reading | None = None,
    ) -> None:
        kafka, topics, name = settings.kafka, settings.topics, settings.state.name
        self._settings = settings
        reading = reading or Reading()
        inputs = settings.input.names
        self.state = State(
            settings.state,
            inputs,
            trends,
            Changelog(kafka, topics.named(name)),
            topics.windows(name),
            topics.trends(name),
        )
        self.turns = Turns(name, [*inputs, topics.requests], reading.begins_silent)
        self.state.debts_of = self._debts_of
        self.state.noting = self.turns.notes
        self.state.unread = lambda: self._unread | self.ingest.ended
        self._unread: frozenset[TP] = frozenset()
        self._listening = False
        self._heard = asyncio.Event()
        self._said: Emission | None = None
        self._turn: Turn | None = None
        self.silence = Silence(inputs, settings.emit.max_lag)
        speaking = {action: topic for action, topic in settings.input.topics.items() if settings.emit.speaks_on(action)}
        self.debts = Debts(self.state, self.silence, self.turns, speaking, read, restored, wake)
        self.rows = OwnRows(self.state, self.debts)
        # Not idempotent: a letter that is refused for its size must not fail those that follow.
        plain: dict[str, Any] = {**kafka.producer(), "enable_idempotence": False}
        self.letters = AIOKafkaProducer(**plain)
        self.ingest = Ingest(
            settings.input,
            settings.emit,
            self.state,
            self.debts,
            self.letters,
            topics.requests,
            topics.dead_letters,
            settings.group,
            monitor,
            wake,
            reading,
        )
        # Neither silence nor lists that go elsewhere are an operator's to hold back.
        self._deaf = reading.mute or reading.into is not None
        if self._deaf:
            self.silence.paused = reading.mute

    async def start(self) -> None:
        await self.letters.start()

    async def stop(self) -> None:
        await self.letters.stop()

    def status(self) -> dict[str, Any]:
        turn = self.turns.turn
        return {
            "users": len(self.state.columns),
            "state_bytes": self.state.columns.nbytes,
            "users_left": {"idle": self.state.leaving.idle, "beyond_cap": self.state.leaving.beyond_cap},
            "awaiting": self.ingest.awaiting,
            "paused": bool(self.silence.paused),
            "silent": sorted(self.state.progress.quiet),
            "answering": turn.answering if turn is not None else None,
        }

    async def tend(self, control_read: asyncio.Event, commit: Callable[[], Awaitable[Any]]) -> None:
        """Begin and end silences, for ever."""
        await control_read.wait()
        self._listening = True
        self._heed()
        while True:
            self._tend()
            if self.debts.news.is_set():
                self.debts.news.clear()
                await commit()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._heard.wait(), HOLDING_CHECK_S if self.debts.holding else SILENCE_CHECK_S)
            self._heard.clear()

    def _tend(self) -> None:
        self.debts.tend(self._inputs())
        asked = self._settings.topics.requests
        self._unread = frozenset(TP(asked, p) for p in self.state.owned if self.debts.mute(p))
        self.ingest.take_up()

    def claimed(self) -> None:
        """Partitions were assigned anew."""
        self.debts.claimed()
        self.ingest.claimed()
        self.ingest.ended.clear()  # what was not committed is read again

    def on_control(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """What an operator says; nothing is done about it before all that was said is read."""
        self._said = heard(records) or self._said
        self._turn = turn_heard(records) or self._turn
        if self._listening:
            self._heed()
            self._tend()
            self._heard.set()

    def _heed(self) -> None:
        if self._deaf:
            return
        paused = self._said is not None and self._said.paused
        if self.silence.paused != paused and (paused or self.silence.paused):
            log.warning("emission is %s", "paused: state advances, lists are held back" if paused else "resumed")
        self.silence.paused = paused
        if (turn := self._turn) is not None and self.turns.hear(turn):
            log.warning("turn %d: state %s answers%s", turn.number, turn.answering, "" if turn.given else " no more")

    def _inputs(self) -> list[TP]:
        """The input partitions that are ours."""
        return [TP(topic, p) for topic in self._settings.input.names for p in self.state.owned]

    async def _debts_of(self, owned: set[int]) -> dict[TP, int]:
        """What former owners of these partitions left unanswered."""
        inputs = set(self._settings.input.names)
        found = await notes(self._settings.kafka, self._settings.group)
        self.turns.claimed(found, owned)
        return {
            tp: said.first
            for tp, said in found.items()
            if said.first is not None and tp.topic in inputs and tp.partition in owned
        }
