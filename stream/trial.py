"""What eddyline costs on someone's own events: a sample of them goes through the worker's own code, here and now.

Not a worker: nothing is joined, committed or written. Batches are kept as they were fetched (`Sample`), decoded and
applied to a state that is thrown away; rows of it are packed as a changelog has them, and lists are made of it as a
worker makes them before any training. What follows from these costs is in `stream.sizing`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from aiokafka import TopicPartition

from model.catalog import Item
from model.dataset import Events, numbered
from model.encoder import TextEncoder
from model.history import ACTION_CODE, item_hashes, weight_table
from stream.answers.progress import Trigger, Waiting
from stream.events import Events as Decoded
from stream.lists.building import Builder, Served
from stream.lists.depot import Depot
from stream.lists.indexes import Indexes
from stream.lists.interests import Interests
from stream.lists.profile import Profile
from stream.lists.telling import records, told
from stream.lists.variants import ONLY, Split, VariantConfig
from stream.settings import Settings
from stream.sizing import Costs
from stream.topicdata import TopicData
from stream.trends import PartitionTrends, Trends
from stream.windows import window
from stream.windows.columns import Columns
from stream.windows.packing import pack

RECORDS, BYTES = 200_000, 64 * 1024 * 1024
"""Records of a sample, and their bytes: seconds of work."""
EVENTS = 1_000_000
"""Events whose users are put into a state; where there are more, some of the users are, with all that they did."""
UNDESCRIBED = 5_000
"""Items that lists are made over where none is described: the most met. Their ids would have to be encoded for it."""
LISTS, ROUNDS = 2_000, 20


class Sample:
    """Keeps the first batches that it is handed, as they are."""

    def __init__(self, records: int = RECORDS, size: int = BYTES) -> None:
        self._records, self._size = records, size
        self.batches: list[tuple[TopicPartition, Sequence[Any]]] = []

    def __call__(self, tp: TopicPartition, batch: Sequence[Any]) -> None:
        """Keep a batch, while there is room."""
        if self._records <= 0 or self._size <= 0:
            return
        batch = batch[: self._records]
        self.batches.append((tp, batch))
        self._records -= len(batch)
        self._size -= sum(len(r.value or b"") for r in batch)


def resident() -> int:
    """Bytes of this process in memory."""
    return psutil.Process().memory_info().rss


def measured(
    found: TopicData, items: Mapping[str, Item], sample: Sample, settings: Settings, device: str, base: int
) -> Costs:
    """What these events cost, with lists of these items; base: bytes resident before anything was read."""
    applying = _applying(sample, settings)
    columns, trends, flushed = _state(found.data.events, settings)
    rows = columns.of(0)
    began = time.process_time()
    packed = [len(user) + len(row) for user, row in pack(columns, rows)]
    packing = (time.process_time() - began) / len(rows)
    before = resident()
    listing, size = _listing(items, columns, trends, settings, device)
    return Costs(
        fetching=found.fetching / found.records,
        applying=applying,
        packing=packing,
        listing=listing,
        user=columns.nbytes / len(columns),
        row=sum(packed) / len(packed),
        trends=flushed,
        list=size,
        base=base,
        serving=max(0, resident() - before),
    )


def _applying(sample: Sample, settings: Settings) -> float:
    """CPU seconds a record, of the second time: the first one finds everything cold."""
    spent = 0.0
    for _ in range(2):
        decoders = settings.input.decoders(keyed=False)
        columns, counted = _columns(settings), Trends(settings.trends)
        began = time.process_time()
        for tp, batch in sample.batches:
            events, _ = decoders[tp.topic].decode(batch)
            _apply(columns, counted[tp.partition], tp.partition, columns.topics.index(tp.topic), events, settings)
        spent = time.process_time() - began
    return spent / max(sum(len(batch) for _, batch in sample.batches), 1)


def _columns(settings: Settings) -> Columns:
    s = settings.state
    topics = settings.input.names
    return Columns(topics, s.history, s.seen_cap, s.history_ttl_ms, s.allowed_lateness_ms)


def _apply(
    columns: Columns, counted: PartitionTrends, partition: int, topic: int, events: Decoded, settings: Settings
) -> None:
    """As a worker does it (`stream.ingest`)."""
    trends = settings.trends
    applied = window.apply(columns, partition, topic, events, trends.enabled, trends.variation)
    if trends.enabled:
        at = applied.counted
        counted.count(events.items[at], events.times[at], applied.pairs)


def _state(events: Events, settings: Settings) -> tuple[Columns, Trends, float]:
    """A state of these users, its trends, and the bytes of trends an event that a changelog would be written."""
    users = numbered(events.user)[0]
    share = max(1, -(-len(events) // EVENTS))
    at = np.flatnonzero(users % share == 0)
    events = events.take(at) if share > 1 else events
    columns, trends = _columns(settings), Trends(settings.trends)
    weights, topics = weight_table(settings.input.weights), settings.input.topics
    number = {ACTION_CODE[action]: columns.topics.index(topic) for action, topic in topics.items()}
    # As many as a commit interval has, so that runs of trends are as short as they would be.
    span_s = max((int(events.ts[-1]) - int(events.ts[0])) / 1000, 1.0)
    many = int(np.clip(len(events) / span_s * settings.state.commit_interval_s, 500, 20_000))
    flushed = 0
    for first in range(0, len(events), many):
        some = events.take(slice(first, first + many))
        for code, topic in number.items():
            mine = np.flatnonzero(some.action == code)
            if len(mine):
                _apply(columns, trends[0], 0, topic, _decoded(some.take(mine), first, weights), settings)
        rows = trends[0].flush()
        flushed += sum(len(key) + len(value or b"") for key, value in rows.items())
    return columns, trends, flushed / len(events)


def _decoded(events: Events, first: int, weights: np.ndarray) -> Decoded:
    return Decoded(
        events.user.tolist(),
        events.item.tolist(),
        item_hashes(events.item),
        events.action,
        events.ts,
        weights[events.action],
        first + np.arange(len(events)),
        {},
    )


def listed(found: TopicData) -> dict[str, Item]:
    """Items to make lists of."""
    items = found.data.items
    if found.described or found.lent or len(items) <= UNDESCRIBED:
        return items
    codes, names = numbered(found.data.events.item)
    most = np.argsort(-np.bincount(codes), kind="stable")[:UNDESCRIBED]
    return {names[i]: items[names[i]] for i in most.tolist()}


def _listing(
    items: Mapping[str, Item], columns: Columns, trends: Trends, settings: Settings, device: str
) -> tuple[float, float]:
    """CPU seconds of a list, its share of a profile included, and its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        served = _served(items, trends, settings, device, Path(folder))
        batch = settings.recommend.max_batch
        rows = np.resize(columns.of(0)[:LISTS], ROUNDS * batch)
        spent, made, size = 0.0, 0, 0
        for turn, at in enumerate(np.split(rows, ROUNDS)):
            interests = _interests(columns, at)
            began = time.process_time()
            profiles = _profiles(served, interests)
            share = (time.process_time() - began) / settings.recommend.profile.refresh_events
            began = time.process_time()
            lengths = _written(served, interests, profiles, settings)
            if turn:  # the first one finds everything cold
                spent += time.process_time() - began + share
                made += len(at)
                size += sum(lengths)
    return spent / made, size / made


