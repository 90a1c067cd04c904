"""Ingest: events per CPU-second of a worker, ordinary Faust and eddyline side by side on one broker.

Both read JSON clicks, keep each user's 32 newest in a table whose changelog is written to Kafka, and
write one output an event. eddyline besides counts trends, fences its changelog by transactions, and
checks every event. CPU time is the worker process's own (user + system), from the first output to the
last, so the broker and the producer are not in it. The last line is JSON.

    make bench NAME=ingest
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream.dev.broker import LocalBroker
from stream.kafka import topics
from stream.kafka.batches import Out, send
from stream.kafka.clients import KafkaConfig
from stream.replay import encode_event, partition_of
from stream.settings import load

HERE = Path(__file__).parent
PARTITIONS = 4


def main() -> None:
    """Run the rounds, alternating, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=400_000, help="events for eddyline")
    parser.add_argument("--faust-events", type=int, default=15_000, help="events for ordinary Faust")
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="eddyline-bench-") as folder:
        broker = LocalBroker(Path(folder) / "broker")
        address = broker.start()
        try:
            rates: dict[str, list[float]] = {"ordinary_faust": [], "eddyline": []}
            for number in range(args.rounds):
                for name, n in (("ordinary_faust", args.faust_events), ("eddyline", args.events)):
                    cpu, wall = one(name, number, address, Path(folder), n, args.users)
                    rates[name].append(n / cpu)
                    print(f"round {number + 1} {name}: {n} events, {cpu:.2f} CPU-s, {wall:.2f} s", flush=True)
        finally:
            broker.stop()
    middle = {name: sorted(values)[len(values) // 2] for name, values in rates.items()}
    ratios = sorted(e / f for e, f in zip(rates["eddyline"], rates["ordinary_faust"], strict=True))
    print(
        json.dumps(
            {
                "bench": "ingest",
                "events_per_cpu_s": {name: round(rate) for name, rate in middle.items()},
                "ratio": round(ratios[len(ratios) // 2], 1),
                "ratio_min": round(ratios[0], 1),
                "rounds": args.rounds,
            }
        )
    )


def one(name: str, number: int, address: str, folder: Path, n: int, users: int) -> tuple[float, float]:
    """CPU-seconds and seconds of one worker for n events."""
    state = f"{name.replace('_', '-')}-{number}"
    prefix = f"{state}."
    environ = {
        "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": address,
        "EDDYLINE_TOPICS__PREFIX": prefix,
        "EDDYLINE_INPUT__TOPICS__CLICK": f"{prefix}click",
        "EDDYLINE_STATE__NAME": state,
        "BENCH_NAME": state,
        "BENCH_BROKER": address,
        "BENCH_INPUT": f"{prefix}click",
        "BENCH_OUTPUT": f"{prefix}output",
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_FOLDER": str(folder / state),
    }
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    asyncio.run(prepare(settings.kafka, environ, state, n, users))
    script = "ordinary_faust.py" if name == "ordinary_faust" else "eddyline_ingest.py"
    with (folder / f"{state}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / script)],
            env={**os.environ, **environ},
            stdout=log,
            stderr=log,
            cwd=HERE.parent.parent,
        )
    try:
        return asyncio.run(
            watch(settings.kafka, environ["BENCH_OUTPUT"], n, psutil.Process(process.pid), folder / f"{state}.log")
        )
    finally:
        process.kill()
        process.wait()


async def prepare(kafka: KafkaConfig, environ: dict[str, str], state: str, n: int, users: int) -> None:
    """Topics, and the events in them."""
    prefix = environ["EDDYLINE_TOPICS__PREFIX"]
    config = topics.TopicsConfig(prefix=prefix, partitions=PARTITIONS)
    wanted = topics.specs(config, [environ["BENCH_INPUT"]], state)
    wanted.append(topics.TopicSpec(environ["BENCH_OUTPUT"], PARTITIONS))
    wanted.append(topics.TopicSpec(f"{state}-windows-changelog", PARTITIONS, {"cleanup.policy": "compact"}))
    await topics.create(kafka, wanted, 1)
    rng = random.Random(1)
    producer = AIOKafkaProducer(**kafka.producer())
    await producer.start()
    try:
        start = int(time.time() * 1000) - n
        for first in range(0, n, 5000):
            rows: dict[int, list[Out]] = {}
            for i in range(first, min(first + 5000, n)):
                user, item, ts = f"u{rng.randrange(users)}", f"i{rng.randrange(5000)}", start + i
                rows.setdefault(partition_of(user, PARTITIONS), []).append(
                    Out(user.encode(), encode_event(user, item, ts), None, ts)
                )
            for partition, records in rows.items():
                await asyncio.gather(*await send(producer, environ["BENCH_INPUT"], partition, records))
    finally:
        await producer.stop()


async def watch(kafka: KafkaConfig, output: str, n: int, process: psutil.Process, log: Path) -> tuple[float, float]:
    """Wait for n outputs by the ends of the output's partitions: nothing is read, so nothing competes."""
    consumer = AIOKafkaConsumer(**kafka.consumer())
    await consumer.start()
    try:
        tps = await topics.topic_partitions(kafka, [output])
        began: tuple[float, float] | None = None
        deadline = time.monotonic() + 300
        while True:
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit(f"the worker ended: {log.read_text()[-2000:]}")
            done = sum((await consumer.end_offsets(tps)).values())
            cpu = sum(process.cpu_times()[:2])
            if began is None and done:
                began = cpu, time.monotonic()
                first = done
            if done >= n and began is not None:
                scale = n / max(n - first, 1)  # what was done before the first look is credited at the same rate
                return (cpu - began[0]) * scale, (time.monotonic() - began[1]) * scale
            if time.monotonic() > deadline:
                raise SystemExit(f"only {done} of {n} outputs within 300 s: {log.read_text()[-2000:]}")
            await asyncio.sleep(0.05)
    finally:
        await consumer.stop()


if __name__ == "__main__":
    main()
