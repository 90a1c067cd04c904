"""Replay: events a second into three topics, as `eddyline replay --speed max` publishes them, in transactions that hold
their position as well (`replay`; `csv`, `parquet`: read from a file, which includes looking through it first), and
published without any of that (`plain`). The rounds are interleaved, each into topics of its own. The last line is JSON.

    make bench NAME=replay
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import polars as pl

from model.archive import Archive, of_events, of_file
from model.dataset import Events
from stream.kafka import topics
from stream.publishing import publish
from stream.replay.run import Order, replay
from stream.replay.source import ArchiveSource, Range
from stream.settings import Settings, load
from tests.bench import common
from tests.bench.common import PARTITIONS, Measured, Place

WAYS = ["plain", "replay", "csv", "parquet"]


def main() -> None:
    """Run the rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    args = parser.parse_args()
    events = generated(args.events, args.users)
    with common.place() as at:
        files = written(events, at.folder)

        def measure(way: str, number: int) -> Measured:
            s = settings(at, f"{way}-{number}.")
            asyncio.run(topics.create(s.kafka, [topics.TopicSpec(t, PARTITIONS) for t in s.input.names]))
            began, cpu = time.monotonic(), time.process_time()
            done = asyncio.run(ways(s, events, files)[way]())
            return Measured(done, time.process_time() - cpu, time.monotonic() - began)

        measured = common.rounds(args.rounds, args.only, measure, "events")
    rate, cpu = common.rates(measured)
    rows = [(way, f"{rate[way]:,.0f}", f"{cpu[way]:,.0f}") for way in args.only]
    common.report("replay", ["", "events/s", "events/CPU-s"], rows, common.as_keys(rate, cpu))


def generated(n: int, users: int) -> Events:
    """Events in time order; some users and items are much more common than others."""
    names = np.array([f"u{u}" for u in range(users)], object), np.array([f"i{i}" for i in range(10_000)], object)
    rng = np.random.default_rng(2)
    return Events(
        names[0][common.zipf(n, users, 0)],
        names[1][common.zipf(n, 10_000, 1)],
        rng.integers(1, 4, n).astype(np.uint8),
        1_700_000_000_000 + np.sort(rng.integers(0, 10**9, n)),
        np.full(n, np.nan, np.float32),
    )


def written(events: Events, folder: Path) -> dict[str, Path]:
    """The same as files."""
    names = np.array(["", "view", "click", "buy"])
    frame = pl.DataFrame(
        {
            "user": events.user.tolist(),
            "item": events.item.tolist(),
            "action": names[events.action].tolist(),
            "ts": events.ts,
        }
    )
    frame.write_csv(folder / "events.csv")
    frame.write_parquet(folder / "events.parquet")
    return {kind: folder / f"events.{kind}" for kind in ("csv", "parquet")}


def settings(at: Place, prefix: str) -> Settings:
    inputs = {action: f"{prefix}{action}" for action in ("view", "click", "buy")}
    return load({"kafka.bootstrap_servers": at.address, "topics.prefix": prefix, "input.topics": inputs}, environ={})


def ways(s: Settings, events: Events, files: dict[str, Path]) -> dict[str, Callable[[], Awaitable[int]]]:
    """Each publishes all events, and returns how many."""

    async def replayed(archive: Callable[[], Archive]) -> int:
        order = Order({"source": "bench"}, Range())
        at = await replay(s, ArchiveSource(archive(), s.input.topics), order, asyncio.Event(), lambda at: None)
        return at.published

    return {
        "plain": lambda: publish(s.kafka, s.input.topics, events, lambda done, total: None),
        "replay": lambda: replayed(lambda: of_events(events)),
        "csv": lambda: replayed(lambda: of_file(files["csv"])),
        "parquet": lambda: replayed(lambda: of_file(files["parquet"])),
    }


if __name__ == "__main__":
    main()