def _served(items: Mapping[str, Item], trends: Trends, settings: Settings, device: str, folder: Path) -> Served:
    """What a worker would serve before any training."""
    s = settings
    encoder = TextEncoder(s.encoder.name, device, s.cache, s.encoder.precision)
    indexes = Indexes(s.index, device, folder)
    only = {ONLY: VariantConfig(rank=s.rank)}
    builder = Builder(
        encoder,
        device,
        indexes,
        Depot(folder),
        s.trends,
        s.state.window_ttl_ms,
        s.rank,
        only,
        Split.of("trial", {ONLY: 1.0}),
    )
    return builder.build(dict(items), 1, {}, trends.snapshot(), None).first


def _interests(columns: Columns, at: np.ndarray) -> Interests:
    """Users who wait, each for what they did last."""
    topic = columns.topics[0]
    newest = columns.newest(at).time.tolist()
    users = [
        Waiting(0, columns.name(row), 0, Trigger(topic, 0, ts, 0.0, None)) for row, ts in zip(at, newest, strict=True)
    ]
    applied = [
        {name: int(o) for name, o in zip(columns.topics, offsets, strict=True) if o >= 0}
        for offsets in columns.applied[at]
    ]
    return Interests(users, columns.histories(at), columns.count[at].tolist(), applied)


def _profiles(served: Served, interests: Interests) -> list[Profile | None]:
    vectors = served.engine.profiles(interests.histories)
    return [Profile(v, n, 0, 0.0) for v, n in zip(vectors, interests.counts, strict=True)]


def _written(served: Served, interests: Interests, profiles: Sequence[Profile | None], settings: Settings) -> list[int]:
    """Bytes of each list with its key and headers, made as `stream.lists.recommend` makes them."""
    engine, online, h, n = served.engine, served.online, interests.histories, settings.recommend.n
    reasons = settings.emit.reasons
    fused = engine.encode(h, [p.vectors for p in profiles if p is not None], None, reasons)
    ranked = engine.lists(h, fused, served.search, online, n, settings.recommend.candidates, reasons)
    lengths, short = engine.window_rows(h)[0].lengths.tolist(), fused.short.tolist()
    events = told(served, ONLY, "trial", interests, ranked, lengths, short, profiles, 0, 0.0)
    outs = records(events, interests.users)
    return [len(o.key or b"") + len(o.value or b"") + sum(len(k) + len(v) for k, v in o.headers or []) for o in outs]
