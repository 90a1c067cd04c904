"""What lists are made from: catalogue, item vectors, index, model, trends; swapped in as one, without a stop.

Follows the catalogue and the release topic. Whatever changes, a new `Served` is built aside and takes
the old one's place between two micro-batches; what fails to build is told, and the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np
from aiokafka import TopicPartition

from index.held import use_threads
from index.recall import IndexBuildError
from model import checkpoint
from model.baselines import UserModel
from model.catalog import Catalog, HashCollisionError, Item
from model.config import RankConfig
from model.encoder import TextEncoder
from model.engine import Engine
from model.online import Counts, OnlineParams, OnlineScores
from stream.errors import EddylineError
from stream.lists.indexes import Indexes, ItemIndex
from stream.lists.release import Release, checked
from stream.process.monitor import Monitor
from stream.trends import Snapshot, Trends, joined

log = logging.getLogger(__name__)

FALLBACK = "fallback"
"""What is served where no model is released, and the shadow of one that is."""


READERS = 3
"""Text encoders to keep: the fallback's, and those of the newest models that have adapted it."""


class Readers(NamedTuple):
    """What reads for one model: the items' texts, which are remembered on disk; and histories, where profiles are
    documents: what users did is not.
    """

    items: TextEncoder
    documents: TextEncoder


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that one micro-batch is answered from; parts that belong to one catalogue version."""

    name: str
    catalog: Catalog
    engine: Engine
    index: ItemIndex
    online: OnlineScores
    profile_dim: int
    shadow: Served | None = None

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ItemIndex.search`."""
        return self.index.search(vectors, k)


