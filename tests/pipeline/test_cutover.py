"""One state version takes over from another under load, and back: each event is answered by one of them, whoever dies."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from faust.types import TP

from stream import messages
from stream.answers.control import TURN, Turn, turn_heard
from stream.kafka.clients import consumer
from stream.kafka.debts import notes
from stream.kafka.follow import newest_by_key
from stream.kafka.topics import topic_partitions
from stream.replay import partition_of
from tests.pipeline.harness import ITEMS, PARTITIONS, Deployment, Worker, check_answered, run, until
from tests.pipeline.test_errors import STATE, check_told

T0 = 1_700_000_000_000
TICK_S = 0.05
GAP_S = 2.0
ACTIONS = ("view", "click", "buy")


@dataclass
class Load:
    """Events at a steady rate, from a thread of its own, until it is stopped; users act in all topics."""

    deployment: Deployment
    users: int = 60
    each: int = 4
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __enter__(self) -> Load:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._publish()), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        assert self.thread is not None
        self.thread.join(30)

    async def _publish(self) -> None:
        rng, topics = np.random.default_rng(7), self.deployment.settings.input.topics
        producer = AIOKafkaProducer(**self.deployment.settings.kafka.producer())
        await producer.start()
        try:
            while not self.over.is_set():
                for _ in range(self.each):
                    user, item, action = (int(x) for x in rng.integers((self.users, len(ITEMS), len(ACTIONS))))
                    ts = T0 + 1000 * self.sent
                    event = {"user": f"u{user}", "item": f"i{item}", "ts": ts}
                    await producer.send(
                        topics[ACTIONS[action]],
                        json.dumps(event).encode(),
                        key=f"u{user}".encode(),
                        timestamp_ms=ts,
                        partition=partition_of(f"u{user}", PARTITIONS),
                    )
                    self.sent += 1
                await asyncio.sleep(TICK_S)
        finally:
            await producer.stop()


@dataclass
class Subscriber:
    """When each list came, as one who subscribes sees it."""

    deployment: Deployment
    came: list[float] = field(default_factory=list)
    by: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    def __enter__(self) -> Subscriber:
        self.thread = threading.Thread(target=lambda: asyncio.run(self._read()), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        assert self.thread is not None
        self.thread.join(30)

    async def _read(self) -> None:
        s = self.deployment.settings
        async with consumer(s.kafka) as client:
            client.assign(await topic_partitions(s.kafka, [s.topics.recommendations]))
            await client.seek_to_end()
            while not self.over.is_set():
                for records in (await client.getmany(timeout_ms=100)).values():
                    self.came += [time.monotonic()] * len(records)
                    self.by += [messages.decode(record.value).source.state for record in records]

    def wait(self, lists: int, state: str) -> None:
        """Until so many more lists of a state version have come."""
        goal = self.by.count(state) + lists
        until(lambda: self.by.count(state) >= goal, 60, f"{lists} more lists of {state}")

    def longest_gap(self, since: int = 0) -> float:
        return max((b - a for a, b in pairwise(self.came[since:])), default=0.0)


@pytest.fixture
def second(deployment: Deployment) -> Iterator[Deployment]:
    """A second state version beside the deployment's own, with its topics."""
    yield deployment.with_state(f"{deployment.settings.state.name}-2").create(items=[])


def names(first: Deployment, second: Deployment) -> list[str]:
    return ["--from", first.settings.state.name, "--to", second.settings.state.name]


def turn_of(deployment: Deployment) -> Turn | None:
    found = run(newest_by_key(deployment.settings.kafka, deployment.settings.topics.control))
    return turn_heard([found[TURN]] if TURN in found else [])


def answered_by_one(deployment: Deployment) -> None:
    """No list tells of nothing but what the other version had answered, or was to: each knows of an offset that no list
    of the other knew of before it, and none after it that it does not know of.
    """
    best: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    states = {event.source.state for event in deployment.lists()}
    for event in deployment.lists():
        state, applied = event.source.state, event.source.applied
        for other in states - {state}:
            known = best[event.user, other]
            assert any(offset > known.get(topic, -1) for topic, offset in applied.items()), (
                f"{event.user} heard from {state} of {applied}, and before from {other} of {known}"
            )
        mine = best[event.user, state]
        mine |= {topic: max(offset, mine.get(topic, -1)) for topic, offset in applied.items()}


def on_its_side(deployment: Deployment, turn: Turn, before: str, speaker: str, lists: int = 0) -> None:
    """Every list after the first `lists` of the version that fell silent is below the cut, and no one's of the other."""
    for event in deployment.lists()[lists:]:
        past = [
            offset >= turn.floor_of(topic, event.source.partition) for topic, offset in event.source.applied.items()
        ]
        assert any(past) is (event.source.state == speaker), f"{event.source}, cut {turn.floor}"
        assert event.source.state in (before, speaker)


def check_all(first: Deployment, second: Deployment) -> None:
    first.settled()
    second.settled()

    def owes_nobody() -> bool:
        state = (turn_of(first) or pytest.fail("no turn")).answering
        group = next(d for d in (first, second) if d.settings.state.name == state).settings.group
        return not any(said.first is not None for said in run(notes(first.settings.kafka, group)).values())

    until(owes_nobody, 60, "nobody is owed a list")
    check_answered(first)


def both(first: Deployment, second: Deployment) -> tuple[Worker, Worker]:
    v1 = first.worker().ready()
    v2 = second.worker(command=("worker", "--silent")).ready()
    return v1, v2


def test_under_load_each_event_is_answered_by_one_version_there_and_back_without_a_gap(
    deployment: Deployment, second: Deployment
) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    v1, v2 = both(deployment, second)
    with Subscriber(deployment) as subscriber, Load(deployment):
        subscriber.wait(200, one)
        steady = subscriber.longest_gap(since=100)
        assert set(subscriber.by) == {one}, "the second one is silent"
        plan = deployment.cli("cut-over", *names(deployment, second))
        check_told(plan, 0, "--execute", f"{two} answers every event from the cut on")
        assert turn_of(deployment) is None, "a plan changes nothing"

        ran = deployment.cli("cut-over", *names(deployment, second), "--execute")
        check_told(ran, 0, f"state {one} is silent", f"state {two} answers")
        print(ran.output)
        subscriber.wait(200, two)
        there = turn_of(deployment)
        answered_there = len(deployment.lists())
        check_told(deployment.cli("cut-over", *names(deployment, second), "--execute"), 0, "nothing was done")

        ran = deployment.cli("cut-over", *names(deployment, second), "--rollback", "--execute")
        check_told(ran, 0, f"state {two} is silent", f"state {one} answers")
        print(ran.output)
        subscriber.wait(200, one)
        back = turn_of(deployment)
        gap = subscriber.longest_gap(since=100)
    print(f"longest gap {gap:.2f} s, before {steady:.2f} s")
    assert there is not None and back is not None and (there.number, back.number) == (1, 2)
    assert all(
        before <= after
        for topic in there.floor
        for before, after in zip(there.floor[topic], back.floor[topic], strict=True)
    )
    check_all(deployment, second)
    answered_by_one(deployment)
    assert gap < GAP_S + 2 * steady
    assert answered_there
    assert [w.stop() for w in (v1, v2)] == [0, 0]
