"""A state that was lived through long ago: window rows in a changelog, written as eddyline writes them.

The rows are packed by eddyline's own store and written by its own fenced changelog, so what a worker restores is
what a worker would have left; only the hours of events before it are spared.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from model.history import ACTION_CODE
from stream.kafka import topics
from stream.kafka.batches import Out
from stream.kafka.changelog import Changelog
from stream.kafka.placing import partition_of
from stream.settings import Settings, load
from stream.windows.columns import Columns
from stream.windows.packing import pack
from tests.bench.common import PARTITIONS

INTERACTIONS = 20
CATALOG = 100_000
ROWS = 20_000
START = 1_700_000_000_000


def by_partition(users: int) -> list[list[str]]:
    """The users of each partition."""
    out: list[list[str]] = [[] for _ in range(PARTITIONS)]
    for number in range(users):
        out[partition_of(f"u{number}", PARTITIONS)].append(f"u{number}")
    return out


async def prepare(environ: Mapping[str, str], users: int) -> Settings:
    """The topics of one run, its input left empty, and `users` rows in its changelog."""
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    config, name = settings.topics, settings.state.name
    inputs = settings.input.names
    await topics.create(
        settings.kafka,
        [topics.TopicSpec(environ["BENCH_OUTPUT"], PARTITIONS), *topics.specs(config, inputs, name)],
        1,
    )
    changelog = Changelog(settings.kafka, config.named(name))
    await changelog.own(range(PARTITIONS))
    for partition, names in enumerate(by_partition(users)):
        for start in range(0, len(names), ROWS):
            packed = rows_of(inputs, partition, names[start : start + ROWS], seed=start)
            await changelog.write(partition, {config.windows(name): packed})
    await changelog.close()
    return settings


def rows_of(inputs: list[str], partition: int, users: list[str], seed: int) -> list[Out]:
    """Packed rows of users, each with distinct items of one catalogue, one every second."""
    catalog = np.random.default_rng(0).integers(1, 2**63, CATALOG, np.uint64)
    rng = np.random.default_rng(seed)
    columns, n = Columns(inputs), len(users)
    rows = columns.rows(partition, users)
    first = rng.integers(0, CATALOG, n)
    values = {
        "item": catalog[(first[:, None] + np.arange(INTERACTIONS)).ravel() % CATALOG],
        "action": np.full(n * INTERACTIONS, ACTION_CODE["click"], np.uint8),
        "time": (START + 1000 * (np.arange(n)[:, None] + np.arange(INTERACTIONS))).ravel(),
        "weight": np.ones(n * INTERACTIONS, np.float32),
    }
    columns.put(rows, np.full(n, INTERACTIONS), values)
    columns.applied[rows] = 10_000_000 + rng.integers(0, 1_000_000, (n, len(inputs)))
    return [Out(user, row) for user, row in pack(columns, rows)]
