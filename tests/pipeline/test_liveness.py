"""Liveness is progress, and a restart that is announced moves nobody's partitions."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from typing import Any

from stream import messages
from tests.pipeline.harness import (
    Deployment,
    Sent,
    Worker,
    check_answered,
    check_state,
    check_windows,
    some_events,
    until,
)

STANDS_STILL = "from stream.state import State\nState.committable = lambda self: {}\n"
STATE = 5


def health(worker: Worker, path: str = "/health") -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{worker.port}{path}", timeout=5) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_a_worker_whose_commits_stand_still_while_lag_grows_is_not_well(deployment: Deployment) -> None:
    worker = deployment.worker(prelude=STANDS_STILL, EDDYLINE_HEALTH__STALLED_AFTER_S="2").ready()
    assert health(worker)[0] == health(worker, "/health/live")[0] == health(worker, "/health/ready")[0] == 200
    seed = 0

    def ill() -> bool:
        nonlocal seed
        seed += 1
        deployment.send(some_events(10, users=3, seed=seed))
        return health(worker, "/health/live")[0] == 503

    until(ill, 60, "it is told that commits stand still")
    code, told = health(worker)
    assert code == 503 and told["ready"] is True and told["live"] is False
    assert "commits stand still while lag grows" in told["reason"] and "/" in told["reason"]
    assert health(worker, "/health/ready")[0] == 200
    assert worker.process.poll() is None and "commits stand still" in worker.log.read_text()


def test_where_a_stall_is_fatal_the_process_ends_and_the_next_one_goes_on(deployment: Deployment) -> None:
    fatal = {"EDDYLINE_HEALTH__STALLED_AFTER_S": "2", "EDDYLINE_HEALTH__STALLED_IS_FATAL": "true"}
    worker = deployment.worker(prelude=STANDS_STILL, **fatal).ready()
    events = []

    def ended() -> bool:
        more = some_events(10, users=3, seed=len(events), start=1_700_000_000_000 + 10**5 * len(events))
        events.extend(more)
        deployment.send(more)
        return worker.process.poll() is not None

    until(ended, 60, "the process ends")
    log = worker.log.read_text()
    assert worker.process.wait(5) == STATE and "commits stand still while lag grows" in log and "Traceback" not in log
    second = deployment.worker(**fatal).ready()
    deployment.settled()
    check_state(deployment, events)
    assert health(second) == (200, {"ready": True, "live": True, "reason": None})
    assert second.stop() == 0


def test_a_worker_without_a_catalogue_is_alive_and_not_ready(empty: Deployment) -> None:
    worker = empty.create(items=[]).worker(EDDYLINE_HEALTH__STALLED_AFTER_S="1")
    until(lambda: len(worker.status().get("partitions", [])) == 4, 60, "it has its partitions")
    for seed in range(5):
        empty.send(some_events(10, users=3, seed=seed))
        time.sleep(0.5)
    assert health(worker, "/health/live")[0] == 200
    assert health(worker, "/health/ready")[0] == 503 and health(worker)[0] == 503
    worker.stop()


class Stream(threading.Thread):
    """Events that come for as long as it runs."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(daemon=True)
        self._deployment = deployment
        self._enough = threading.Event()
        self.events: list[Sent] = []

    def run(self) -> None:
        while not self._enough.is_set():
            more = some_events(20, users=40, seed=len(self.events), start=int(time.time() * 1000))
            self._deployment.send(more)
            self.events += more
            self._enough.wait(0.1)

    def end(self) -> list[Sent]:
        self._enough.set()
        self.join()
        return self.events


def longest_unanswered_s(deployment: Deployment) -> float:
    """From an event's arrival at the broker to that of the first list that knows of it, at worst."""
    lists = defaultdict(list)
    for record in deployment.records(deployment.settings.topics.recommendations):
        lists[record.key].append((record.timestamp, messages.decode(record.value).source.applied))
    worst = 0
    for topic in deployment.settings.input.names:
        for record in deployment.records(topic):
            known = [at for at, applied in lists[record.key] if applied.get(topic, -1) >= record.offset]
            worst = max(worst, min(known) - record.timestamp)
    return worst / 1000


MOVES = (
    "import os\n"
    "from faust.types.settings import Settings\n"
    "Settings.NODE_HOSTNAME = f'host-{os.getpid()}'\n"
    "from stream.state import State\n"
    "real = State.claim\n"
    "async def claim(self, assigned):\n"
    "    print('CLAIMED', sorted({tp.partition for tp in assigned}), flush=True)\n"
    "    await real(self, assigned)\n"
    "State.claim = claim\n"
)
"""A worker that tells of every assignment, on another host each time that it is started."""


def assignments(worker: Worker) -> list[str]:
    return [line for line in worker.log.read_text().splitlines() if line.startswith("CLAIMED")]


def test_a_rolling_restart_of_static_members_moves_no_partition(deployment: Deployment) -> None:
    def member(name: str) -> Worker:
        return deployment.worker(
            prelude=MOVES,
            EDDYLINE_KAFKA__GROUP_INSTANCE_ID=f"{deployment.settings.state.name}-{name}",
            EDDYLINE_KAFKA__SESSION_TIMEOUT_MS="40000",
        )

    workers = {name: member(name).ready() for name in ("one", "two")}
    until(lambda: all(len(w.status()["partitions"]) == 2 for w in workers.values()), 60, "the partitions are shared")
    owned = {name: worker.status()["partitions"] for name, worker in workers.items()}
    stream = Stream(deployment)
    stream.start()
    for name, other in (("one", "two"), ("two", "one")):
        before = assignments(workers[other])
        assert workers[name].stop() == 0
        workers[name] = member(name).ready()
        until(lambda w=workers[name]: w.status().get("lists", 0) > 20, 60, "it answers again")
        assert assignments(workers[other]) == before, "the other worker was assigned its partitions anew"
        assert {n: w.status()["partitions"] for n, w in workers.items()} == owned
    events = stream.end()
    deployment.settled()
    check_answered(deployment)
    check_windows(deployment, events)
    print(f"longest without a list in a rolling restart: {longest_unanswered_s(deployment):.1f} s")
    assert all(worker.stop() == 0 for worker in workers.values())
