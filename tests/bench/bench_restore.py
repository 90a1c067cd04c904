"""Restore: rows a second from a changelog into a worker that starts, eddyline and ordinary Faust (as pip installs it;
`faust_orjson`: with the faster JSON that it takes where it finds it).

eddyline's changelog has a row of 20 interactions for every user, packed and fenced as a worker would have left
them; Faust's has as many lists of 20 items as its docstring says, written in its own JSON. Each worker tells when its
partitions were assigned and when its state was whole, and its CPU-seconds at both moments: joining the group, and
whatever else is done before, is in no figure. The rounds are interleaved. The last line is JSON.

    make bench NAME=restore
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from stream.kafka import topics
from stream.kafka.batches import Out
from stream.kafka.clients import KafkaConfig, producer
from tests.bench import common, peers, rows
from tests.bench.common import PARTITIONS, Measured, Place

SYSTEMS = ["eddyline", "faust", "faust_orjson"]


def main() -> None:
    """Run the rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000, help="rows for eddyline")
    parser.add_argument("--faust-users", type=int, default=50_000, help="rows for ordinary Faust, as a rate")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--profile", type=Path, help="draw the flame graph of the last worker to this SVG")
    args = parser.parse_args()
    binaries = peers.environment()
    sizes = {"eddyline": args.users, "faust": args.faust_users, "faust_orjson": args.faust_users}
    with common.place() as at:
        environs = {
            name: common.bench_environ(at, name.replace("_", "-"), f"{name}.clicks", f"{name}.output")
            for name in args.only
        }
        for name, environ in environs.items():
            with common.told(f"writing {sizes[name]:,} rows for {name}"):
                asyncio.run(prepare(name, at.kafka, environ, sizes[name]))

        def measure(name: str, number: int) -> Measured:
            return one(at, name, number, binaries, environs[name], sizes[name], args.profile)

        measured = common.rounds(args.rounds, args.only, measure, "rows")
    summary(measured, sizes)


async def prepare(name: str, kafka: KafkaConfig, environ: Mapping[str, str], users: int) -> None:
    """Topics and rows of one system."""
    if name == "eddyline":
        await rows.prepare(environ, users)
        return
    changelog = f"{environ['BENCH_NAME']}-windows-changelog"
    plain = [topics.TopicSpec(environ[which], PARTITIONS) for which in ("BENCH_INPUT", "BENCH_OUTPUT")]
    await topics.create(kafka, [*plain, topics.TopicSpec(changelog, PARTITIONS, {"cleanup.policy": "compact"})], 1)
    value = json.dumps([f"i{item}" for item in range(10_000, 10_000 + rows.INTERACTIONS)]).encode()
    async with producer(kafka) as client:
        written = {
            partition: [Out(json.dumps(user).encode(), value) for user in users_there]
            for partition, users_there in enumerate(rows.by_partition(users))
        }
        await common.write(client, changelog, written)


def one(
    at: Place, name: str, number: int, binaries: Path, environ: Mapping[str, str], n: int, flame: Path | None
) -> Measured:
    """One worker, from its start to its state."""
    told = Path(environ["BENCH_MARKS"])
    told.unlink(missing_ok=True)
    python = str(binaries / "python") if name == "faust_orjson" else sys.executable
    program = ["-m", "tests.bench.eddyline_ingest"] if name == "eddyline" else [str(peers.HERE / "faust_app.py")]
    command = [python, *program]
    worker = common.Worker(command, {**environ, "BENCH_ROW": "newest"}, at.folder / f"{name}-{number}.log", flame)
    try:
        marks = asyncio.run(common.marks(worker, told, "assigned", "restored"))
    finally:
        worker.kill()
    began, ended = marks["assigned"], marks["restored"]
    if ended.rows != n:
        raise SystemExit(f"{name} restored {ended.rows} of {n} rows")
    return Measured(n, ended.cpu - began.cpu, ended.at - began.at)


def summary(measured: Mapping[str, list[Measured]], sizes: Mapping[str, int]) -> None:
    """The table and the line of JSON."""
    rate, cpu = common.rates(measured)
    result = {
        "bench": "restore",
        **common.as_keys(rate, cpu),
        "rounds": len(next(iter(measured.values()))),
        "rows": {name: sizes[name] for name in measured},
    }
    if {"eddyline", "faust"} <= measured.keys():
        result["ratio"] = round(rate["eddyline"] / rate["faust"], 1)
        result["ratio_cpu"] = round(cpu["eddyline"] / cpu["faust"], 1)
    table = [
        [name, f"{sizes[name]:,}", f"{rate[name]:,.0f}", f"{cpu[name]:,.0f}", f"{sizes[name] / rate[name]:.1f} s"]
        for name in measured
    ]
    common.report("restore", ["system", "rows", "rows / s", "rows / worker CPU-s", "time"], table, result)


if __name__ == "__main__":
    main()
