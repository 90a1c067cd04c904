"""One state version takes over from another under load, and back: each event is one's to answer, whoever dies."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer

from stream import messages
from stream.answers.control import TURN, Turn, turn_heard
from stream.kafka.clients import consumer
from stream.kafka.debts import notes
from stream.kafka.follow import newest_by_key
from stream.kafka.placing import partition_of
from stream.kafka.topics import topic_partitions
from tests.pipeline.forks import Fork
from tests.pipeline.harness import ITEMS, PARTITIONS, Deployment, Sent, Worker, check_answered, run, until
from tests.pipeline.test_errors import STATE, check_told
from tests.pipeline.test_requests import answered, answers, requests
from tests.pipeline.test_roles import all_answered, ingest, recommend

T0 = 1_700_000_000_000
TICK_S = 0.05
GAP_S = 2.0
ACTIONS = ("view", "click", "buy")


class Beside:
    """Runs in a thread of its own, until it is left."""

    over: threading.Event
    thread: threading.Thread

    async def run(self) -> None:
        """Until `over` is set."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.over = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join(30)


@dataclass
class Load(Beside):
    """Events at a steady rate, from a thread of its own, until it is stopped; users act in all topics."""

    deployment: Deployment
    users: int = 60
    each: int = 4
    sent: int = 0

    async def run(self) -> None:
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
class Subscriber(Beside):
    """When each list came, as one who subscribes sees it."""

    deployment: Deployment
    came: list[float] = field(default_factory=list)
    by: list[str] = field(default_factory=list)

    async def run(self) -> None:
        s = self.deployment.settings
        async with consumer(s.kafka) as client:
            client.assign(await topic_partitions(s.kafka, [s.topics.recommendations]))
            await client.seek_to_end()
            while not self.over.is_set():
                for records in (await client.getmany(timeout_ms=100)).values():
                    self.came += [time.monotonic()] * len(records)
                    self.by += [messages.decode(record.value or b"").source.state for record in records]

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


def one_version_each(deployment: Deployment, cuts: Sequence[Turn | None]) -> None:
    """Each event is covered by exactly one version: between two cuts, by the one whose turn it was.

    A list is of the newest turn that it knows an event of, and is that version's; and each event has a list of its
    own turn that knows of it.
    """
    given = [cut for cut in cuts if cut is not None]
    assert given and len(given) == len(cuts)
    whose = [deployment.settings.state.name, *(cut.speaker for cut in given)]

    def turn(topic: str, partition: int, offset: int) -> int:
        return sum(offset >= cut.floor_of(topic, partition) for cut in given)

    known: dict[tuple[int, str, str], int] = {}  # turn, user, topic -> the last offset known of
    for event in deployment.lists():
        applied, partition = event.source.applied, event.source.partition
        newest = max(turn(topic, partition, offset) for topic, offset in applied.items())
        assert event.source.state == whose[newest], f"{event.user}: {event.source}, cuts {[c.floor for c in given]}"
        for topic, offset in applied.items():
            known[newest, event.user, topic] = max(offset, known.get((newest, event.user, topic), -1))
    for topic in deployment.settings.input.names:
        for record in deployment.records(topic):
            at = turn(topic, record.partition, record.offset), record.key.decode(), topic
            assert known.get(at, -1) >= record.offset, f"{at[1]} is not answered: {topic} {record.offset}"


def paid(first: Deployment, second: Deployment) -> None:
    """All is applied and committed, and nobody is owed a list."""
    first.settled()
    second.settled()

    def owes_nobody() -> bool:
        state = (turn_of(first) or pytest.fail("no turn")).answering
        group = next(d for d in (first, second) if d.settings.state.name == state).settings.group
        return not any(said.first is not None for said in run(notes(first.settings.kafka, group)).values())

    until(owes_nobody, 60, "nobody is owed a list")


def check_all(first: Deployment, second: Deployment) -> None:
    """Everyone is answered."""
    paid(first, second)
    check_answered(first)


def both(first: Deployment, second: Deployment) -> tuple[Worker, Worker]:
    v1 = first.worker().ready()
    v2 = second.worker(command=("worker", "--silent")).ready()
    return v1, v2


