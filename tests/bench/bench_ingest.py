"""Ingest: eddyline and its peers on one broker, the same events and the same job, as CPU-seconds and elapsed.

Each system decodes JSON clicks, keeps each user's 32 newest items in durable keyed state, and writes one output an
event (row `each`). Row `newest` is eddyline answering each user of a batch once; `trends` is row `each` with counts of
what follows what as well, which no peer keeps and which are off in the others; `rekeyed` is it with events that are
copied to a topic by user first, by the same worker. eddyline besides fences its changelog
by transactions, keeps 128 interactions a user, and checks every event. `raw` is the floor: fetch and decode, no state
and no outputs. `faust` is Faust as pip installs it, `faust_orjson` with the faster JSON that it takes where it finds
it; `bytewax_memory` is Bytewax without durable state. What each peer does, and does not, is in its program's docstring
(tests/bench/peers). All events are in the topic beforehand; the rounds
are interleaved; how a worker is measured is said in tests/bench/common.py. The last line is JSON.

    make bench NAME=ingest
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stream.kafka import topics
from stream.kafka.clients import KafkaConfig
from stream.settings import load
from tests.bench import common, peers
from tests.bench.common import HERE, PARTITIONS, Measured, Place

ITEMS = 5_000


class System(NamedTuple):
    """One row of the table."""

    program: str
    environ: Mapping[str, str] = {}
    peer: bool = True  # runs in the peers' environment
    outputs: bool = True  # one an event; else the program keeps a count

    def command(self, binaries: Path) -> list[str]:
        return [str(binaries / "python") if self.peer else sys.executable, "-P", str(HERE / self.program)]


NO_TRENDS = {"EDDYLINE_TRENDS__ENABLED": "false"}
SYSTEMS = {
    "eddyline": System("eddyline_ingest.py", {"BENCH_ROW": "each", **NO_TRENDS}, peer=False),
    "newest": System("eddyline_ingest.py", {"BENCH_ROW": "newest", **NO_TRENDS}, peer=False, outputs=False),
    "trends": System("eddyline_ingest.py", {"BENCH_ROW": "each"}, peer=False),
    "rekeyed": System("eddyline_ingest.py", {"BENCH_ROW": "each", "BENCH_REKEY": "1", **NO_TRENDS}, peer=False),
    "raw": System("peers/raw_loop.py", peer=False, outputs=False),
    "bytewax": System("peers/bytewax_app.py", {"BENCH_DURABLE": "1"}),
    "bytewax_memory": System("peers/bytewax_app.py", {"BENCH_DURABLE": "0"}),
    "quix": System("peers/quix_app.py"),
    "faust": System("peers/faust_app.py", peer=False),
    "faust_orjson": System("peers/faust_app.py"),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument(
        "--faust-events", type=int, default=50_000, help="events for ordinary Faust, of as many fewer users"
    )
    parser.add_argument("--users", type=int, default=200_000, help="the k-th is met in proportion to 1/k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), metavar="SYSTEM")
    parser.add_argument("--profile", type=Path, help="draw the flame graph of the last worker to this SVG")
    return parser.parse_args()


def main() -> None:
    """Run the rounds, and print medians."""
    args = arguments()
    binaries = peers.environment()
    with common.place() as at:
        sizes = {"clicks": args.events}
        if any(name.startswith("faust") for name in args.only):
            sizes["few-clicks"] = args.faust_events
        with common.told(f"publishing {' and '.join(f'{n:,}' for n in sizes.values())} events"):
            for topic, n in sizes.items():
                asyncio.run(fill(at.kafka, topic, n, max(1, args.users * n // args.events)))

        def measure(name: str, number: int) -> Measured:
            topic = "few-clicks" if name.startswith("faust") else "clicks"
            return one(at, name, number, binaries, topic, sizes[topic], args.profile)

        measured = common.rounds(args.rounds, args.only, measure, "events")
    summary(args, measured)


async def fill(kafka: KafkaConfig, topic: str, n: int, users: int) -> None:
    """A topic and its events. Fewer events are of fewer users, so that windows fill as they do with all."""
    times = int(time.time() * 1000) - n + np.arange(n)
    await topics.create(kafka, [topics.TopicSpec(topic, PARTITIONS)], 1)
    await common.publish(kafka, topic, common.zipf(n, users, 1), np.random.default_rng(2).integers(0, ITEMS, n), times)


def one(at: Place, name: str, number: int, binaries: Path, topic: str, n: int, flame: Path | None = None) -> Measured:
    """One worker, from its start to its last output."""
    system = SYSTEMS[name]
    run = f"{name.replace('_', '-')}-{number}"
    environ = {**common.bench_environ(at, run, topic, f"{run}.output"), **system.environ}
    asyncio.run(prepare(at.kafka, environ, run))
    worker = common.Worker(system.command(binaries), environ, at.folder / f"{run}.log", flame)
    try:
        if system.outputs:
            return asyncio.run(common.watch_topic(worker, at.kafka, f"{run}.output", n))
        return asyncio.run(common.watch_file(worker, Path(environ["BENCH_PROGRESS"]), n))
    finally:
        worker.kill()
        asyncio.run(common.delete_topics(at.kafka, [f"{run}.", f"{run}-", f"changelog__{run}-"]))


async def prepare(kafka: KafkaConfig, environ: Mapping[str, str], run: str) -> None:
    """The topics of one run."""
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    compacted = {"cleanup.policy": "compact"}
    wanted = [
        topics.TopicSpec(environ["BENCH_OUTPUT"], PARTITIONS),
        topics.TopicSpec(settings.topics.dead_letters, PARTITIONS),
        *topics.state_specs(settings.topics, run),
        topics.events_spec(settings.topics),
        topics.TopicSpec(f"{run}-windows-changelog", PARTITIONS, compacted),
    ]
    await topics.create(kafka, wanted, 1)


def summary(args: argparse.Namespace, measured: Mapping[str, list[Measured]]) -> None:
    """The table and the line of JSON; ratios are medians of the rounds' own."""
    rate, cpu = common.rates(measured)
    ratios: dict[str, list[float]] = {}
    if "eddyline" in measured:
        for name, rounds in measured.items():
            if name != "eddyline":
                pairs = zip(measured["eddyline"], rounds, strict=True)
                ratios[name] = sorted(ours.cpu_rate / theirs.cpu_rate for ours, theirs in pairs)
    rows = [
        [
            name,
            f"{cpu[name]:,.0f}",
            f"{min(m.cpu_rate for m in rounds) / 1000:.1f} - {max(m.cpu_rate for m in rounds) / 1000:.1f}",
            f"{rate[name]:,.0f}",
            f"{common.median(ratios[name]):.2f}" if name in ratios else "",
        ]
        for name, rounds in measured.items()
    ]
    common.report(
        f"ingest: {args.events:,} events, {args.users:,} users, {PARTITIONS} partitions, {args.rounds} rounds",
        ["system", "events / worker CPU-s", "rounds, 1000s", "events / s", "eddyline / it, by CPU"],
        rows,
        {
            "bench": "ingest",
            **common.as_keys(rate, cpu),
            "ratios": {name: round(common.median(values), 3) for name, values in ratios.items()},
            "ratios_min": {name: round(values[0], 3) for name, values in ratios.items()},
            "rounds": args.rounds,
            "events": args.events,
            "faust_events": args.faust_events,
            "users": args.users,
        },
    )


if __name__ == "__main__":
    main()
