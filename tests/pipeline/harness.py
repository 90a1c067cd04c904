"""A deployment of its own on the tests' broker: topics, workers as real processes, events in, lists and state out."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from aiokafka import TopicPartition

from model.catalog import Item
from model.history import ACTION_CODE, HistoryLog, item_hash, weight_table
from stream import messages
from stream.dev.processes import free_port
from stream.kafka import topics
from stream.kafka.batches import Out
from stream.kafka.placing import partition_of
from stream.publishing import publish_items
from stream.settings import Settings, load
from stream.windows.columns import Columns
from stream.windows.packing import unpack
from tests.pipeline import topics_io
from tests.pipeline.forks import Fork
from tests.pipeline.topics_io import PARTITIONS, Raw

ITEMS = [
    Item(f"i{n}", f"{mood} {thing} {n}", categories=[mood, thing])
    for n, (mood, thing) in enumerate(
        (m, t) for m in ("quiet", "stormy", "golden", "hidden") for t in ("river", "harbour", "bridge", "mill", "weir")
    )
]
READY_S = 90.0
COMMAND_S = 120.0


@dataclass(frozen=True)
class Sent:
    """An event as it was sent."""

    user: str
    item: str
    action: str
    ts: int


def some_events(n: int, users: int, seed: int = 0, start: int = 1_700_000_000_000, mixed: bool = False) -> list[Sent]:
    """Events in time order. A user keeps to one action, unless `mixed`: topics do not keep time with each other."""
    rng = np.random.default_rng(seed)
    actions = ("view", "click", "buy")
    out: list[Sent] = []
    for i in range(n):
        user, item, any_action = (int(x) for x in rng.integers((users, len(ITEMS), 3)))
        out.append(Sent(f"u{user}", f"i{item}", actions[any_action if mixed else user % 3], start + 1000 * i))
    return out


class Worker:
    """One `eddyline worker` process."""

    def __init__(
        self,
        environ: Mapping[str, str],
        log: Path,
        prelude: str = "",
        command: Sequence[str] = ("worker",),
        started: bool = False,
    ) -> None:
        self.port = free_port()
        self.log = log
        arguments, env = [*command, "--status-port", str(self.port)], {**os.environ, **environ}
        self.process: subprocess.Popen[bytes] | Fork
        if started:
            with log.open("ab") as file:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "stream.console.cli", *arguments], stderr=file, stdout=file, env=env
                )
        else:
            self.process = Fork(arguments, env, log, prelude)

    def status(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/status", timeout=5) as response:
                return json.load(response)
        except (urllib.error.URLError, OSError):
            return {}

    def ready(self) -> Worker:
        until(lambda: self.status().get("ready") or self.process.poll() is not None, READY_S, "the worker is ready")
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return self

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, timeout: float = 40.0) -> int:
        """SIGTERM, and wait."""
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Ran(NamedTuple):
    """A command that has ended: its exit code, and what it printed on both streams."""

    code: int
    output: str


def cli(*arguments: str, **environ: str) -> Ran:
    """Run an `eddyline` command until it ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        code = Fork(arguments, {**os.environ, **environ}, log).wait(COMMAND_S)
        return Ran(code, log.read_text())


