"""A new state version from history: silent, equal to the state that lived through it, and then in its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from aiokafka import AIOKafkaProducer

from stream.kafka.placing import partition_of
from stream.publishing import encode_event
from stream.windows.packing import digest
from tests.pipeline.harness import PARTITIONS, Deployment, Sent, Worker, check_windows, run, some_events, until

T0 = 1_700_000_000_000
BACKFILL_S = 90.0


def backfill(deployment: Deployment, *flags: str) -> Worker:
    """Run `eddyline backfill` until it has caught up."""
    worker = deployment.worker(command=("backfill", "--as", deployment.settings.state.name, *flags))
    assert worker.process.wait(BACKFILL_S) == 0, worker.log.read_text()[-3000:]
    log = worker.log.read_text()
    assert "Traceback" not in log
    assert f"run it with: eddyline worker --state {deployment.settings.state.name}" in log
    return worker


def lived_through(deployment: Deployment, n: int = 2500, users: int = 40, seed: int = 0) -> list[Sent]:
    """Events that v1 has served."""
    events = some_events(n, users, seed=seed)
    worker = deployment.worker().ready()
    half = n // 2
    deployment.send(events[:half])
    deployment.settled()
    deployment.send(events[half:])
    deployment.settled()
    assert worker.stop() == 0
    return events


def test_a_backfill_is_silent_and_equals_the_state_that_lived_through_it(deployment: Deployment) -> None:
    events = lived_through(deployment)
    served = len(deployment.lists())
    second = deployment.with_state("v2")
    backfill(second)
    assert len(second.lists()) == served, "history was answered again"
    assert digest(second.windows()) == digest(deployment.windows())
    assert second.trends() == deployment.trends()
    assert second.committed() == second.ends() == deployment.committed()

    worker = second.worker().ready()
    new = some_events(60, users=40, seed=1, start=T0 + 10**9)
    second.send(new)
    second.settled()
    answers = [event for event in second.lists() if event.source.ts >= new[0].ts]
    assert len(answers) == len(second.lists()) - served
    assert {event.user for event in answers} == {e.user for e in new}
    assert {event.source.state for event in answers} == {"v2"}
    check_windows(second, events + new)
    assert worker.stop() == 0


def test_a_backfill_that_is_run_again_goes_on_and_changes_nothing(deployment: Deployment) -> None:
    lived_through(deployment, n=600)
    second = deployment.with_state("v2")
    backfill(second)
    rows, trends, lists = digest(second.windows()), second.trends(), len(second.lists())
    again = backfill(second)
    assert "going on where it stopped" in again.log.read_text()
    assert (digest(second.windows()), second.trends(), len(second.lists())) == (rows, trends, lists)


def test_a_backfill_that_was_killed_goes_on_to_the_same_state(deployment: Deployment) -> None:
    lived_through(deployment, n=4000)
    second = deployment.with_state("v2")
    slow = "from stream.windows import window\nimport time\nreal = window.apply\n"
    slow += "def apply(*a):\n    time.sleep(0.2)\n    return real(*a)\nwindow.apply = apply\n"
    killed = second.worker(slow, ("backfill", "--as", "v2"), EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES="4096")
    until(lambda: killed.status().get("events", 0) > 500, BACKFILL_S, "the backfill is under way")
    killed.kill()
    assert second.committed() != second.ends()
    backfill(second)
    assert digest(second.windows()) == digest(deployment.windows())
    assert second.trends() == deployment.trends()


def test_a_backfill_since_a_time_knows_nothing_from_before(deployment: Deployment) -> None:
    events = lived_through(deployment, n=1000)
    second = deployment.with_state("v2")
    backfill(second, "--since", "2023-11-14T22:21:40+00:00")  # T0 + 500 s: an event a second
    check_windows(second, events[500:])
    windows = second.windows()
    times = [windows.read(row)["time"].min() for rows in windows.users.values() for row in rows.values()]
    assert np.min(times) == T0 + 500_000


def test_a_backfill_of_nothing_is_done_at_once(deployment: Deployment) -> None:
    second = deployment.with_state("v2")
    backfill(second)
    assert len(second.windows()) == 0 and second.lists() == []


def test_a_backfill_that_serves_answers_what_comes_after_it(deployment: Deployment) -> None:
    lived_through(deployment, n=300)
    served = len(deployment.lists())
    second = deployment.with_state("v2")
    worker = second.worker(command=("backfill", "--as", "v2", "--serve")).ready()
    new = some_events(40, users=10, seed=2, start=T0 + 10**9)
    second.send(new)
    second.settled()
    answers = [event for event in second.lists() if event.source.ts >= new[0].ts]
    assert {event.user for event in answers} == {e.user for e in new}
    assert len(answers) == len(second.lists()) - served
    assert worker.stop() == 0


async def _in_transactions(deployment: Deployment, events: Sequence[Sent]) -> None:
    """Publish as a shop with exactly-once producers does: a marker after every few events, and some aborted."""
    s = deployment.settings
    producer = AIOKafkaProducer(**s.kafka.producer(), transactional_id="shop")
    await producer.start()
    for start in range(0, len(events), 5):
        await producer.begin_transaction()
        for e in events[start : start + 5]:
            topic, value = s.input.topics[e.action], encode_event(e.user, e.item, e.ts)
            await producer.send(topic, value, key=e.user.encode(), partition=partition_of(e.user, PARTITIONS))
        await producer.commit_transaction()
        await producer.begin_transaction()
        for topic in s.input.names:
            for partition in range(PARTITIONS):
                await producer.send(topic, b"{}", key=b"aborted", partition=partition)
        await producer.abort_transaction()
    await producer.stop()


def test_a_backfill_ends_where_the_last_committed_event_is(deployment: Deployment) -> None:
    """Logs end with markers and aborted events, which are never delivered: waiting for their offsets is for ever."""
    events = some_events(60, users=8)
    run(_in_transactions(deployment, events))
    second = deployment.with_state("v2")
    backfill(second)
    check_windows(second, events)
    assert second.records(second.settings.topics.dead_letters) == []
