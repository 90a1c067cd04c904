"""Ingest and recommend as workers of their own: the same state and the same lists, whoever of them is lost."""

from __future__ import annotations

import signal

from stream.settings import load
from tests.pipeline import topics_io
from tests.pipeline.harness import Deployment, Worker, check_answered, check_state, run, some_events, until


def ingest(deployment: Deployment) -> Worker:
    return deployment.worker(EDDYLINE_ROLE="ingest")


def recommend(deployment: Deployment) -> Worker:
    return deployment.worker(EDDYLINE_ROLE="recommend")


def all_answered(deployment: Deployment) -> None:
    """Wait until all is applied and handed over, and all that was handed over is answered."""
    deployment.settled()
    apart = load(environ={**deployment.environ, "EDDYLINE_ROLE": "recommend"})
    topic = apart.topics.interests(apart.state.name)

    def committed() -> bool:
        done = run(topics_io.committed(apart, [topic]))
        return all((done[tp] or 0) >= end for tp, end in run(topics_io.ends(apart, [topic])).items())

    until(committed, 60, "all who were handed over are answered")


def test_two_roles_keep_the_state_and_answer_as_one(deployment: Deployment) -> None:
    events = some_events(3000, users=60)
    keeper, answerer = ingest(deployment).ready(), recommend(deployment).ready()
    deployment.send(events)
    all_answered(deployment)
    check_state(deployment, events)
    assert (keeper.status()["users"], "model" in keeper.status()) == (60, False)
    assert (answerer.status()["model"], "users" in answerer.status()) == ("fallback", False)
    until(lambda: answerer.status()["profiles"] > 0, 30, "long-term profiles are made from what was handed over")
    assert [w.stop() for w in (keeper, answerer)] == [0, 0]


def test_either_role_may_be_killed_frozen_or_doubled_in_mid_stream(deployment: Deployment) -> None:
    events = some_events(6000, users=80)
    keeper, answerer = ingest(deployment).ready(), recommend(deployment).ready()
    deployment.send(events[:1000])
    until(lambda: answerer.status().get("lists", 0) > 0, 30, "lists are made")
    answerer.kill()
    deployment.send(events[1000:2000])
    frozen, other = recommend(deployment).ready(), recommend(deployment).ready()
    until(lambda: len(other.status().get("partitions", [])) == 2, 30, "the partitions are shared")
    frozen.signal(signal.SIGSTOP)
    deployment.send(events[2000:3000])
    keeper.kill()
    first, second = ingest(deployment).ready(), ingest(deployment).ready()
    deployment.send(events[3000:4000])
    until(lambda: len(other.status().get("partitions", [])) == 4, 30, "the other has taken over")
    frozen.signal(signal.SIGCONT)
    deployment.send(events[4000:5000])
    assert first.stop() == 0
    deployment.send(events[5000:])
    all_answered(deployment)
    check_state(deployment, events)
    check_answered(deployment)
    assert second.stop() == 0


def test_a_deployment_may_change_its_layout(deployment: Deployment) -> None:
    """Windows, trends and offsets are the same state in either; what a change loses is a cache."""
    events = some_events(2000, users=40)
    whole = deployment.worker().ready()
    deployment.send(events[:1000])
    deployment.settled()
    assert whole.stop() == 0
    ingest(deployment).ready()
    recommend(deployment).ready()
    deployment.send(events[1000:])
    all_answered(deployment)
    check_state(deployment, events)
