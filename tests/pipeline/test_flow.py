"""When lists go out, on a real Kafka: what is held back is committed, owed, and answered once, crash or no crash."""

from __future__ import annotations

import time
from collections import Counter
from itertools import pairwise

from stream.kafka.debts import debts
from stream.publishing import publish_items
from tests.pipeline.harness import (
    ITEMS,
    Deployment,
    Sent,
    Worker,
    check_answered,
    check_state,
    run,
    some_events,
    until,
)
from tests.pipeline.test_errors import check_told

T0 = 1_700_000_000_000
SLOW = (
    "import time\n"
    "from stream.ingest import Ingest\n"
    "real = Ingest.batch\n"
    "def batch(self, tp, records):\n"
    "    time.sleep(0.1)\n"
    "    real(self, tp, records)\n"
    "Ingest.batch = batch\n"
)
"""A worker that takes its time over a batch: there is a middle to crash in."""


def owed(deployment: Deployment) -> dict:
    return run(debts(deployment.settings.kafka, deployment.settings.group))


def paid(deployment: Deployment) -> None:
    """Everything is committed, and nobody is owed a list."""
    deployment.settled()
    until(lambda: not owed(deployment), 60, "nobody is owed a list any more")


def lists_per_user(deployment: Deployment) -> Counter[str]:
    return Counter(event.user for event in deployment.lists())


def send_in_small_batches(deployment: Deployment, events: list[Sent], size: int = 250) -> None:
    for start in range(0, len(events), size):
        deployment.send(events[start : start + size])


def test_only_the_actions_that_are_named_cause_lists(deployment: Deployment) -> None:
    events = some_events(600, users=30)
    worker = deployment.worker(EDDYLINE_EMIT__ON="buy").ready()
    deployment.send(events)
    deployment.settled()
    assert set(lists_per_user(deployment)) == {e.user for e in events if e.action == "buy"}
    assert {event.source.topic for event in deployment.lists()} == {deployment.settings.input.topics["buy"]}
    assert worker.stop() == 0


def test_a_user_gets_one_list_in_an_interval_and_the_newest_state_when_it_is_over(deployment: Deployment) -> None:
    worker = deployment.worker(EDDYLINE_EMIT__MIN_INTERVAL_MS="1500").ready()
    for n in range(12):
        deployment.send([Sent("a", f"i{n}", "view", T0 + 1000 * n), Sent("b", f"i{n}", "buy", T0 + 1000 * n)])
    paid(deployment)
    check_answered(deployment)
    assert all(n < 12 for n in lists_per_user(deployment).values())
    assert worker.stop() == 0


def test_a_list_held_back_for_an_interval_is_the_next_worker_s_to_send(deployment: Deployment) -> None:
    hour = {"EDDYLINE_EMIT__MIN_INTERVAL_MS": "3600000"}
    users = [f"u{n}" for n in range(8)]
    worker = deployment.worker(**hour).ready()
    deployment.send([Sent(user, "i1", "view", T0) for user in users])
    deployment.settled()
    deployment.send([Sent(user, "i2", "view", T0 + 1000) for user in users])
    deployment.settled()
    until(lambda: worker.status()["owed"] == 8, 30, "all are owed a list")
    assert lists_per_user(deployment) == dict.fromkeys(users, 1)
    assert worker.stop() == 0 and owed(deployment)
    second = deployment.worker(**hour).ready()
    paid(deployment)
    assert lists_per_user(deployment) == dict.fromkeys(users, 2)
    check_answered(deployment)
    assert second.stop() == 0


def test_a_list_that_says_nothing_new_is_not_sent_and_its_event_is_committed(deployment: Deployment) -> None:
    worker = deployment.worker(EDDYLINE_EMIT__ONLY_IF_CHANGED="true", EDDYLINE_EMIT__REASONS="false").ready()
    again = Sent("a", "i3", "view", T0)  # a window is a set: nothing new
    sent = 0

    def suppressed() -> bool:
        nonlocal sent
        deployment.send([again])
        sent += 1
        deployment.settled()
        return worker.status()["suppressed"] >= 3

    until(suppressed, 60, "an equal list is held back")
    lists = deployment.lists()
    assert len(lists) + worker.status()["suppressed"] == sent
    said = [[item.item for item in event.items] for event in lists]
    assert all(before != after for before, after in pairwise(said))
    assert not any(item.reasons for event in lists for item in event.items)
    assert worker.stop() == 0


def test_a_backlog_is_caught_up_with_in_silence_and_each_user_gets_one_list(deployment: Deployment) -> None:
    events = some_events(4000, users=70)
    send_in_small_batches(deployment, events)
    worker = deployment.worker(prelude=SLOW, EDDYLINE_EMIT__MAX_LAG="1").ready()
    paid(deployment)
    assert lists_per_user(deployment) == {user: 1 for user in {e.user for e in events}}
    check_state(deployment, events)
    later = some_events(40, users=10, start=T0 + 10**8)
    deployment.send(later)
    paid(deployment)
    check_state(deployment, events + later)
    assert worker.stop() == 0