def execute(first: Deployment, second: Deployment, *flags: str, code: int = 0) -> str:
    ran = first.cli("cut-over", *names(first, second), "--execute", *flags)
    check_told(ran, code)
    return ran.output


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

        there = execute(deployment, second)
        assert f"state {one} is silent" in there and f"state {two} answers" in there
        subscriber.wait(200, two)
        cuts = [turn_of(deployment)]
        assert "nothing was done" in execute(deployment, second)

        back = execute(deployment, second, "--rollback")
        assert f"state {two} is silent" in back and f"state {one} answers" in back
        subscriber.wait(200, one)
        cuts.append(turn_of(deployment))
        gap = subscriber.longest_gap(since=100)
    print(there, back, f"longest gap {gap:.2f} s, before {steady:.2f} s")
    check_all(deployment, second)
    one_version_each(deployment, cuts)
    assert gap < GAP_S + 2 * steady, "and steady is next to nothing where the machine is not busy"
    assert [w.stop() for w in (v1, v2)] == [0, 0]


DIES = ["stream.cutover.near", "stream.cutover.silent", "stream.cutover.handed_over", "stream.cutover.begun"]
"""Where the command dies: before anything is written; when v1 was asked; when v1 is silent; when the turn is given."""


def dies_at(function: str) -> str:
    module, _, name = function.rpartition(".")
    return f"import os, {module} as module\nasync def die(*args): os._exit(9)\nmodule.{name} = die\n"


def killed(first: Deployment, second: Deployment, function: str, *flags: str) -> None:
    """Run the command until it dies there."""
    arguments = ("cut-over", *names(first, second), "--execute", *flags)
    command = Fork(arguments, {**os.environ, **first.environ}, first.folder / "command.log", dies_at(function))
    assert command.wait(60) == 9


def test_a_command_that_is_killed_at_any_step_goes_on_or_back_when_it_is_run_again(
    deployment: Deployment, second: Deployment
) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    v1, v2 = both(deployment, second)
    with Subscriber(deployment) as subscriber, Load(deployment):
        subscriber.wait(50, one)
        cuts: list[Turn | None] = []
        for function in DIES:
            killed(deployment, second, function)
            execute(deployment, second)
            cuts.append(turn_of(deployment))
            subscriber.wait(50, two)
            execute(deployment, second, "--rollback")
            cuts.append(turn_of(deployment))
            subscriber.wait(50, one)
        killed(deployment, second, "stream.cutover.handed_over")
        assert f"state {one} goes on" in execute(deployment, second, "--rollback"), "it goes back"
        subscriber.wait(50, one)
        turn = turn_of(deployment)
        assert turn is not None and turn.given and turn.answering == one
    check_all(deployment, second)
    one_version_each(deployment, cuts)
    assert [w.stop() for w in (v1, v2)] == [0, 0]


FALLS = (
    "import os\n"
    "from stream.answers.debts import Debts\n"
    "real = Debts._fall_silent\n"
    "def fall(self, falling, inputs):\n"
    "    if falling and {before}: os._exit(9)\n"
    "    real(self, falling, inputs)\n"
    "    if falling and not self.holding and self.news.is_set(): os._exit(9)\n"
    "Debts._fall_silent = fall\n"
)
BEGINS = (
    "import os\n"
    "from stream.answers.turns import Turns\n"
    "def take(self, partition, number): os._exit(9)\n"
    "Turns.take = take\n"
)
ANSWERS = (
    "import os\n"
    "from stream.lists.recommend import Recommender\n"
    "real, done = Recommender._acknowledged, []\n"
    "async def acknowledged(self, *args):\n"
    "    done.append(1)\n"
    "    if len(done) > 3: os._exit(9)\n"
    "    await real(self, *args)\n"
    "Recommender._acknowledged = acknowledged\n"
)


def dying(deployment: Deployment, second: Deployment, worker: Worker, successor: Worker | None = None) -> None:
    """Cut over under load, whereof `worker` dies: another one of its version goes on, started before or after."""
    one, two = deployment.settings.state.name, second.settings.state.name
    log = deployment.folder / "command.log"
    arguments = ("cut-over", *names(deployment, second), "--execute")
    with Subscriber(deployment) as subscriber, Load(deployment):
        subscriber.wait(50, one)
        command = Fork(arguments, {**os.environ, **deployment.environ}, log)
        until(lambda: worker.process.poll() == 9, 60, "the worker dies")
        successor = successor or second.worker(command=("worker", "--silent")).ready()
        assert command.wait(60) == 0
        execute(deployment, second)
        subscriber.wait(100, two)
    assert "is left" not in log.read_text()
    check_all(deployment, second)
    one_version_each(deployment, [turn_of(deployment)])
    alive = [w for w in deployment.workers if w is not worker]
    assert [w.stop() for w in alive] == [0] * len(alive)


