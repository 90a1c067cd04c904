"""A producer and a subscriber that are not ours: what any Kafka client sees of eddyline."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
from confluent_kafka import Consumer, Message, Producer

from stream.kafka.placing import partition_of
from tests.pipeline.harness import ITEMS, PARTITIONS, Deployment

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "recommendation.json").read_text())
USERS = [f"Zoë-{n}" for n in range(12)]
ROUNDS = 4
T0 = 1_700_000_000_000


def trace_of(user: int, n: int) -> bytes:
    return b"00-%032x-%016x-01" % (user + 1, n + 1)


class Subscriber:
    """Reads the recommendations of a deployment with a group of its own."""

    def __init__(self, deployment: Deployment) -> None:
        s = deployment.settings
        self._consumer = Consumer(
            {
                "bootstrap.servers": s.kafka.bootstrap_servers,
                "group.id": "not-ours",
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.subscribe([s.topics.recommendations])

    def until_covered(self, wanted: dict[tuple[str, str], int], timeout: float = 60.0) -> list[Message]:
        """Messages, until for each (user, topic) one has applied the wanted offset."""
        got: list[Message] = []
        deadline, missing = time.monotonic() + timeout, dict(wanted)
        while missing:
            assert time.monotonic() < deadline, f"no list covers {missing}"
            message = self._consumer.poll(0.5)
            if message is None:
                continue
            assert message.error() is None
            got.append(message)
            said = body(message)
            for topic, offset in said["source"]["applied"].items():
                if offset >= missing.get((said["user"], topic), 1 << 62):
                    del missing[said["user"], topic]
        return got

    def close(self) -> None:
        self._consumer.close()


def body(message: Message) -> dict[str, Any]:
    return json.loads(message.value() or b"")


def headers_of(message: Message) -> dict[str, bytes]:
    return {name: value for name, value in message.headers() or [] if isinstance(value, bytes)}


def publish(deployment: Deployment) -> dict[tuple[str, str], Message]:
    """A few rounds of events, JSON and MessagePack by turns; the last acknowledged one of each user and topic."""
    s = deployment.settings
    producer = Producer({"bootstrap.servers": s.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    acknowledged: dict[tuple[str, str], Message] = {}

    def delivered(error: Any, message: Message) -> None:
        assert error is None
        acknowledged[(message.key() or b"").decode(), message.topic() or ""] = message

    for n in range(ROUNDS):
        for u, user in enumerate(USERS):
            topic = s.input.topics[("view", "click", "buy")[(n + u) % 3]]
            event = {"user": user, "item": ITEMS[(7 * n + u) % len(ITEMS)].item, "ts": T0 + 1000 * n}
            as_json = (n + u) % 2 == 0
            value = json.dumps(event).encode() if as_json else msgpack.packb(event)
            kind = b"application/json" if as_json else b"application/msgpack"
            sent_headers: list[tuple[str, str | bytes | None]] = [
                ("content-type", kind),
                ("traceparent", trace_of(u, n)),
            ]
            producer.produce(topic, value, user.encode(), headers=sent_headers, on_delivery=delivered, timestamp=T0)
        producer.flush(30)
        time.sleep(0.3)
    return acknowledged


@pytest.fixture
def subscriber(deployment: Deployment) -> Iterator[Subscriber]:
    one = Subscriber(deployment)
    yield one
    one.close()


def test_lists_are_as_published_to_any_subscriber(deployment: Deployment, subscriber: Subscriber) -> None:
    worker = deployment.worker().ready()
    last = publish(deployment)
    for (user, _), message in last.items():
        assert message.partition() == partition_of(user, PARTITIONS), "another client puts a user elsewhere"
    messages = subscriber.until_covered({at: message.offset() or 0 for at, message in last.items()})
    assert {body(m)["user"] for m in messages} == set(USERS)

    validator = jsonschema.Draft202012Validator(SCHEMA)
    known = {item.item for item in ITEMS}
    names: dict[str, tuple] = {}
    knowledge: dict[str, dict[str, int]] = defaultdict(dict)
    for message in messages:
        said = body(message)
        validator.validate(said)
        check_headers(message, said)
        check_list(said, known)
        source, user = said["source"], said["user"]
        assert message.partition() == source["partition"] == partition_of(user, PARTITIONS)
        assert source["applied"][source["topic"]] >= source["offset"], "the list does not know of its own trigger"
        of = (user, tuple(sorted(source["applied"].items())), source["topic"], source["partition"], source["offset"])
        assert names.setdefault(said["id"], of) == of
        assert all(source["applied"].get(topic, -1) >= offset for topic, offset in knowledge[user].items())
        knowledge[user] = source["applied"]
    assert len(names) == len(set(names.values())), "one knowledge and trigger have two names"
    assert worker.stop() == 0


def check_headers(message: Message, said: dict[str, Any]) -> None:
    """CloudEvents in Kafka's binary mode, and the trigger's trace."""
    headers = headers_of(message)
    assert (message.key() or b"").decode() == said["user"] == headers["ce_subject"].decode()
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"].decode() == said["id"]
    assert headers["ce_type"] == b"eddyline.recommendation.v1"
    assert headers["ce_source"].decode() == f"/eddyline/{said['source']['state']}"
    assert headers["content-type"] == b"application/json"
    assert round(datetime.fromisoformat(headers["ce_time"].decode()).timestamp() * 1000) == said["ts"]
    n = (said["source"]["ts"] - T0) // 1000
    assert headers["traceparent"] == trace_of(USERS.index(said["user"]), n)


def check_list(said: dict[str, Any], known: set[str]) -> None:
    """A list of the catalogue's items, each once, best first, that its user has not met."""
    items = [item["item"] for item in said["items"]]
    assert len(items) == len(set(items)) == 10 and set(items) <= known
    assert [item["rank"] for item in said["items"]] == list(range(1, 11))
    scores = [item["score"] for item in said["items"]]
    assert scores == sorted(scores, reverse=True)
    assert said["interest"]["short"] + said["interest"]["long"] == pytest.approx(1)
    u = USERS.index(said["user"])
    window = {ITEMS[(7 * n + u) % len(ITEMS)].item for n in range((said["source"]["ts"] - T0) // 1000 + 1)}
    assert not window & set(items), "an item that the user has met is recommended"
    reasons = [reason for item in said["items"] for reason in item["reasons"]]
    assert all(0 < reason["share"] <= 1.0001 for reason in reasons)
    assert {reason["item"] for reason in reasons if reason["type"] == "interaction"} <= window
