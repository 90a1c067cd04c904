"""Profiles of packed rows by the model that is served: to compare states, beside any worker.

What is served is built as a worker builds it, of the catalogue and the releases that stand in their topics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from model.catalog import Item
from model.encoder import TextEncoder
from stream.kafka.follow import newest_by_key
from stream.lists.building import Builder
from stream.lists.depot import Depot
from stream.lists.indexes import Indexes
from stream.lists.release import known
from stream.lists.serving import pick_device
from stream.lists.variants import ONLY, Split, VariantConfig, shares
from stream.settings import Settings
from stream.windows.columns import Columns
from stream.windows.packing import unpack

Packed = Sequence[tuple[int, bytes, bytes]]
"""(partition, user, packed row) of some users."""


async def reader(settings: Settings) -> Callable[[Packed], list[np.ndarray]] | None:
    """What makes the profiles f32[S, P] of rows; None where the catalogue is empty.

    Raises:
        TopicError: the topic of the catalogue or of releases is missing.
    """
    items: dict[str, Item] = {}
    for record in (await newest_by_key(settings.kafka, settings.topics.catalog)).values():
        if record.value:
            item = msgspec.json.decode(record.value, type=Item)
            items[item.item] = item
    if not items:
        return None
    device = pick_device(settings.recommend.device)
    variants = dict(settings.variants or {ONLY: VariantConfig(rank=settings.rank)})
    builder = Builder(
        TextEncoder(settings.encoder.name, device, settings.cache, settings.encoder.precision),
        device,
        Indexes(settings.index, device, settings.cache / "indexes" / settings.topics.catalog),
        Depot(settings.cache / "releases" / settings.topics.release),
        settings.trends,
        settings.state.window_ttl_ms,
        settings.rank,
        variants,
        Split.of(settings.experiment, shares(variants)),
    )
    releases = (await known(settings.kafka, settings.topics.release)).standing
    lineup = builder.build(items, 1, releases, [], None)
    engine = next(iter(lineup.readers().values())).engine

    def profiles(packed: Packed) -> list[np.ndarray]:
        columns = Columns(settings.input.names, settings.state.history, settings.state.seen_cap)
        rows: list[int] = []
        for partition, user, row in packed:
            unpack(columns, partition, {user: row})
            rows.append(int(columns.rows(partition, [user.decode()])[0]))
        return engine.profiles(columns.histories(np.array(rows, np.int64), seen=False))

    return profiles
