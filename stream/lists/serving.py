"""What lists are made from: catalogue, item vectors, index, model, trends; swapped in as one, without a stop.

Follows the catalogue and the release topic. Whatever changes, a new `Served` is built aside and takes
the old one's place between two micro-batches; what fails to build is told, and the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
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
from model.fatigue import FatigueConfig
from model.mix import Mix
from model.online import Counts, OnlineParams, OnlineScores
from model.reweighed import reweighed
from stream.errors import EddylineError
from stream.lists.indexes import Indexes, ItemIndex
from stream.lists.lineup import Lineup
from stream.lists.release import NAME, Release, checked
from stream.lists.variants import FALLBACK, ONLY, SHADOW, Split, VariantConfig, shares, under
from stream.process.monitor import Monitor
from stream.trends import Snapshot, Trends, joined

log = logging.getLogger(__name__)


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
    """Everything that lists of one variant are made from; parts that belong to one catalogue version. weights: the
    model's checksum, or FALLBACK, by which profiles are known to be its. candidates: None = as in [recommend].
    """

    name: str
    catalog: Catalog
    engine: Engine
    index: ItemIndex
    online: OnlineScores
    profile_dim: int
    weights: str = FALLBACK
    fatigue: FatigueConfig = field(default_factory=FatigueConfig)
    candidates: int | None = None

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """See `ItemIndex.search`."""
        return self.index.search(vectors, k)


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
    ) -> None:
        self._rank = rank or RankConfig()
        self._variants = dict(variants or {ONLY: VariantConfig(rank=self._rank)})
        self._split = Split.of(experiment, shares(self._variants))
        if shadow:
            self._variants[SHADOW] = VariantConfig(shadow=True, model=FALLBACK, rank=self._rank)
        self._window_ttl_ms = window_ttl_ms
        self._encoder = encoder
        self._readers: dict[str, Readers] = {}
        self._trends = trends
        self._device = device
        self._indexes = indexes
        self._catalog_topic = catalog_topic
        self._monitor = monitor
        self._items: dict[str, Item] = {}
        self._read: tuple[Catalog, np.ndarray] | None = None
        self._version = 0
        self._counted = -1  # the version of the trends that the scores of what is served are of
        self._releases: dict[str, Release] = {}
        self._unknown: list[str] = []
        self._changed = asyncio.Event()
        self._builder = ThreadPoolExecutor(1, "eddyline-builder", leave_a_core)
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
        """The newest release of each alias; a tombstone takes it back."""
        for record in records:
            alias = (record.key or NAME.encode()).decode(errors="replace")
            try:
                release = msgspec.json.decode(record.value, type=Release) if record.value else None
            except (msgspec.MsgspecError, RecursionError) as error:
                log.error("%s at offset %d is no release and is ignored: %s", tp.topic, record.offset, error)
                continue
            self._releases.pop(alias, None)
            if release is not None:
                self._releases[alias] = release
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
            self._current = self.current.with_online(online)
            self._counted = version
        return True

    def close(self) -> None:
        self._builder.shutdown(wait=False, cancel_futures=True)

    async def _rebuild(self) -> None:
        loop = asyncio.get_running_loop()
        items, version, releases = dict(self._items), self._version, dict(self._releases)
        counted, snapshot = self._trends.version, self._trends.snapshot()
        try:
            built = await loop.run_in_executor(
                self._builder, self._build, items, version, releases, snapshot, self._current
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
        self.ready.set()

    def _build(
        self,
        items: dict[str, Item],
        version: int,
        releases: Mapping[str, Release],
        snapshot: Sequence[Snapshot],
        before: Lineup | None,
    ) -> Lineup:
        """On the builder thread: vectors, indexes, engines and scores of one catalogue version and its releases."""
        catalog = Catalog.build(items if before is None else in_order(items, before.catalog.ids), version)
        texts = self._texts(catalog)
        models = self._models(releases, catalog, texts, self._online(catalog, snapshot), before)
        made: list[tuple[dict[str, Any], Served]] = []
        served: dict[str, Served] = {}
        for name, config in self._variants.items():
            like = config.model_dump(exclude={"share", "shadow"}, exclude_unset=True)
            known = next((one for other, one in made if other == like), None)
            served[name] = known or self._variant(config, models[config.model], texts)
            made.append((like, served[name]))
        emitted = tuple(served[name] for name in self._split.names)
        # a shadow of what everybody gets says nothing
        shadows = {
            name: served[name]
            for name, config in self._variants.items()
            if config.shadow and any(one is not served[name] for one in emitted)
        }
        return Lineup(self._split, emitted, shadows, models)

    def _models(
        self,
        releases: Mapping[str, Release],
        catalog: Catalog,
        texts: np.ndarray,
        online: OnlineScores,
        before: Lineup | None,
    ) -> dict[str, Served]:
        """What each alias that a variant names stands for: aliases of the same folder share all of it."""
        models: dict[str, Served] = {}

        def of(alias: str) -> Served:
            if alias not in models:
                models[alias] = made(alias, releases.get(alias))
            return models[alias]

        def made(alias: str, release: Release | None) -> Served:
            if alias == FALLBACK:
                return self._served(FALLBACK, catalog, texts, None, online)
            if release is None and alias == NAME:
                return of(FALLBACK)
            if release is None:
                log.warning(
                    "a variant names the model %s, and %s is served in its place: nothing was announced by "
                    "`eddyline release announce FOLDER --alias %s`",
                    *(alias, NAME, alias),
                )
                return of(NAME)
            if same := next((served for served in models.values() if served.weights == release.sha256), None):
                return replace(same, name=release.name)
            last = before.models.get(alias) if before is not None else None
            return self._released(release, catalog, texts, online, last) or of(FALLBACK)

        for config in self._variants.values():
            of(config.model)
        return models

    def _released(
        self, release: Release, catalog: Catalog, texts: np.ndarray, online: OnlineScores, last: Served | None
    ) -> Served | None:
        """A release, or where it cannot be served, the model that was `last`; None where that was none."""
        try:
            model = checkpoint.load(checked(release))
            return self._served(release.name, catalog, texts, model, online, release.sha256)
        except (EddylineError, ValueError, RuntimeError) as error:  # not there, damaged, or for other texts than ours
            log.error("release %s is not served, what was served before goes on: %s", release.name, error)
        if last is None or last.engine.given is None:
            return None
        return self._served(last.name, catalog, texts, last.engine.given, online, last.weights)

    def _texts(self, catalog: Catalog) -> np.ndarray:
        """Text vectors f32[N,P] of a catalogue. Only texts that the last one did not have are encoded: looking all up
        again would take the interpreter from those who make lists meanwhile.
        """
        if self._read is None:
            vectors = self._encoder.encode(catalog.texts)
        else:
            before, known = self._read
            rows = before.index_of(catalog.hashes)
            texts, were = catalog.texts, before.texts
            new = [n for n, row in enumerate(rows.tolist()) if row < 0 or were[row] != texts[n]]
            vectors = known[rows] if len(known) else np.zeros((len(rows), known.shape[1]), np.float32)
            if new:
                vectors[new] = self._encoder.encode([texts[n] for n in new])
        self._read = catalog, vectors
        return vectors

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
        self,
        name: str,
        catalog: Catalog,
        texts: np.ndarray,
        model: UserModel | None,
        online: OnlineScores,
        weights: str = FALLBACK,
    ) -> Served:
        """A model as it is without variants."""
        engine = self._engine(catalog, texts, model, self._rank)
        found = self._indexes.of(name, catalog, engine.item_vectors)
        return Served(name, catalog, engine, found, online, texts.shape[1], weights, self._rank.fatigue)

    def _variant(self, config: VariantConfig, model: Served, texts: np.ndarray) -> Served:
        """A variant of a model: vectors and index are the model's."""
        if under(self._rank, config):
            return model
        given, mix = reweighed(model.engine.given, config.mix or Mix())
        engine = self._engine(model.catalog, texts, given, config.rank, mix, model.engine)
        return replace(model, engine=engine, fatigue=config.rank.fatigue, candidates=config.candidates)

    def _engine(
        self,
        catalog: Catalog,
        texts: np.ndarray,
        model: UserModel | None,
        rank: RankConfig,
        mix: Mix | None = None,
        like: Engine | None = None,
    ) -> Engine:
        reading = self._reading(model)
        if like is None and model is not None and model.adapter is not None:
            texts = reading.items.encode(catalog.texts)
        return Engine(
            catalog,
            texts,
            model,
            mix,
            device=self._device,
            window_ttl_ms=self._window_ttl_ms,
            encode=reading.documents.encode,
            seen=rank.seen,
            exposure=rank.exposure,
            rules=rank.rules,
            diversity=rank.diversity,
            explore=rank.explore,
            like=like,
        )

    def _online(self, catalog: Catalog, snapshot: Sequence[Snapshot]) -> OnlineScores:
        """Scores as of the newest bucket that was counted: event time, so that a replay scores as the past did."""
        c = joined(snapshot)
        pair, met = c.b != 0, c.b == 0
        counts = Counts(c.a[pair], c.b[pair], c.bucket[pair], c.n[pair], c.a[met], c.bucket[met], c.n[met])
        now = int(counts.item_bucket.max(initial=0))
        params = OnlineParams(bucket_ms=self._trends.config.bucket_ms, kin=self._trends.config.kin)
        return OnlineScores.build(catalog, counts, now, params).prepared()


def in_order(items: dict[str, Item], known: Sequence[str]) -> dict[str, Item]:
    """The same, those that are known first and as they are there. What is nearly in order is sorted at once; while a
    million names are that are not, no other thread gets the interpreter.
    """
    return {name: items[name] for name in known if name in items} | items


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