class Deployment:
    """Topics under a prefix of their own, and the workers on them."""

    def __init__(self, address: str, name: str, folder: Path, cache: Path) -> None:
        self.folder = folder
        self.environ = {
            "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": address,
            "EDDYLINE_KAFKA__SESSION_TIMEOUT_MS": "6000",
            "EDDYLINE_KAFKA__HEARTBEAT_INTERVAL_MS": "500",
            "EDDYLINE_TOPICS__PREFIX": f"{name}.",
            "EDDYLINE_TOPICS__PARTITIONS": str(PARTITIONS),
            "EDDYLINE_STATE__NAME": name,
            "EDDYLINE_STATE__COMMIT_INTERVAL_S": "0.3",
            "EDDYLINE_CACHE": str(cache),
            **{f"EDDYLINE_INPUT__TOPICS__{a.upper()}": f"{name}.{a}" for a in ("view", "click", "buy")},
        }
        self.settings: Settings = load(environ=self.environ)
        self.workers: list[Worker] = []

    def with_state(self, name: str) -> Deployment:
        """The same topics and catalogue with another state version; its workers end with ours."""
        other = copy.copy(self)
        other.environ = {**self.environ, "EDDYLINE_STATE__NAME": name}
        other.settings = load(environ=other.environ)
        return other

    def create(self, items: Sequence[Item] = ITEMS) -> Deployment:
        s = self.settings
        run(topics.create(s.kafka, topics.specs(s.topics, s.input.names, s.state.name)))
        return self.create_items(items)

    def create_items(self, items: Sequence[Item] = ITEMS) -> Deployment:
        s = self.settings
        if items:
            run(publish_items(s.kafka, s.topics.catalog, items))
        return self

    def worker(
        self, prelude: str = "", command: Sequence[str] = ("worker",), started: bool = False, **environ: str
    ) -> Worker:
        """A worker; `started`: as a process from nothing, as a user starts it, not forked."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker({**self.environ, **environ}, log, prelude, command, started)
        self.workers.append(worker)
        return worker

    def cli(self, *arguments: str, **environ: str) -> Ran:
        """Run an `eddyline` command with this deployment's settings until it ends."""
        return cli(*arguments, **self.environ | environ)

    def close(self) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()

    # Events in

    def send(self, events: Iterable[Sent]) -> None:
        """Publish events as JSON, keyed by user, in order."""
        topic = self.settings.input.topics
        self.send_raw(
            (
                topic[e.action],
                e.user.encode(),
                json.dumps({"user": e.user, "item": e.item, "ts": e.ts}).encode(),
                e.ts,
                [],
            )
            for e in events
        )

    def send_raw(self, records: Iterable[Raw]) -> None:
        run(topics_io.send_raw(self.settings, list(records)))

    def send_raw_to(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Publish keys and values to one partition."""
        run(topics_io.send_raw_to(self.settings, topic, partition, [Out(key, value) for key, value in records]))

    # Lists and state out

    def records(self, topic: str) -> list[Any]:
        """Every committed record of a topic, in the order of each partition."""
        return run(topics_io.records(self.settings, topic))

    def lists(self) -> list[messages.Recommendation]:
        return [messages.decode(r.value) for r in self.records(self.settings.topics.recommendations)]

    def committed(self) -> dict[TopicPartition, int | None]:
        """Committed offsets of the group."""
        return run(topics_io.committed(self.settings))

    def ends(self) -> dict[TopicPartition, int]:
        return run(topics_io.ends(self.settings, self.settings.input.names))

    def settled(self, timeout: float = 60.0) -> None:
        """Wait until everything that was sent is applied, answered, and committed."""

        def all_committed() -> bool:
            committed = self.committed()
            return all((committed.get(tp) or 0) >= end for tp, end in self.ends().items())

        until(all_committed, timeout, "all events are committed")

    def windows(self) -> Columns:
        """The windows as their changelog has them: what would be restored."""
        s = self.settings
        columns = Columns(s.input.names, s.state.history, s.state.seen_cap)
        for record in self.records(s.topics.windows(s.state.name)):
            if record.value is not None:
                unpack(columns, record.partition, {record.key: record.value})
            elif (row := columns.row(record.partition, record.key.decode())) is not None:
                columns.drop(np.array([row]))
        return columns

    def trends(self) -> dict[tuple[int, int, int], int]:
        """(item before or the item, item after or 0, bucket) -> count: the sum over partitions of the changelog."""
        from stream.trends import Trends

        s = self.settings
        found = Trends(s.trends)
        for record in self.records(s.topics.trends(s.state.name)):
            found[record.partition].restore({record.key: record.value})
        total: dict[tuple[int, int, int], int] = defaultdict(int)
        c = found.counted()
        for a, b, bucket, count in zip(c.a.tolist(), c.b.tolist(), c.bucket.tolist(), c.n.tolist(), strict=True):
            total[a, b, bucket] += count
        return dict(total)


def check_state(deployment: Deployment, sent: Sequence[Sent]) -> None:
    """The durable windows and trends equal those computed straight from the events; everyone touched is answered."""
    check_windows(deployment, sent)
    expected = reference_trends(sent, deployment.settings.trends.bucket_ms)
    assert deployment.trends() == expected
    check_answered(deployment)


def check_windows(deployment: Deployment, sent: Sequence[Sent]) -> None:
    log = HistoryLog(deployment.settings.state.history)
    weights = weight_table()
    for e in sent:
        code = ACTION_CODE[e.action]
        log.add(e.user, e.ts, code, item_hash(e.item), float(weights[code]))
    windows = deployment.windows()
    users = sorted({e.user for e in sent})
    assert sorted(u for members in windows.users.values() for u in members) == users
    expected = log.histories(users)
    for i, user in enumerate(users):
        row = windows.row(partition_of(user, PARTITIONS), user)
        assert row is not None, f"{user} is not in its partition"
        got, length = windows.read(row), int(expected.lengths[i])
        for column, want in (
            ("item", expected.items),
            ("action", expected.actions),
            ("time", expected.times),
            ("weight", expected.weights),
        ):
            np.testing.assert_array_equal(got[column], want[i, want.shape[1] - length :], f"{user} {column}")


def reference_trends(sent: Sequence[Sent], bucket_ms: int) -> dict[tuple[int, int, int], int]:
    """Counts by the definition, event by event; each user's events in time order."""
    log, total = HistoryLog(), defaultdict(int)
    for e in sent:
        code, item, bucket = ACTION_CODE[e.action], item_hash(e.item), e.ts // bucket_ms
        before = log.items_before(e.user, e.ts, code, item)
        if log.add(e.user, e.ts, code, item):
            total[item, 0, bucket] += 1
            for a in {int(x) for x in before[-20:]} - {item}:
                total[a, item, bucket] += 1
    return dict(total)


def check_answered(deployment: Deployment) -> None:
    """Every user's best list knows of the user's last event in each topic; equal names mean equal knowledge."""
    last: dict[str, dict[str, int]] = defaultdict(dict)
    for topic in deployment.settings.input.names:
        for record in deployment.records(topic):
            if record.key is not None:
                last[record.key.decode()][topic] = record.offset
    best: dict[str, dict[str, int]] = defaultdict(dict)
    names: dict[str, tuple] = {}
    for event in deployment.lists():
        for topic, offset in event.source.applied.items():
            best[event.user][topic] = max(offset, best[event.user].get(topic, -1))
        said = (event.user, tuple(sorted(event.source.applied.items())), event.source.topic, event.source.offset)
        assert names.setdefault(event.id, said) == said
    assert best == last


def until(done: Callable[[], Any], timeout: float, what: str) -> None:
    deadline = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.1)


def run(work: Any) -> Any:
    return asyncio.run(work)
