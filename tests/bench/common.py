"""What the benches share: a broker of their own, events in topics, and a worker watched from outside.

A worker is a process; its CPU time is user + system of its whole tree. It is measured from the first look at
which a tenth of its work was done to the first at which all was, and only what was done in between counts:
nothing is scaled, starting and warming up are in no figure, and the broker and the producer are other processes.
Outputs are counted by the ends of their partitions, so nothing competes by reading them.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
from aiokafka import AIOKafkaProducer
from rich.console import Console
from rich.table import Table

from stream.dev.broker import LocalBroker
from stream.kafka import topics
from stream.kafka.batches import Out, send
from stream.kafka.clients import KafkaConfig, admin, consumer, producer
from stream.kafka.placing import partition_of
from stream.publishing import encode_event
from tests.bench import peers

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PARTITIONS = 4
CHUNK = 20_000
LOOK_S = 0.05
STALLED_S = 120.0


class Place(NamedTuple):
    """Where a bench runs."""

    address: str
    folder: Path

    @property
    def kafka(self) -> KafkaConfig:
        return KafkaConfig(bootstrap_servers=self.address)


@contextmanager
def place() -> Iterator[Place]:
    """A broker in a temporary folder; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="eddyline-bench-") as name:
        folder = Path(name)
        broker = LocalBroker(folder / "broker")
        address = broker.start()
        try:
            yield Place(address, folder)
        finally:
            broker.stop()


# Topics and events


def bench_environ(at: Place, name: str, inputs: str, output: str) -> dict[str, str]:
    """What a worker of one run is told; everything that it makes is called by its name."""
    (at.folder / name).mkdir()
    return {
        "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": at.address,
        "EDDYLINE_TOPICS__PREFIX": f"{name}.",
        "EDDYLINE_TOPICS__PARTITIONS": str(PARTITIONS),
        "EDDYLINE_INPUT__TOPICS__CLICK": inputs,
        "EDDYLINE_STATE__NAME": name,
        "BENCH_NAME": name,
        "BENCH_BROKER": at.address,
        "BENCH_INPUT": inputs,
        "BENCH_OUTPUT": output,
        "BENCH_PARTITIONS": str(PARTITIONS),
        "BENCH_FOLDER": str(at.folder / name),
        "BENCH_PROGRESS": str(at.folder / name / "progress"),
        "BENCH_MARKS": str(at.folder / name / "marks"),
    }


async def delete_topics(kafka: KafkaConfig, prefixes: Iterable[str]) -> None:
    """Delete what a run has left: 4 GB of outputs and changelogs would press on the runs that follow."""
    starts = tuple(prefixes)
    async with admin(kafka) as client:
        await client.delete_topics([name for name in await client.list_topics() if name.startswith(starts)])


def zipf(n: int, of: int, seed: int) -> np.ndarray:
    """i64[n]: numbers below `of`, the k-th drawn in proportion to 1/k."""
    weights = 1 / np.arange(1, of + 1)
    return np.random.default_rng(seed).choice(of, n, p=weights / weights.sum())


