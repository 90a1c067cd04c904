"""A broker that goes away and comes back: the worker waits for it, and nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.dev.broker import LocalBroker
from stream.errors import BrokerUnavailable
from tests.pipeline.harness import Deployment, check_state, some_events

AWAY_S = 12.0
REQUEST_TIMEOUT_MS = 3000
"""Shorter than the outage: whatever was under way when the broker went has run out of time when it is back."""


STOP_S = 30.0
"""What supervisors commonly grant between telling a process to stop and killing it."""


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    """A broker that no other test uses."""
    local = LocalBroker(tmp_path / "broker")
    local.start()
    yield local
    local.stop()


@pytest.fixture
def outage(own_broker: LocalBroker, cache: Path, tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(own_broker.address, "outage", tmp_path, cache)
    yield deployment.create()
    deployment.close()


def test_events_lists_and_dead_letters_survive_a_broker_that_was_away(
    own_broker: LocalBroker, outage: Deployment
) -> None:
    topic, events = outage.settings.input.topics["view"], some_events(6000, users=400)
    worker = outage.worker(EDDYLINE_KAFKA__REQUEST_TIMEOUT_MS=str(REQUEST_TIMEOUT_MS)).ready()
    outage.send(events[:1000])
    outage.settled()
    outage.send(events[1000:5000])
    outage.send_raw((topic, None, b"%d" % n, events[0].ts, []) for n in range(500))
    own_broker.kill()
    time.sleep(AWAY_S)
    own_broker.start()
    outage.send(events[5000:])
    outage.settled()
    check_state(outage, events)
    letters = {record.value for record in outage.records(outage.settings.topics.dead_letters)}
    assert letters == {b"%d" % n for n in range(500)}
    assert worker.stop() == 0


def test_a_worker_that_is_stopped_while_the_broker_is_away_ends_in_time_and_loses_nothing(
    own_broker: LocalBroker, outage: Deployment
) -> None:
    events = some_events(3000, users=300)
    worker = outage.worker().ready()
    outage.send(events)
    own_broker.kill()
    worker.signal(signal.SIGTERM)
    worker.process.wait(STOP_S)
    assert "Traceback" not in worker.log.read_text()
    own_broker.start()
    outage.worker().ready()
    outage.settled()
    check_state(outage, events)


@pytest.mark.parametrize("when", ["Pipeline.start = gone", "Pipeline.failure = property(lambda self: gone_error)"])
def test_a_broker_that_goes_while_a_worker_starts_is_told_as_one_that_was_never_there(
    deployment: Deployment, when: str
) -> None:
    prelude = "from aiokafka.errors import KafkaConnectionError\nfrom stream.app import Pipeline\n"
    prelude += "gone_error = KafkaConnectionError('Unable to bootstrap')\nasync def gone(self):\n    raise gone_error\n"
    worker = deployment.worker(prelude + when + "\n")
    assert worker.process.wait(60) == BrokerUnavailable.exit_code
    log = worker.log.read_text()
    assert "no Kafka broker answers" in log and "Traceback" not in log
