"""Requests on a real Kafka: answered from the state as it is, without touching it, and lost by nobody's end."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import msgpack

from stream.messages import PopularReason, Recommendation, decode
from tests.pipeline import topics_io
from tests.pipeline.harness import ITEMS, Deployment, Sent, check_answered, check_state, run, some_events, until
from tests.pipeline.test_errors import check_told
from tests.pipeline.test_roles import ingest, recommend

T0 = 1_700_000_000_000
SLOW = (
    "import time\n"
    "from stream.lists.recommend import Recommender\n"
    "real = Recommender._compute\n"
    "def compute(self, *args):\n"
    "    time.sleep(0.1)\n"
    "    return real(self, *args)\n"
    "Recommender._compute = compute\n"
)
"""A worker that takes its time over lists, four at a time: there is a middle to crash in."""
FEW = {"EDDYLINE_RECOMMEND__MAX_BATCH": "4"}


def request(deployment: Deployment, user: str, correlation_id: str, **fields: Any) -> None:
    """Send a request as JSON."""
    value = json.dumps({"user": user, "correlation_id": correlation_id, **fields}).encode()
    deployment.send_raw([(deployment.settings.topics.requests, user.encode(), value, None, [])])


def requests(deployment: Deployment, ids: list[str], users: int = 10) -> None:
    topic = deployment.settings.topics.requests
    deployment.send_raw(
        (topic, user.encode(), json.dumps({"user": user, "correlation_id": one}).encode(), None, [])
        for n, one in enumerate(ids)
        for user in [f"u{n % users}"]
    )


def answers(deployment: Deployment) -> list[Recommendation]:
    return [event for event in deployment.lists() if isinstance(event.correlation_id, str)]


def answered(deployment: Deployment, *ids: str) -> dict[str, Recommendation]:
    """By their correlation id, once all of these are there."""
    until(lambda: set(ids) <= {str(a.correlation_id) for a in answers(deployment)}, 60, "all requests are answered")
    return {str(a.correlation_id): a for a in answers(deployment)}


def all_committed(deployment: Deployment) -> None:
    """Wait until every request is committed, as every event is."""

    deployment.settled()
    s = deployment.settings
    ends = run(topics_io.ends(s, [s.topics.requests]))

    def done() -> bool:
        committed = run(topics_io.committed(s, [s.topics.requests]))
        return all((committed[tp] or 0) >= end for tp, end in ends.items())

    until(done, 60, "all requests are committed")


def test_a_request_is_answered_from_the_state_as_it_is_and_touches_nothing(deployment: Deployment) -> None:
    events = some_events(300, users=5)
    worker = deployment.worker().ready()
    deployment.send(events)
    deployment.settled()
    before = {e.user: e for e in deployment.lists()}["u1"]
    request(deployment, "u1", "page-1", n=3, context={"category": "river"})
    got = answered(deployment, "page-1")["page-1"]
    assert [item.item for item in got.items] and {i.item for i in got.items} <= {
        item.item for item in ITEMS if "river" in item.categories
    }
    s = deployment.settings
    assert (got.source.topic, got.source.applied) == (s.topics.requests, before.source.applied)
    (asked,) = deployment.records(s.topics.requests)
    assert (got.source.partition, got.source.offset, got.source.ts) == (asked.partition, asked.offset, asked.timestamp)
    (record,) = [r for r in deployment.records(s.topics.recommendations) if decode(r.value) == got]
    assert (record.key, record.partition) == (b"u1", asked.partition)
    assert dict(record.headers)["ce_correlationid"] == b"page-1"
    assert got.interest.window > 0
    all_committed(deployment)
    check_state(deployment, events)
    status = worker.status()
    assert (status["requests"], status["events"], status["users"]) == (1, len(events), 5)
    assert worker.stop() == 0


def test_a_stranger_gets_a_list_and_what_is_no_request_goes_to_the_dead_letters(deployment: Deployment) -> None:
    worker = deployment.worker().ready()
    deployment.send(some_events(300, users=5))
    deployment.settled()
    s = deployment.settings
    packed = msgpack.packb({"user": "new", "correlation_id": "hello", "n": 4})
    deployment.send_raw([(s.topics.requests, b"new", packed, None, [("traceparent", b"00-1")])])
    request(deployment, "new", "wrong", context={"categry": "river"})
    request(deployment, "new", "last", context={"item": "i3"})
    got = answered(deployment, "hello", "last")
    assert got["hello"].items and got["hello"].source.applied == {} and "wrong" not in got
    assert all(isinstance(r, PopularReason) for i in got["hello"].items for r in i.reasons)
    assert "i3" not in {i.item for i in got["last"].items}
    (record,) = [r for r in deployment.records(s.topics.recommendations) if decode(r.value) == got["hello"]]
    assert dict(record.headers)["traceparent"] == b"00-1"
    until(lambda: deployment.records(s.topics.dead_letters), 30, "the dead letter is written")
    (letter,) = deployment.records(s.topics.dead_letters)
    assert json.loads(letter.value)["correlation_id"] == "wrong"
    assert b"unknown field `categry`" in dict(letter.headers)["kafka_dlt-exception-message"]
    assert dict(letter.headers)["kafka_dlt-original-topic"] == s.topics.requests.encode()
    all_committed(deployment)
    assert worker.status()["users"] == 5
    assert worker.stop() == 0


def test_whoever_asks_is_answered_whatever_holds_other_lists_back(deployment: Deployment) -> None:
    held = {"EDDYLINE_EMIT__MIN_INTERVAL_MS": "3600000", "EDDYLINE_EMIT__ONLY_IF_CHANGED": "true"}
    worker = deployment.worker(EDDYLINE_EMIT__ON="view,buy", **held).ready()
    deployment.send([Sent("a", "i1", "view", T0)])
    deployment.settled()
    for n in range(3):
        request(deployment, "a", f"r{n}")
        answered(deployment, f"r{n}")
    check_told(deployment.cli("pause"), 0, "paused")
    until(lambda: worker.status()["paused"], 30, "it is paused")
    deployment.send([Sent("a", "i2", "buy", T0 + 1000)])
    deployment.settled()
    request(deployment, "a", "paused")
    got = answered(deployment, "paused")
    assert len({tuple(i.item for i in got[r].items) for r in ("r0", "r1", "r2")}) == 1
    assert got["paused"].source.applied.keys() > got["r0"].source.applied.keys(), "the state went on meanwhile"
    assert Counter(isinstance(e.correlation_id, str) for e in deployment.lists()) == {True: 4, False: 1}
    assert worker.stop() == 0


def test_a_request_is_answered_at_least_once_though_a_worker_is_killed_and_once_if_none_is(
    deployment: Deployment,
) -> None:
    early, late = [f"e{n}" for n in range(60)], [f"l{n}" for n in range(20)]
    requests(deployment, early)
    first = deployment.worker(prelude=SLOW, **FEW).ready()
    until(lambda: len(answers(deployment)) >= 8, 60, "some are answered")
    first.kill()
    some = len(answers(deployment))
    assert some < len(early), "it was in the middle that it was killed"
    second = deployment.worker().ready()
    answered(deployment, *early)
    all_committed(deployment)
    assert second.stop() == 0
    before = Counter(a.correlation_id for a in answers(deployment))
    third = deployment.worker().ready()
    requests(deployment, late)
    answered(deployment, *late)
    all_committed(deployment)
    assert third.stop() == 0
    assert Counter(a.correlation_id for a in answers(deployment)) == before + Counter(late)
    names: dict[str, str] = {}
    for a in answers(deployment):
        assert names.setdefault(str(a.correlation_id), a.id) == a.id, "an answer that is repeated has the same name"


def test_no_request_is_lost_where_partitions_move(deployment: Deployment) -> None:
    ids = [f"r{n}" for n in range(120)]
    first = deployment.worker(prelude=SLOW, **FEW).ready()
    requests(deployment, ids[:60])
    second = deployment.worker(prelude=SLOW, **FEW).ready()
    requests(deployment, ids[60:])
    until(lambda: len(second.status().get("partitions", [])) == 2, 60, "the partitions are shared")
    assert first.stop() == 0
    answered(deployment, *ids)
    all_committed(deployment)
    assert second.stop() == 0


def test_where_roles_are_apart_requests_are_handed_over_with_the_row(deployment: Deployment) -> None:
    events = some_events(600, users=10)
    keeper, answerer = ingest(deployment).ready(), recommend(deployment).ready()
    deployment.send(events)
    deployment.settled()
    request(deployment, "u1", "known", context={"only": ["i1", "i2", "i3", "i4", "i5"]})
    request(deployment, "nobody", "unknown", n=2)
    got = answered(deployment, "known", "unknown")
    until(lambda: answerer.status()["waiting"] == 0 and keeper.status()["waiting"] == 0, 30, "nobody waits")
    check_answered(deployment)
    known = got["known"]
    assert {i.item for i in known.items} <= {"i1", "i2", "i3", "i4", "i5"} and known.interest.window > 0
    assert (got["unknown"].source.applied, bool(got["unknown"].items)) == ({}, True)
    assert known.source.topic == deployment.settings.topics.requests
    assert [w.stop() for w in (keeper, answerer)] == [0, 0]


def test_a_backfill_leaves_requests_to_the_version_that_serves(deployment: Deployment) -> None:
    deployment.send(some_events(100, users=5))
    requests(deployment, ["before"])
    ran = deployment.cli("backfill", "--as", "again")
    assert ran.code == 0, ran.output
    assert answers(deployment) == []
    other = deployment.with_state("again")
    worker = other.worker().ready()
    requests(other, ["after"])
    assert set(answered(other, "after")) == {"after"}
    assert worker.stop() == 0


def test_a_command_asks_and_prints_the_answer(deployment: Deployment) -> None:
    check_told(deployment.cli("request", "a", "--timeout", "1"), 1, "no answer for a within 1 s", "a worker runs")
    worker = deployment.worker().ready()
    ran = deployment.cli("request", "a", "-n", "3", "--category", "river", "--json")
    assert ran.code == 0, ran.output
    answer = json.loads(ran.output[ran.output.index("{") :])
    assert (answer["user"], bool(answer["correlation_id"]), bool(answer["items"])) == ("a", True, True)
    check_told(deployment.cli("request", "a", "-n", "2"), 0, "popular")
    assert worker.stop() == 0
