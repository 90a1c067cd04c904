"""The half of a worker that makes lists, wired: what they are made from, and the recommender on its device.

Where the users come from is the other half's affair: `stream.intake`, or `stream.lists.desk` where that runs elsewhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiokafka import AIOKafkaProducer

from model.encoder import TextEncoder
from stream.lists.depot import Depot
from stream.lists.feedback import Reactions
from stream.lists.indexes import Indexes
from stream.lists.interests import Source
from stream.lists.people import Register
from stream.lists.recommend import Recommender
from stream.lists.serving import Serving, leave_a_core, pick_device
from stream.process.monitor import Monitor
from stream.settings import Settings
from stream.trends import Trends


class Outlet:
    """Serving and recommender. into: the topic of lists, in place of the deployment's."""

    def __init__(
        self,
        settings: Settings,
        source: Source,
        trends: Trends,
        producer: AIOKafkaProducer,
        monitor: Monitor,
        into: str | None = None,
    ) -> None:
        device = pick_device(settings.recommend.device)
        self.people = Register()
        self.serving = Serving(
            TextEncoder(settings.encoder.name, device, settings.cache, settings.encoder.precision),
            trends,
            device,
            Indexes(settings.index, device, settings.cache / "indexes" / settings.topics.catalog),
            settings.topics.catalog,
            monitor,
            settings.recommend.shadow,
            settings.state.window_ttl_ms,
            settings.rank,
            settings.variants,
            settings.experiment,
            Depot(settings.cache / "releases" / settings.topics.release),
        )
        self._device = ThreadPoolExecutor(1, "eddyline-device", leave_a_core)
        on_loop = device == "cpu"
        if on_loop:
            leave_a_core()
        self.recommender = Recommender(
            settings.recommend,
            settings.emit,
            source,
            settings.state.name,
            self.serving,
            self.people,
            producer,
            into or settings.topics.recommendations,
            settings.topics.shadow,
            monitor,
            self._device,
            on_loop,
            lambda: int(time.time() * 1000),
        )
        self._horizon_ms = max(how.horizon_ms for how in settings.heeding)
        self.reactions = Reactions() if settings.reacts else None
        self.recommender.reactions = self.reactions

    def reacted_since(self) -> int:
        """From when on outcomes of lists still matter, ms."""
        return int(time.time() * 1000) - self._horizon_ms

    def tasks(self, caught_up: Sequence[asyncio.Event]) -> list[Coroutine[Any, Any, None]]:
        """What runs for ever beside the recommender, which begins once catalogue, users and release are read
        (`caught_up`).
        """
        return [
            self.serving.run(lambda: all(event.is_set() for event in caught_up)),
            self.serving.refresh_trends(),
            self.recommender.write(),
            self.recommender.refresh_profiles(),
        ]

    def on_owned(self, others: set[int]) -> None:
        """Partitions were assigned anew; `others` are not ours."""
        if self.recommender.changes is not None:
            self.recommender.changes.forget()
        self.recommender.profiles.forget(others)

    def on_left(self, partition: int, users: Sequence[str]) -> None:
        """Users have left the window table."""
        self.recommender.profiles.left(partition, users)

    def status(self) -> dict[str, Any]:
        served = self.serving.current if self.serving.ready.is_set() else None
        return {
            "items": len(served.catalog) if served else 0,
            "model": served.name if served else None,
            "variants": served.named() if served else {},
            "refused": self.serving.refused,
            "index": served.first.index.index.stats() if served else None,
            "profiles_kept": len(self.recommender.profiles),
            "described": len(self.people),
            **({"reacted": len(self.reactions)} if self.reactions is not None else {}),
        }

    def stop(self) -> None:
        self.serving.close()
        self._device.shutdown(wait=False, cancel_futures=True)