def shared(deployment: Deployment, prelude: str) -> tuple[Worker, Worker]:
    """Two workers that have two partitions each, the first of which dies."""
    workers = deployment.worker(prelude).ready(), deployment.worker().ready()
    until(lambda: all(len(w.status()["partitions"]) == 2 for w in workers), 30, "the partitions are shared")
    return workers


def test_v1_dies_before_it_is_silent_and_each_event_is_one_s(deployment: Deployment, second: Deployment) -> None:
    """What it had answered since its last commit is answered again by its successor, and by nobody else."""
    workers = shared(deployment, FALLS.format(before=True))
    second.worker(command=("worker", "--silent")).ready()
    dying(deployment, second, *workers)


def test_v1_dies_silent_before_it_is_noted_and_each_event_is_one_s(deployment: Deployment, second: Deployment) -> None:
    workers = shared(deployment, FALLS.format(before=False))
    second.worker(command=("worker", "--silent")).ready()
    dying(deployment, second, *workers)


def test_v2_dies_before_it_begins_and_each_event_is_one_s(deployment: Deployment, second: Deployment) -> None:
    deployment.worker().ready()
    dying(deployment, second, second.worker(BEGINS, ("worker", "--silent")).ready())


def test_v2_dies_in_the_middle_of_what_is_owed_and_each_event_is_one_s(
    deployment: Deployment, second: Deployment
) -> None:
    deployment.worker().ready()
    dying(deployment, second, second.worker(ANSWERS, ("worker", "--silent")).ready())


def test_where_no_worker_is_left_what_it_has_committed_is_the_cut(deployment: Deployment, second: Deployment) -> None:
    """Nobody goes unanswered; who was answered after the last commit may be again."""
    one, two = deployment.settings.state.name, second.settings.state.name
    v1, v2 = both(deployment, second)
    with Subscriber(deployment) as subscriber, Load(deployment):
        subscriber.wait(50, one)
        v1.kill()
        assert f"no worker of state {one} is left" in execute(deployment, second)
        subscriber.wait(50, two)
        late = deployment.worker().ready()
        until(lambda: late.status().get("answering") == two, 30, "it has heard")
        subscriber.wait(50, two)
    check_all(deployment, second)
    assert late.status()["lists"] == 0, "it has lost its turn"
    assert [w.stop() for w in (late, v2)] == [0, 0]


def test_a_cut_over_that_makes_no_sense_is_refused_with_what_to_do(deployment: Deployment, second: Deployment) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    check_told(deployment.cli("cut-over", "--from", one, "--to", one), STATE, "itself")
    check_told(deployment.cli("cut-over", *names(deployment, second)), STATE, f"{one} has never read", "backfill")
    both(deployment, second)
    deployment.send([Sent("a", "i1", "view", T0)])
    second.settled()
    deployment.settled()
    for worker in deployment.workers[1:]:
        worker.stop()
    told = deployment.cli("cut-over", *names(deployment, second), "--execute")
    check_told(told, STATE, f"no worker of state {two} runs", f"eddyline worker --state {two} --silent")
    second.worker(command=("worker", "--silent")).ready()
    execute(deployment, second)
    check_told(deployment.cli("cut-over", "--from", one, "--to", "v9"), STATE, f"state {two} is the one that answers")


def test_a_user_kept_waiting_for_an_interval_hears_from_who_took_the_event_in(
    deployment: Deployment, second: Deployment
) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    v1 = deployment.worker(EDDYLINE_EMIT__MIN_INTERVAL_MS="3600000").ready()
    v2 = second.worker(command=("worker", "--silent")).ready()
    users = [f"u{n}" for n in range(8)]
    deployment.send([Sent(user, "i1", "view", T0) for user in users])
    deployment.settled()
    deployment.send([Sent(user, "i2", "click", T0 + 1000) for user in users])
    until(lambda: v1.status()["owed"] == 8, 30, "all are owed a list")
    execute(deployment, second)
    assert [event.source.state for event in deployment.lists()] == [one] * 16
    deployment.send([Sent(user, "i3", "buy", T0 + 2000) for user in users])
    check_all(deployment, second)
    assert [event.source.state for event in deployment.lists()].count(two) == 8
    one_version_each(deployment, [turn_of(deployment)])
    assert [w.stop() for w in (v1, v2)] == [0, 0]


