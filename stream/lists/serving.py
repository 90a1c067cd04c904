"""What lists are made from: catalogue, item vectors, index, model, trends; swapped in as one, without a stop.

Follows the catalogue and the release topic; releases are fetched first (`arrivals.py`). Whatever changes, a new
`Lineup` is built aside (`building.py`) and takes the old one's place between two micro-batches; what fails to arrive or
to build is told, and the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka import TopicPartition

from index.held import use_threads
from index.recall import IndexBuildError
from model.catalog import HashCollisionError, Item
from model.config import RankConfig
from model.encoder import TextEncoder
from stream.errors import ConfigError, EddylineError
from stream.folders import cache_folder
from stream.lists.arrivals import Arrivals
from stream.lists.building import Builder
from stream.lists.depot import Depot
from stream.lists.indexes import Indexes
from stream.lists.lineup import Lineup
from stream.lists.release import NAME, RECORD, Release
from stream.lists.variants import FALLBACK, ONLY, SHADOW, Split, VariantConfig, shares
from stream.process.monitor import Monitor
from stream.trends import Trends

log = logging.getLogger(__name__)

FETCH_S = 60.0
"""How long a worker that starts waits for the releases that stand, at the most, before it serves without them."""


class Serving:
    """The current `Lineup`, and the upkeep of it."""

    def __init__(
        self,
        encoder: TextEncoder,
        trends: Trends,
        device: str,
        indexes: Indexes,
        catalog_topic: str,
        monitor: Monitor,
        shadow: bool = False,
        window_ttl_ms: int | None = None,
        rank: RankConfig | None = None,
        variants: Mapping[str, VariantConfig] | None = None,
        experiment: str = "1",
        depot: Depot | None = None,
    ) -> None:
        depot = depot or Depot(cache_folder() / "releases")
        rank = rank or RankConfig()
        variants = dict(variants or {ONLY: VariantConfig(rank=rank)})
        split = Split.of(experiment, shares(variants))
        if shadow:
            variants[SHADOW] = VariantConfig(shadow=True, model=FALLBACK, rank=rank)
        self.builder = Builder(encoder, device, indexes, depot, trends.config, window_ttl_ms, rank, variants, split)
        self._trends = trends
        self._indexes = indexes
        self._catalog_topic = catalog_topic
        self._monitor = monitor
        self._items: dict[str, Item] = {}
        self._version = 0
        self._counted = -1  # the version of the trends that the scores of what is served are of
        self._unknown: list[str] = []
        self._changed = asyncio.Event()
        self.arrivals = Arrivals(depot, self._changed.set)
        self._aside = ThreadPoolExecutor(1, "eddyline-builder", leave_a_core)
        self._current: Lineup | None = None
        self.ready = asyncio.Event()
        self.tried = asyncio.Event()

    @property
    def current(self) -> Lineup:
        """What to answer from now. Only after `ready`."""
        if self._current is None:
            raise RuntimeError("nothing is served before Serving.ready is set")
        return self._current

    # What the followed topics say

    def on_catalog(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Items, and tombstones of withdrawn ones; the catalogue's version is the topic's next offset."""
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            if record.value is None:
                self._items.pop(name, None)
                continue
            try:
                item = msgspec.json.decode(record.value, type=Item)
            except (msgspec.MsgspecError, RecursionError) as error:
                log.error("%s at offset %d is no item and is ignored: %s", tp.topic, record.offset, error)
                continue
            self._items[item.item] = item
        self._version = records[-1].offset + 1
        self._changed.set()

    def on_release(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """The newest release of each alias; a tombstone takes it back. Records of versions are for people."""
        for record in records:
            alias = (record.key or NAME.encode()).decode(errors="replace")
            if alias.startswith(RECORD):
                continue
            try:
                release = msgspec.json.decode(record.value, type=Release) if record.value else None
            except (msgspec.MsgspecError, RecursionError) as error:
                log.error("%s at offset %d is no release and is ignored: %s", tp.topic, record.offset, error)
                continue
            self.arrivals.announced(alias, release)

    # Upkeep

    async def run(self, caught_up: Callable[[], bool]) -> None:
        """Fetch what is announced, and build anew whenever something has changed; for ever."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self.arrivals.run())
            both.create_task(self._keep_up(caught_up))

    async def _keep_up(self, caught_up: Callable[[], bool]) -> None:
        while not caught_up():
            await asyncio.sleep(0.02)
        with suppress(TimeoutError):  # or who begins would answer by the fallback until the release is there
            await asyncio.wait_for(self.arrivals.settled.wait(), FETCH_S)
        told = False
        while True:
            if not self._items:
                if not told:
                    log.warning(
                        "waiting for a catalogue: %s is empty; fill it with `eddyline catalog publish movielens-100k` "
                        "(or a folder of yours)",
                        self._catalog_topic,
                    )
                    told = True
            else:
                self._changed.clear()
                await self._rebuild()
            self.tried.set()
            await self._changed.wait()
            # A catalogue is published item by item: take in what comes together.
            await asyncio.sleep(0.2)

    async def refresh_trends(self) -> None:
        """Compute scores from counts, for ever."""
        took = 0.0
        await self.ready.wait()
        while True:
            # However many counts there are, at most a hundredth of a core goes into this: lists wait for it.
            await asyncio.sleep(max(self._trends.config.refresh_s, 100 * took))
            began = time.monotonic()
            if await self.recount():
                took = time.monotonic() - began

    async def recount(self) -> bool:
        """Compute scores from the counts as they are now. False where these are what was counted last."""
        version, before = self._trends.version, self.current
        if version == self._counted:
            return False
        loop, snapshot = asyncio.get_running_loop(), self._trends.snapshot()
        online = await loop.run_in_executor(self._aside, self.builder.online, before.catalog, snapshot)
        if self.current.catalog is before.catalog:
            self._current = self.current.with_online(online)
            self._counted = version
        return True

    @property
    def refused(self) -> dict[str, str]:
        """By alias: the release that is announced and not served, and why."""
        built = self._current.refused if self._current is not None else {}
        return {**built, **self.arrivals.refused}

    def close(self) -> None:
        self._aside.shutdown(wait=False, cancel_futures=True)
        self.arrivals.close()

    async def _rebuild(self) -> None:
        loop = asyncio.get_running_loop()
        items, version, releases = dict(self._items), self._version, dict(self.arrivals.at_hand)
        counted, snapshot = self._trends.version, self._trends.snapshot()
        try:
            built = await loop.run_in_executor(
                self._aside, self.builder.build, items, version, releases, snapshot, self._current
            )
        except (HashCollisionError, EddylineError, IndexBuildError) as error:
            log.error("the new catalogue is not served: %s", error)
            return
        if (unknown := built.unknown) != self._unknown:
            self._unknown = unknown
            if unknown:
                log.warning("[rank.rules] names what the catalogue does not have: %s", ", ".join(unknown[:10]))
        if self._current is None or built.told != self._current.told:
            self._monitor.releases += 1
            log.info("serving %s over %d items", built.told, len(built.catalog))
        self._current, self._counted = built, counted
        self._indexes.forget_all_but({served.name for served in built.models.values()})
        self.arrivals.tidy()
        self.ready.set()


def leave_a_core() -> None:
    """For threads that compute, the event loop where lists are made on it: one core is left to the others, or small
    batches wait for each other's threads.
    """
    import torch

    threads = max(1, (os.cpu_count() or 2) - 1)
    torch.set_num_threads(threads)
    # They wait for each other by spinning: on two busy cores eight users took 9 ms by two threads, and 3 by one.
    use_threads(threads)


def pick_device(wanted: str) -> str:
    """`auto` takes the GPU where torch finds one. Raises ConfigError where what is wanted is not there."""
    if wanted == "cpu":
        return wanted
    if wanted != "auto" and wanted.partition(":")[0] != "cuda":
        raise ConfigError(f"no device is called {wanted!r}", "use auto, cpu or cuda")
    import torch

    found = torch.cuda.is_available()
    if wanted == "auto":
        return "cuda" if found else "cpu"
    if not found:
        raise ConfigError(f"device {wanted}: torch finds no GPU", "use cpu or auto, or install a torch that sees it")
    return wanted
