"""Liveness is progress: a worker is well while what it is behind shrinks, or what it has committed grows.

A port that answers says little: consumers have stopped in silence, and commits stood still for ever, in
processes that looked well. Pure decisions over samples, and the task that takes them with a client of its
own: the one that may have stopped cannot be asked how far it is behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field

from stream.errors import BrokerUnavailable, StateError
from stream.kafka.clients import KafkaConfig, consumer

if TYPE_CHECKING:
    from faust.types import TP

log = logging.getLogger(__name__)

SAMPLES = 8
"""Samples taken in the time after which a worker counts as stalled."""


class HealthConfig(BaseModel):
    """When a worker counts as ill, and what follows from it."""

    model_config = ConfigDict(extra="forbid")

    stalled_after_s: float = Field(
        default=120.0, gt=0, description="commits that stand still for so long, while lag grows, are a fault"
    )
    stalled_is_fatal: bool = Field(default=False, description="end the process (exit code 5) instead of only saying so")


class Sample(NamedTuple):
    """One input partition: the next offset that was committed, and its log's end."""

    committed: int
    end: int

    @property
    def lag(self) -> int:
        return self.end - self.committed


@dataclass(slots=True)
class _Since:
    moment: float
    sample: Sample


class Watch:
    """Tells which partitions stand still, from samples in the order of time."""

    def __init__(self, after_s: float) -> None:
        self._after = after_s
        self._since: dict[TP, _Since] = {}

    def stalled(self, now: float, samples: Mapping[TP, Sample]) -> dict[TP, float]:
        """Seconds that each stalled partition has stood still. A partition that is not in `samples` is begun anew."""
        self._since = {tp: since for tp, since in self._since.items() if tp in samples}
        out: dict[TP, float] = {}
        for tp, sample in samples.items():
            since = self._since.get(tp)
            if since is None or sample.committed != since.sample.committed or sample.lag < since.sample.lag:
                self._since[tp] = _Since(now, sample)
            elif now - since.moment >= self._after and sample.lag > since.sample.lag:
                out[tp] = now - since.moment
        return out


class Health:
    """What `/health` says of progress.

    Args:
        committed: next committed offsets of the owned input partitions; empty while there is nothing to expect: no
            catalogue, a restore, a rebalance.
    """

    def __init__(self, config: HealthConfig, kafka: KafkaConfig, committed: Callable[[], Mapping[TP, int]]) -> None:
        self._config = config
        self._kafka = kafka
        self._committed = committed
        self._watch = Watch(config.stalled_after_s)
        self.reason: str | None = None

    async def run(self) -> None:
        """Take samples for ever. A broker that does not answer is no sample: to restart would not help.

        Raises:
            StateError: a partition stands still, and that is to be fatal.
        """
        while True:
            try:
                async with consumer(self._kafka) as client:
                    while True:
                        await asyncio.sleep(self._config.stalled_after_s / SAMPLES)
                        committed = self._committed()
                        ends = await client.end_offsets(list(committed)) if committed else {}
                        self._judge({tp: Sample(at, ends[tp]) for tp, at in committed.items()})
            except (BrokerUnavailable, KafkaError) as error:
                log.warning("how far this worker is behind is not known: %r", error)
                await asyncio.sleep(self._config.stalled_after_s / SAMPLES)

    def _judge(self, samples: Mapping[TP, Sample]) -> None:
        stalled = self._watch.stalled(time.monotonic(), samples)
        told = [
            f"{tp.topic}/{tp.partition} at {samples[tp].committed}, {samples[tp].lag} behind, for {seconds:.0f} s"
            for tp, seconds in sorted(stalled.items())
        ]
        before, self.reason = self.reason, f"commits stand still while lag grows: {'; '.join(told)}" if told else None
        if self.reason is None:
            if before is not None:
                log.warning("commits go on again")
            return
        if self._config.stalled_is_fatal:
            raise StateError(
                self.reason,
                "start the worker again: it goes on from what was committed; if it stalls again, see its log",
            )
        if before is None:
            log.error("%s", self.reason)