def test_a_cut_over_in_a_pause_leaves_who_was_touched_in_it_to_the_other(
    deployment: Deployment, second: Deployment
) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    v1, v2 = both(deployment, second)
    deployment.send([Sent(f"u{n}", "i1", "view", T0) for n in range(8)])
    deployment.settled()
    deployment.cli("pause")
    until(lambda: v1.status()["paused"] and v2.status()["paused"], 30, "both have heard")
    deployment.send([Sent(f"u{n}", "i2", "click", T0 + 1000) for n in range(5)])
    deployment.settled()
    execute(deployment, second)
    assert [event.source.state for event in deployment.lists()] == [one] * 8
    deployment.cli("resume")
    check_all(deployment, second)
    later = [event for event in deployment.lists() if event.source.state == two]
    assert sorted(event.user for event in later) == [f"u{n}" for n in range(5)]
    assert len(deployment.lists()) == 13
    assert [w.stop() for w in (v1, v2)] == [0, 0]


def test_each_request_is_answered_once_while_versions_take_turns(deployment: Deployment, second: Deployment) -> None:
    v1, v2 = both(deployment, second)
    deployment.send([Sent(f"u{n}", "i1", "view", T0) for n in range(10)])
    deployment.settled()
    second.settled()
    ids: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            ids.extend(fresh := [f"r{len(ids) + n}" for n in range(10)])
            requests(deployment, fresh)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    for flags in ((), ("--rollback",), ()):
        execute(deployment, second, *flags)
        time.sleep(0.5)
    over.set()
    asking.join(30)
    answered(deployment, *ids)
    by = Counter(str(event.correlation_id) for event in answers(deployment))
    assert by == dict.fromkeys(ids, 1)
    assert {event.source.state for event in answers(deployment)} == {
        d.settings.state.name for d in (deployment, second)
    }
    assert [w.stop() for w in (v1, v2)] == [0, 0]


def test_roles_apart_take_turns_as_one(deployment: Deployment, second: Deployment) -> None:
    one, two = deployment.settings.state.name, second.settings.state.name
    silent = second.worker(command=("worker", "--silent"), EDDYLINE_ROLE="ingest")
    workers = [silent, recommend(second), ingest(deployment), recommend(deployment)]
    for worker in workers:
        worker.ready()
    with Subscriber(deployment) as subscriber, Load(deployment):
        subscriber.wait(50, one)
        execute(deployment, second)
        subscriber.wait(50, two)
        cuts = [turn_of(deployment)]
        execute(deployment, second, "--rollback")
        subscriber.wait(50, one)
        cuts.append(turn_of(deployment))
    paid(deployment, second)
    all_answered(deployment)
    all_answered(second)
    check_answered(deployment)
    one_version_each(deployment, cuts)
    assert [w.stop() for w in workers] == [0, 0, 0, 0]


def test_a_backfill_may_end_by_taking_the_turn(deployment: Deployment) -> None:
    old = deployment.settings.state.name
    first = deployment.worker().ready()
    history = [Sent(f"u{n % 12}", f"i{n % 20}", "click", T0 + 1000 * n) for n in range(300)]
    deployment.send(history)
    deployment.settled()
    second = deployment.with_state(f"{old}-2")
    command = ("backfill", "--as", second.settings.state.name, "--cut-over", old)
    taking = second.worker(command=command).ready()
    until(lambda: taking.status().get("answering") == second.settings.state.name, 60, "it is the new state's turn")
    new = [Sent(f"u{n % 12}", f"i{n % 7}", "click", T0 + 10**6 + 1000 * n) for n in range(60)]
    deployment.send(new)
    deployment.settled()
    second.settled()
    later = [event for event in deployment.lists() if event.source.ts >= new[0].ts]
    assert {event.user for event in later} == {e.user for e in new}
    assert {event.source.state for event in later} == {second.settings.state.name}
    assert first.stop() == 0 and taking.stop() == 0