class Serving:
    """The current `Served`, and the upkeep of it."""

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
    ) -> None:
        self._rank = rank or RankConfig()
        self._window_ttl_ms = window_ttl_ms
        self._encoder = encoder
        self._readers: dict[str, Readers] = {}
        self._trends = trends
        self._device = device
        self._indexes = indexes
        self._catalog_topic = catalog_topic
        self._monitor = monitor
        self._shadow = shadow
        self._items: dict[str, Item] = {}
        self._version = 0
        self._counted = -1  # the version of the trends that the scores of what is served are of
        self._release: Release | None = None
        self._changed = asyncio.Event()
        self._builder = ThreadPoolExecutor(1, "eddyline-builder", leave_a_core)
        self._current: Served | None = None
        self.ready = asyncio.Event()
        self.tried = asyncio.Event()

    @property
    def current(self) -> Served:
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
        """The newest announced release; a tombstone returns to the fallback."""
        record = records[-1]
        try:
            self._release = msgspec.json.decode(record.value, type=Release) if record.value else None
        except (msgspec.MsgspecError, RecursionError) as error:
            log.error("%s at offset %d is no release and is ignored: %s", tp.topic, record.offset, error)
            return
        self._changed.set()

    # Upkeep

    async def run(self, caught_up: Callable[[], bool]) -> None:
        """Build anew whenever something has changed; for ever."""
        while not caught_up():
            await asyncio.sleep(0.02)
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
        online = await loop.run_in_executor(self._builder, self._online, before.catalog, snapshot)
        if self.current.catalog is before.catalog:
            shadow = self.current.shadow
            self._current = replace(
                self.current, online=online, shadow=replace(shadow, online=online) if shadow else None
            )
            self._counted = version
        return True

    def close(self) -> None:
        self._builder.shutdown(wait=False, cancel_futures=True)

    async def _rebuild(self) -> None:
        loop = asyncio.get_running_loop()
        items, version, release = dict(self._items), self._version, self._release
        counted, snapshot = self._trends.version, self._trends.snapshot()
        try:
            built = await loop.run_in_executor(
                self._builder, self._build, items, version, release, snapshot, self._current
            )
        except (HashCollisionError, EddylineError, IndexBuildError) as error:
            log.error("the new catalogue is not served: %s", error)
            return
        if self._current is None or built.name != self._current.name:
            self._monitor.releases += 1
            log.info("serving %s over %d items", built.name, len(built.catalog))
        self._current, self._counted = built, counted
        self._indexes.forget_all_but({built.name, FALLBACK} if built.shadow else {built.name})
        self.ready.set()

    def _build(
        self,
        items: dict[str, Item],
        version: int,
        release: Release | None,
        snapshot: Sequence[Snapshot],
        before: Served | None,
    ) -> Served:
        """On the builder thread: vectors, index, engine and scores of one catalogue version and release."""
        catalog = Catalog.build(items, version)
        texts = self._encoder.encode([items[item].text_for_encoder() for item in catalog.ids])
        online = self._online(catalog, snapshot)
        if release is None:
            return self._served(FALLBACK, catalog, texts, None, online)
        name = f"{release.model}@{release.version}"
        try:
            model = checkpoint.load(checked(release))
            served = self._served(name, catalog, self._texts(catalog, texts, model), model, online)
        except (EddylineError, ValueError, RuntimeError) as error:  # not there, damaged, or for other texts than ours
            log.error("release %s is not served, what was served before goes on: %s", name, error)
            if before is None or before.name == FALLBACK:
                return self._served(FALLBACK, catalog, texts, None, online)
            model = before.engine.given
            served = self._served(before.name, catalog, self._texts(catalog, texts, model), model, online)
        return replace(served, shadow=self._served(FALLBACK, catalog, texts, None, online)) if self._shadow else served

    def _texts(self, catalog: Catalog, texts: np.ndarray, model: UserModel | None) -> np.ndarray:
        """The text vectors as this model reads them: these, unless it has adapted the encoder."""
        return texts if model is None or model.adapter is None else self._reading(model).items.encode(catalog.texts)

    def _reading(self, model: UserModel | None) -> Readers:
        """What reads for this model. Encoders that have been loaded are kept, a few: each is as large as BERT."""
        adapter = model.adapter if model is not None else None
        key = adapter.id if adapter is not None else ""
        found = self._readers.pop(key, None)
        if found is None:
            encoder = self._encoder.adapted(adapter)
            found = Readers(encoder, encoder.forgetful())
        self._readers = dict(list(self._readers.items())[1 - READERS :]) | {key: found}
        return found

    def _served(
        self, name: str, catalog: Catalog, texts: np.ndarray, model: UserModel | None, online: OnlineScores
    ) -> Served:
        read = self._reading(model).documents.encode
        engine = Engine(
            catalog,
            texts,
            model,
            device=self._device,
            window_ttl_ms=self._window_ttl_ms,
            encode=read,
            seen=self._rank.seen,
            exposure=self._rank.exposure,
        )
        found = self._indexes.of(name, catalog, engine.item_vectors)
        return Served(name, catalog, engine, found, online, texts.shape[1])

    def _online(self, catalog: Catalog, snapshot: Sequence[Snapshot]) -> OnlineScores:
        """Scores as of the newest bucket that was counted: event time, so that a replay scores as the past did."""
        c = joined(snapshot)
        pair, met = c.b != 0, c.b == 0
        counts = Counts(c.a[pair], c.b[pair], c.bucket[pair], c.n[pair], c.a[met], c.bucket[met], c.n[met])
        now = int(counts.item_bucket.max(initial=0))
        params = OnlineParams(bucket_ms=self._trends.config.bucket_ms, kin=self._trends.config.kin)
        return OnlineScores.build(catalog, counts, now, params).prepared()


def leave_a_core() -> None:
    """For threads that compute: one core stays with the event loop, or small batches wait for each other's threads."""
    import torch

    threads = max(1, (os.cpu_count() or 2) - 1)
    torch.set_num_threads(threads)
    # They wait for each other by spinning: on two busy cores eight users took 9 ms by two threads, and 3 by one.
    use_threads(threads)


def pick_device(wanted: str) -> str:
    """`auto` takes the GPU where torch finds one."""
    if wanted != "auto":
        return wanted
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