def test_a_crash_in_the_silence_costs_no_answer_and_no_second_one(deployment: Deployment) -> None:
    events = some_events(4000, users=70)
    send_in_small_batches(deployment, events)
    silent = {"EDDYLINE_EMIT__MAX_LAG": "1", "EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "4000"}
    first = deployment.worker(prelude=SLOW, **silent).ready()
    until(lambda: len(owed(deployment)) >= 3, 60, "offsets are committed in silence")
    first.kill()
    assert deployment.lists() == [], "it was in the silence that it was killed"
    half_way = sum(at or 0 for at in deployment.committed().values())
    assert 0 < half_way < len(events)
    second = deployment.worker(**silent).ready()
    paid(deployment)
    assert second.status()["events"] <= len(events) - half_way, "what was committed is not read again"
    assert lists_per_user(deployment) == {user: 1 for user in {e.user for e in events}}
    check_state(deployment, events)
    assert second.stop() == 0


def both_paused(workers: list[Worker], paused: bool) -> None:
    until(lambda: all(w.status()["paused"] is paused for w in workers), 30, f"paused: {paused} on all workers")


def test_a_pause_holds_lists_back_on_all_workers_and_a_resume_answers_everyone_once(deployment: Deployment) -> None:
    before, meanwhile = some_events(500, users=40), some_events(900, users=60, seed=1, start=T0 + 10**7)
    workers = [deployment.worker().ready()]
    workers.append(deployment.worker().ready())
    until(lambda: all(len(w.status()["partitions"]) == 2 for w in workers), 30, "the partitions are shared")
    deployment.send(before)
    paid(deployment)
    said = lists_per_user(deployment)

    check_told(deployment.cli("pause"), 0, "paused", "eddyline resume")
    both_paused(workers, True)
    deployment.send(meanwhile[:450])
    deployment.settled()
    workers[0].kill()
    workers.append(deployment.worker().ready())
    assert workers[2].status()["paused"] is True
    deployment.send(meanwhile[450:])
    deployment.settled()
    assert workers[1].stop() == 0
    assert lists_per_user(deployment) == said and owed(deployment)

    check_told(deployment.cli("resume"), 0, "resumed")
    paid(deployment)
    assert lists_per_user(deployment) - said == {user: 1 for user in {e.user for e in meanwhile}}
    check_state(deployment, before + meanwhile)
    assert workers[2].stop() == 0


CROWDED = (
    "from stream import ingest\n"
    "ingest.WAITING_HIGH = 40\n"
    "from stream.kafka.transport import BatchConsumer\n"
    "fetched, real = [0], BatchConsumer._getmany\n"
    "async def getmany(self, *args, **kwargs):\n"
    "    records = await real(self, *args, **kwargs)\n"
    "    if self.app.tables.actives_ready: fetched[0] += sum(map(len, records.values()))\n"
    "    return records\n"
    "BatchConsumer._getmany = getmany\n"
    "from stream.app import Pipeline\n"
    "status = Pipeline.status\n"
    "Pipeline.status = lambda self: {**status(self), 'fetched': fetched[0]}\n"
)
"""A worker that takes nothing in while 40 users wait, and tells how many records it has fetched."""


def at_rest(worker: Worker) -> dict:
    """The worker's status, when nothing moves any more."""
    seen: list[dict] = [{}]

    def still() -> bool:
        seen.append(worker.status())
        return bool(seen[-1]) and [seen[-1][k] for k in ("fetched", "events")] == [
            seen[-2].get(k) for k in ("fetched", "events")
        ]

    until(lambda: worker.status().get("waiting", 0) > 40, 60, "more users wait than there is room for")
    time.sleep(1.0)
    until(still, 30, "it comes to rest")
    return seen[-1]


def test_what_cannot_be_answered_is_left_in_kafka_and_a_worker_that_waits_can_share_and_stop(
    empty: Deployment,
) -> None:
    """Nobody is answered, as there is no catalogue. Nothing is polled meanwhile, and the worker stays a member."""
    small = {
        "EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "4000",
        "EDDYLINE_KAFKA__MAX_POLL_INTERVAL_MS": "1000",
        "EDDYLINE_STATE__SETTLE_TIMEOUT_S": "1",
    }
    empty.create(items=[])
    events = some_events(4000, users=400)
    first = empty.worker(prelude=CROWDED, **small)
    send_in_small_batches(empty, events, 500)
    held = at_rest(first)
    assert held["events"] <= held["fetched"] < len(events) / 2, "memory is filled instead"
    second = empty.worker(prelude=CROWDED, **small)
    until(lambda: len(second.status().get("partitions", [])) == 2, 60, "the partitions are shared")
    assert at_rest(second)["fetched"] < len(events) / 2
    first.stop()
    until(lambda: len(second.status().get("partitions", [])) == 4, 60, "the partitions are handed over")
    run(publish_items(empty.settings.kafka, empty.settings.topics.catalog, ITEMS))
    empty.settled(90)
    check_state(empty, events)
    assert second.stop() == 0
