"""The half of a worker that takes events in, wired: state, silences and the agent, up to the users who wait.

What becomes of these is the other half's affair: `stream.outlet`, or `stream.lists.handover` where that runs elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from faust.types import TP

from stream.answers.control import heard
from stream.answers.debts import Debts
from stream.answers.emission import Silence
from stream.ingest import Ingest, Reading
from stream.kafka.changelog import Changelog
from stream.kafka.debts import debts
from stream.lists.interests import OwnRows
from stream.process.monitor import Monitor
from stream.settings import Settings
from stream.state import State
from stream.trends import Trends

log = logging.getLogger(__name__)

SILENCE_CHECK_S = 0.2
"""How often it is asked whether a silence is over."""


class Intake:
    """Args:
    behind, restored, wake: as `Debts` has them.
    """

    def __init__(
        self,
        settings: Settings,
        trends: Trends,
        monitor: Monitor,
        behind: Callable[[TP, int | None], int | None],
        restored: Callable[[], bool],
        wake: Callable[[], None],
        reading: Reading | None = None,
    ) -> None:
        kafka, topics, name = settings.kafka, settings.topics, settings.state.name
        self._settings = settings
        inputs = list(settings.input.topics.values())
        self.state = State(
            settings.state,
            inputs,
            trends,
            Changelog(kafka, topics.named(name)),
            topics.windows(name),
            topics.trends(name),
        )
        self.state.debts_of = self._debts_of
        self.silence = Silence(inputs, settings.emit.max_lag)
        speaking = {action: topic for action, topic in settings.input.topics.items() if settings.emit.speaks_on(action)}
        self.debts = Debts(self.state, self.silence, speaking, behind, restored, wake)
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
        self._deaf = reading is not None and (reading.mute or reading.into is not None)
        if reading is not None and self._deaf:
            self.silence.paused = reading.mute

    async def start(self) -> None:
        await self.letters.start()

    async def stop(self) -> None:
        await self.letters.stop()

    def status(self) -> dict[str, Any]:
        return {
            "users": len(self.state.columns),
            "state_bytes": self.state.columns.nbytes,
            "users_left": {"idle": self.state.leaving.idle, "beyond_cap": self.state.leaving.beyond_cap},
            "paused": bool(self.silence.paused),
            "silent": sorted(self.state.progress.quiet),
        }

    async def tend(self, control_read: asyncio.Event) -> None:
        """Begin and end silences, for ever."""
        await control_read.wait()
        if self.silence.paused is None:  # nothing was ever said
            self.silence.paused = False
        while True:
            self.debts.tend(self._inputs())
            await asyncio.sleep(SILENCE_CHECK_S)

    def on_control(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """What an operator says."""
        if self._deaf:
            return
        if (said := heard(records)) is not None and self.silence.paused != said.paused:
            if said.paused or self.silence.paused:
                log.warning(
                    "emission is %s", "paused: state advances, lists are held back" if said.paused else "resumed"
                )
            self.silence.paused = said.paused
            self.debts.tend(self._inputs())

    def _inputs(self) -> list[TP]:
        """The input partitions that are ours."""
        return [TP(topic, p) for topic in self._settings.input.topics.values() for p in self.state.owned]

    async def _debts_of(self, owned: set[int]) -> dict[TP, int]:
        """What former owners of these partitions left unanswered."""
        inputs = set(self._settings.input.topics.values())
        found = await debts(self._settings.kafka, self._settings.group)
        return {tp: first for tp, first in found.items() if tp.topic in inputs and tp.partition in owned}
