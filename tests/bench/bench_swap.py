"""A release that is swapped in under load: how long events wait around the swap, and before it.

A real `eddyline worker` serves a released model over a catalogue, at a steady rate of events. Another release is
announced, which has other weights and another index, and another, and so on. A swap is the first list of the next one;
its ten seconds are those around it. What was before is the time between the swaps, less these and what was spent on
building. Item texts are encoded by a BERT of one layer (see `bench_latency`). The last line is JSON; `p99_ratio` is the
worst of the swaps, and `unanswered` counts events of the whole run.

    make bench NAME=swap
    make bench NAME=swap ARGS="--items 100000 --every 90 --swaps 1"
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np

from stream.lists.release import Release, announce
from stream.settings import Settings, load
from tests.bench import common
from tests.bench.bench_latency import prepare, start, tiny_bert, warmed_up
from tests.bench.load import Held
from tests.bench.load import load as loaded

AROUND_S = 5.0
SETTLE_S = 15.0
"""Held before anything is measured."""


class _Source(msgspec.Struct):
    ts: int


class _List(msgspec.Struct):
    user: str
    source: _Source
    model: str


@dataclass
class Seen:
    """When the first list of each model came."""

    first: dict[str, float] = field(default_factory=dict)

    def said(self, value: bytes) -> tuple[str, int]:
        """Whom a recommendation is for, and the time of the event that caused it."""
        found = _decode(value)
        self.first.setdefault(found.model, time.monotonic())
        return found.user, found.source.ts


_decode = msgspec.json.Decoder(_List).decode


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--rate", type=float, default=150, help="events a second")
    parser.add_argument("--swaps", type=int, default=3)
    parser.add_argument("--every", type=float, default=25, help="seconds from one announcement to the next")
    args = parser.parse_args()
    with common.place() as at:
        asyncio.run(measure(at, tiny_bert(at.folder / "bert"), args))


async def measure(at: common.Place, bert: Path, args: argparse.Namespace) -> None:
    """The whole run."""
    environ = {
        **common.bench_environ(at, "swap", "swap.click", "swap.echoed"),
        "EDDYLINE_INPUT__TOPICS__VIEW": "swap.view",
        "EDDYLINE_INPUT__TOPICS__BUY": "swap.buy",
        "EDDYLINE_EMIT__ON": "click",
        "EDDYLINE_ENCODER__NAME": str(bert),
        "EDDYLINE_CACHE": str(at.folder / "cache"),
    }
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    folders = [model(at.folder / f"model-{n}", args.items, n) for n in range(2)]
    with common.told(f"{args.items:,} items, and what {args.users:,} users did before"):
        await prepare(settings, environ, args.items, args.users)
    seen, releases, announced = Seen(), [await told(settings, folders[0])], [0.0]
    with ExitStack() as running:
        start(at, "all", environ, running)
        topic, lists = settings.input.topics["click"], settings.topics.recommendations
        async with loaded(settings.kafka, topic, lists, seen.said, args.users, args.items) as load_:
            with common.told("encoding, indexing, warming up"):
                await warmed_up(load_)
            seconds = SETTLE_S + args.every * (args.swaps + 1)
            holding = asyncio.ensure_future(load_.hold(args.rate, seconds))
            began = time.monotonic()
            for n in range(args.swaps):
                await asyncio.sleep(began + SETTLE_S + (n + 1) * args.every - time.monotonic())
                announced.append(time.monotonic())
                releases.append(await told(settings, folders[(n + 1) % 2]))
            held = await holding
    report(held, began + SETTLE_S, releases, announced, seen, args)


async def told(settings: Settings, folder: Path) -> Release:
    return await announce(settings.kafka, settings.topics.release, folder, {})


def model(folder: Path, items: int, seed: int) -> Path:
    """An untrained one of the default parts: what its vectors say does not matter to how long a list takes."""
    import torch

    from model import checkpoint
    from model.config import ModelConfig
    from model.recommender import Recommender

    torch.manual_seed(seed)
    made = Recommender(ModelConfig(text_dim=384, items=items)).eval()
    torch.nn.init.normal_(made.id.weight)
    checkpoint.save(folder, made, datetime.now(UTC))
    return folder


def report(
    held: Held, since: float, releases: list[Release], announced: list[float], seen: Seen, args: argparse.Namespace
) -> None:
    """Waits around each swap, while it was built, and at all other times."""
    sent, waits = np.array(held.sent), 1000 * np.array(held.waits)
    swaps = [seen.first.get(release.name, np.inf) for release in releases[1:]]
    if not np.isfinite(swaps).all():
        raise SystemExit("a release was not served in time: give it more, with --every")
    building = np.zeros(len(sent), bool)
    around = np.zeros((len(swaps), len(sent)), bool)
    for n, (asked, swap) in enumerate(zip(announced[1:], swaps, strict=True)):
        around[n] = np.abs(sent - swap) <= AROUND_S
        building |= (sent >= asked) & (sent < swap - AROUND_S)
    before = ~building & ~around.any(0) & (sent >= since)
    parts = {"before": before, "building": building} | {f"swap {n + 1}": a for n, a in enumerate(around)}
    found = {
        name: {f"p{percent}_ms": round(float(np.percentile(waits[part], percent)), 2) for percent in (50, 99, 100)}
        for name, part in parts.items()
        if part.any()
    }
    took = [round(swap - asked, 2) for asked, swap in zip(announced[1:], swaps, strict=True)]
    ratio = max(found[f"swap {n + 1}"]["p99_ms"] for n in range(len(swaps))) / found["before"]["p99_ms"]
    lines = [[name, str(int(parts[name].sum())), *map(str, row.values())] for name, row in found.items()]
    result = {"bench": "swap", "p99_ratio": round(ratio, 2), "unanswered": held.unanswered, "rate": args.rate}
    result |= {"items": args.items, "seconds_to_serve": took, **found}
    common.report("swap", ["", "events", "p50 ms", "p99 ms", "longest ms"], lines, result)


if __name__ == "__main__":
    main()