async def publish(kafka: KafkaConfig, topic: str, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> None:
    """Write events u<user>, i<item>, time in ms, in this order, keyed by their users."""
    places: dict[int, tuple[bytes, int]] = {}
    async with producer(kafka) as client:
        for start in range(0, len(users), CHUNK):
            part = slice(start, start + CHUNK)
            rows: dict[int, list[Out]] = {}
            for user, item, ts in zip(users[part].tolist(), items[part].tolist(), times[part].tolist(), strict=True):
                if user not in places:
                    places[user] = f"u{user}".encode(), partition_of(f"u{user}", PARTITIONS)
                key, partition = places[user]
                rows.setdefault(partition, []).append(Out(key, encode_event(f"u{user}", f"i{item}", ts), None, ts))
            await write(client, topic, rows)


async def write(client: AIOKafkaProducer, topic: str, rows: Mapping[int, list[Out]]) -> None:
    """Write records by partition, and wait for the acknowledgements."""
    sent = [send(client, topic, partition, records) for partition, records in rows.items()]
    await asyncio.gather(*(future for futures in await asyncio.gather(*sent) for future in futures))


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say on the terminal what takes its time, and how long it took."""
    Console(stderr=True).print(f"{what} ...", highlight=False)
    began = time.monotonic()
    yield
    Console(stderr=True).print(f"{what}: {time.monotonic() - began:.1f} s", highlight=False)


# A worker, and how fast it is


class Worker:
    """A process, and all that it starts.

    Args:
        flame: where its flame graph is to be drawn, from `draw` on. What it then costs is not to be quoted.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], log: Path, flame: Path | None) -> None:
        self._log = log
        self._flame = flame
        self._spy: subprocess.Popen[str] | None = None
        with log.open("wb") as file:
            self._process = subprocess.Popen(command, env={**os.environ, **environ}, stdout=file, stderr=file, cwd=ROOT)
        self._root = psutil.Process(self._process.pid)

    def cpu(self) -> float:
        """CPU-seconds of the tree, processes that have ended included."""
        total = 0.0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # user, system, and both of the children that were waited for
        return total

    def rss(self) -> int:
        """Resident bytes of the tree."""
        return sum(process.memory_info().rss for process in self._tree())

    def check(self) -> None:
        """End the bench where the worker has ended."""
        if self._process.poll() is not None:
            raise SystemExit(f"the worker ended with exit code {self._process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def draw(self) -> None:
        """What is measured begins now: so does the flame graph, where one is wanted."""
        if self._flame is not None and self._spy is None:
            self._flame.parent.mkdir(parents=True, exist_ok=True)
            command = [str(peers.environment() / "py-spy"), "record", "--rate", "200", "--pid", str(self._process.pid)]
            self._spy = subprocess.Popen(
                [*command, "--output", str(self._flame)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
            )

    def terminate(self) -> None:
        """Tell it to stop, as a supervisor would; does not wait."""
        self._process.terminate()

    def kill(self) -> None:
        if self._spy is not None:
            self._spy.send_signal(signal.SIGINT)
            _, said = self._spy.communicate(timeout=120)
            print(f"flame graph: {self._flame}" if not self._spy.returncode else said, file=sys.stderr)
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


class Measured(NamedTuple):
    """Work that was done, the CPU-seconds it took and the seconds."""

    done: int
    cpu: float
    elapsed: float

    @property
    def rate(self) -> float:
        return self.done / self.elapsed

    @property
    def cpu_rate(self) -> float:
        return self.done / self.cpu


Progress = Callable[[], Awaitable[int]]


async def watch(worker: Worker, progress: Progress, total: int) -> Measured:
    """What the worker needs for `total` pieces of work, the first tenth aside."""
    began: tuple[int, float, float] | None = None
    seen, moved = -1, time.monotonic()
    while True:
        worker.check()
        done = await progress()
        cpu, now = worker.cpu(), time.monotonic()
        if began is None and done * 10 >= total:
            began = done, cpu, now
            worker.draw()
        if began is not None and done >= total:
            if began[0] * 2 > total:
                raise SystemExit("the worker was done before it could be watched: give it more events")
            return Measured(done - began[0], cpu - began[1], now - began[2])
        if done > seen:
            seen, moved = done, now
        elif now - moved > STALLED_S:
            raise SystemExit(f"{done} of {total}, and none in {STALLED_S:.0f} s:\n{worker.tail()}")
        await asyncio.sleep(LOOK_S)


async def watch_topic(worker: Worker, kafka: KafkaConfig, topic: str, total: int) -> Measured:
    """`watch`, where the work is records written to a topic."""
    async with consumer(kafka) as client:
        tps = await topics.topic_partitions(kafka, [topic])

        async def written() -> int:
            return sum((await client.end_offsets(tps)).values())

        return await watch(worker, written, total)


async def watch_file(worker: Worker, path: Path, total: int) -> Measured:
    """`watch`, where the worker keeps a count in a file."""

    async def counted() -> int:
        with suppress(FileNotFoundError):
            return int(path.read_text() or 0)
        return 0

    return await watch(worker, counted, total)


class Mark(NamedTuple):
    """When something happened in a worker, its CPU-seconds until then, and the rows that it held."""

    at: float
    cpu: float
    rows: int


async def marks(worker: Worker, path: Path, *names: str, timeout: float = 900.0) -> dict[str, Mark]:
    """The first mark of each name, as soon as the worker has told of all."""
    deadline = time.monotonic() + timeout
    while True:
        worker.check()
        found: dict[str, Mark] = {}
        with suppress(FileNotFoundError):
            for line in map(json.loads, path.read_text().splitlines()):
                found.setdefault(line["mark"], Mark(line["at"], line["cpu"], line["rows"]))
        if found:
            worker.draw()
        if set(names) <= set(found):
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"only {sorted(found)} of {names} within {timeout:.0f} s:\n{worker.tail()}")
        await asyncio.sleep(LOOK_S)


def rounds(
    number: int, systems: Sequence[str], one: Callable[[str, int], Measured], unit: str
) -> dict[str, list[Measured]]:
    """What `one` of each system and round measures; the rounds are interleaved."""
    measured: dict[str, list[Measured]] = {name: [] for name in systems}
    for n in range(number):
        for name in systems:
            got = one(name, n)
            measured[name].append(got)
            told = f"round {n + 1} {name}: {got.done:,} {unit}, {got.cpu:.2f} CPU-s, {got.elapsed:.2f} s"
            print(told, file=sys.stderr, flush=True)
    return measured


def rates(measured: Mapping[str, Iterable[Measured]]) -> tuple[dict[str, float], dict[str, float]]:
    """Medians of each system's rounds: work a second, and work a CPU-second."""
    rate = {name: median(m.rate for m in rounds) for name, rounds in measured.items()}
    return rate, {name: median(m.cpu_rate for m in rounds) for name, rounds in measured.items()}


def as_keys(rate: Mapping[str, float], cpu: Mapping[str, float]) -> dict[str, int]:
    """`rates` as the line of JSON has them."""
    return {**{name: round(r) for name, r in rate.items()}, **{f"cpu_{name}": round(r) for name, r in cpu.items()}}


def median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def report(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], result: Mapping[str, Any]) -> None:
    """A table for people, then one line of JSON for programs."""
    table = Table(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(json.dumps(result), flush=True)
