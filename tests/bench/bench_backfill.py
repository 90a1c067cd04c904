"""Backfill: history read anew by 1, 2 and 4 workers of one command, beside `ingest`, as CPU-seconds and elapsed.

Row `ingest` is eddyline's own of `make bench NAME=ingest`: the same events, of which each is answered. A backfill is
`eddyline backfill` as a user starts it, silent, started so many times at once; it decodes the same events, keeps the
same rows and writes the same fenced changelogs, and answers nobody. Neither counts trends, unless `--trends`: then both
do. Workers begin together, once all have partitions, and are measured as those of `ingest` are, the first tenth aside.
CPU-seconds are of all workers together. The last line is JSON.

    make bench NAME=backfill
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stream.dev.processes import free_port
from tests.bench import bench_ingest, common
from tests.bench.common import HERE, PARTITIONS, Measured, Place

LOOK_S = 0.2
START_S = 600.0
SETTLE_S = 2.0
"""For a rebalance that may yet come, as some joined later than others."""
NO_TRENDS = {"EDDYLINE_TRENDS__ENABLED": "false"}
LEAST = 0.9
"""Of ingest's events a CPU-second."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=200_000, help="the k-th is met in proportion to 1/k")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trends", action="store_true", help="count trends as well, in both")
    return parser.parse_args()


def main() -> None:
    """Run the rounds, and print medians."""
    args = arguments()
    more = {} if args.trends else NO_TRENDS
    with common.place() as at:
        with common.told(f"publishing {args.events:,} events"):
            asyncio.run(bench_ingest.fill(at.kafka, "clicks", args.events, args.users))

        def measure(name: str, number: int) -> Measured:
            if name == "ingest":
                row = "trends" if args.trends else "eddyline"
                return bench_ingest.one(at, row, number, Path(sys.executable).parent, "clicks", args.events)
            return shared(at, int(name), number, args.events, more)

        measured = common.rounds(args.rounds, ["ingest", *map(str, args.workers)], measure, "events")
    summary(args, measured)


class Workers:
    """`eddyline backfill`, started so many times at once; they read when the gate is opened."""

    def __init__(self, n: int, environ: Mapping[str, str], folder: Path) -> None:
        self._ports = [free_port() for _ in range(n)]
        self._told = [folder / f"progress-{port}" for port in self._ports]
        self._gate = folder / "gate"
        command = [sys.executable, "-P", str(HERE / "backfill_worker.py"), "backfill", "--as", folder.name]
        self._members = [
            common.Worker(
                [*command, "--status-port", str(port)],
                {**environ, "BENCH_GATE": str(self._gate), "BENCH_PROGRESS": str(told)},
                folder / f"log-{port}",
                None,
            )
            for port, told in zip(self._ports, self._told, strict=True)
        ]

    def begin(self) -> None:
        """Open the gate, once every partition has a worker, and every worker one where there are enough."""
        deadline = time.monotonic() + START_S
        least = min(len(self._ports), PARTITIONS)
        while not self._shared(least):
            if time.monotonic() > deadline:
                raise SystemExit(f"not all workers were there within {START_S:.0f} s:\n{self.tail()}")
            time.sleep(LOOK_S)
        time.sleep(SETTLE_S)
        self._gate.touch()

    def _shared(self, least: int) -> bool:
        told = [_status(port) for port in self._ports]
        owned = [p for status in told if status.get("ready") for p in status["partitions"]]
        return sorted(owned) == list(range(PARTITIONS)) and sum(bool(s.get("partitions")) for s in told) >= least

    def done(self) -> int:
        """Events taken in so far, by all."""
        return sum(int(told.read_bytes() or 0) for told in self._told if told.exists())

    def cpu(self) -> float:
        return sum(member.cpu() for member in self._members)

    def tail(self) -> str:
        return "\n".join(member.tail() for member in self._members)

    def kill(self) -> None:
        for member in self._members:
            member.kill()


def _status(port: int) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as response:
            return json.load(response)
    except (urllib.error.URLError, OSError):
        return {}


def shared(at: Place, n: int, number: int, events: int, more: Mapping[str, str]) -> Measured:
    """One backfill of n workers."""
    run = f"back-{n}-{number}"
    environ = {**common.bench_environ(at, run, "clicks", f"{run}.output"), **more}
    asyncio.run(prepare(at, environ, run))
    workers = Workers(n, environ, at.folder / run)
    try:
        workers.begin()
        return watch(workers, events)
    finally:
        workers.kill()
        asyncio.run(common.delete_topics(at.kafka, [f"{run}.", f"{run}-"]))


async def prepare(at: Place, environ: Mapping[str, str], run: str) -> None:
    """The deployment's topics: a command asks whether they are there."""
    from stream.kafka import topics
    from stream.settings import load

    s = load(environ={name: value for name, value in environ.items() if name.startswith("EDDYLINE_")})
    await topics.create(at.kafka, topics.specs(s.topics, s.input.names, run), 1)


def watch(workers: Workers, total: int) -> Measured:
    """What the workers need for all events, the first tenth aside."""
    began: tuple[int, float, float] | None = None
    seen, moved = -1, time.monotonic()
    while True:
        done, cpu, now = workers.done(), workers.cpu(), time.monotonic()
        if began is None and done * 10 >= total:
            began = done, cpu, now
        if began is not None and done >= total:
            if began[0] * 2 > total:
                raise SystemExit("the workers were done before they could be watched: give them more events")
            return Measured(done - began[0], cpu - began[1], now - began[2])
        if done > seen:
            seen, moved = done, now
        elif now - moved > common.STALLED_S:
            raise SystemExit(f"{done} of {total}, and none in {common.STALLED_S:.0f} s:\n{workers.tail()}")
        time.sleep(common.LOOK_S)


def summary(args: argparse.Namespace, measured: Mapping[str, Sequence[Measured]]) -> None:
    """The table and the line of JSON; ratios are medians of the rounds' own."""
    rate, cpu = common.rates(measured)
    ratios = {
        name: sorted(m.cpu_rate / i.cpu_rate for m, i in zip(rounds, measured["ingest"], strict=True))
        for name, rounds in measured.items()
    }
    rows = [
        [
            name if name == "ingest" else f"backfill, {name} worker{'s' if name != '1' else ''}",
            f"{cpu[name]:,.0f}",
            f"{rate[name]:,.0f}",
            f"{common.median(ratios[name]):.2f}",
        ]
        for name in measured
    ]
    common.report(
        f"backfill: {args.events:,} events, {args.users:,} users, {PARTITIONS} partitions, {args.rounds} rounds",
        ["", "events / worker CPU-s", "events / s", "of ingest, by CPU"],
        rows,
        {
            "bench": "backfill",
            **common.as_keys(rate, cpu),
            "ratios": {name: round(common.median(values), 3) for name, values in ratios.items()},
            "ratios_min": {name: round(values[0], 3) for name, values in ratios.items()},
            "met": all(common.median(values) >= LEAST for values in ratios.values()),
            "rounds": args.rounds,
            "events": args.events,
            "users": args.users,
            "trends": args.trends,
        },
    )


if __name__ == "__main__":
    main()
