"""Records that are no events: each ends in the dead letters with its bytes and its reason, and stops nothing."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgpack

from model.history import item_hash
from stream.kafka.clients import MAX_MESSAGE_BYTES
from stream.kafka.placing import partition_of
from tests.pipeline.harness import PARTITIONS, Deployment

T0 = 1_700_000_000_000
JSON = ("content-type", b"application/json")
MSGPACK = ("content-type", b"application/msgpack")


def body(**fields: Any) -> bytes:
    return json.dumps({"user": "u", "item": "i3", **fields}).encode()


@dataclass(frozen=True)
class Bad:
    """A record that is no event, and words of the reason."""

    reason: str
    value: bytes | None
    key: bytes | None = b"u"
    headers: tuple[tuple[str, bytes], ...] = ()


BAD = {
    "not JSON": Bad("neither a JSON object nor a MessagePack map", b"hello, world"),
    "truncated JSON": Bad("truncated", body()[:-4]),
    "a JSON array": Bad("got `array`", b'["u", "i3"]'),
    "two JSON values": Bad("trailing characters", body() + body()),
    "a wrong type for user": Bad("at `$.user`", body(user={"id": "u"})),
    "no user": Bad("missing required field `user`", b'{"item": "i3"}'),
    "no item": Bad("missing required field `item`", b'{"user": "u"}'),
    "an empty user": Bad("empty user", body(user=""), b""),
    "an empty item": Bad("empty item", body(item="")),
    "a NUL byte in the user": Bad("NUL byte in user", body(user="u\0"), b"u\0"),
    "a NUL byte in the item": Bad("NUL byte in item", body(item="\0")),
    "a time too far ahead": Bad("ahead of its record", body(ts=T0 + 7_200_000)),
    "a negative time": Bad("before 1970", body(ts=-1)),
    "a time that is no time": Bad("not ISO 8601", body(ts="half past nine")),
    "a time beyond all numbers": Bad("too large", body(ts=10**400)),
    "two megabytes": Bad("input.max_event_bytes", body(context={"filler": "x" * 2_000_000})),
    "nested 100,000 deep": Bad("nested too deeply", b'{"user": "u", "item": "i3", "context": {"a": ' + b"[" * 100_000),
    "MessagePack nested 100,000 deep": Bad("not MessagePack: StackError", b"\x81\xa1a" + b"\x91" * 100_000),
    "a null value": Bad("the value is null", None),
    "neither key nor value": Bad("the value is null", None, None),
    "a null key": Bad("no key", body(), None),
    "a key that is not the user": Bad("is not its user 'u'", body(), b"someone-else"),
    "an unknown content type": Bad(
        "unknown content type 'text/csv'", b"u,i3", headers=(("content-type", b"text/csv"),)
    ),
    "JSON that says it is MessagePack": Bad("not MessagePack", body(), headers=(MSGPACK,)),
    "invalid UTF-8": Bad("utf-8", b'{"user": "u", "item": "\xff\xfe"}', headers=(JSON,)),
    "truncated MessagePack": Bad("incomplete", (msgpack.packb({"user": "u", "item": "i3"}) or b"")[:-1]),
    "MessagePack with a list as a key": Bad("list is not allowed for map key", b"\x81\x91\x01\x02"),
    "an empty value": Bad("the value is empty", b""),
    "a lone surrogate": Bad("surrogate", b'{"user": "u", "item": "\\ud800 and more"}'),
    "with headers of its own": Bad("neither", b"?", headers=(("a", b"1"), ("a", b"2"), ("traceparent", b"00-ab"))),
}


def neighbours(partition: int, n: int) -> tuple[str, str]:
    """Two users of a partition, met nowhere else."""
    found = (user for i in count() if partition_of(user := f"good-{n}-{i}", PARTITIONS) == partition)
    return next(found), next(found)


def send_between_good_ones(deployment: Deployment) -> list[str]:
    """Every bad record between two good events of its partition; returns the good users."""
    topic, good = deployment.settings.input.topics["click"], list[str]()
    records = []
    for n, bad in enumerate(BAD.values()):
        partition = partition_of(bad.key.decode(), PARTITIONS) if bad.key is not None else 0
        before, after = neighbours(partition, n)
        records += [
            (topic, before.encode(), body(user=before, ts=T0 + n), T0, [JSON]),
            (topic, bad.key, bad.value, T0 + n, list(bad.headers)),
            (topic, after.encode(), body(user=after, ts=T0 + n), T0, [JSON]),
        ]
        good += [before, after]
    deployment.send_raw(records)
    return good


def check_letter(letter: Any, record: Any, bad: Bad, group: str) -> None:
    """The letter is the record, with Spring's headers after its own: text as UTF-8, numbers big-endian."""
    assert letter.value == record.value == bad.value
    assert letter.key == record.key == bad.key
    assert letter.partition == record.partition
    own = len(bad.headers)
    assert tuple(letter.headers[:own]) == bad.headers == tuple(record.headers)
    added = dict(letter.headers[own:])
    assert added["kafka_dlt-original-topic"].decode() == record.topic
    assert struct.unpack(">i", added["kafka_dlt-original-partition"]) == (record.partition,)
    assert struct.unpack(">q", added["kafka_dlt-original-offset"]) == (record.offset,)
    assert struct.unpack(">q", added["kafka_dlt-original-timestamp"]) == (record.timestamp,)
    assert added["kafka_dlt-original-timestamp-type"] == b"CREATE_TIME"
    assert added["kafka_dlt-original-consumer-group"].decode() == group
    assert added["kafka_dlt-exception-fqcn"] == b"stream.records.Unreadable"
    assert bad.reason in added["kafka_dlt-exception-message"].decode()


def test_whatever_is_no_event_is_a_dead_letter_and_the_events_around_it_are_answered(deployment: Deployment) -> None:
    good = send_between_good_ones(deployment)
    worker = deployment.worker().ready()
    deployment.settled()

    s = deployment.settings
    records = [r for r in deployment.records(s.input.topics["click"]) if not (r.key or b"").startswith(b"good-")]
    letters = deployment.records(s.topics.dead_letters)
    assert len(records) == len(letters) == len(BAD)
    by_place = {(r.partition, r.offset): r for r in records}
    for letter in letters:
        headers = dict(letter.headers)
        place = headers["kafka_dlt-original-partition"] + headers["kafka_dlt-original-offset"]
        record = by_place.pop(struct.unpack(">iq", place))
        check_letter(letter, record, list(BAD.values())[record.timestamp - T0], s.group)
    assert not by_place

    assert {event.user for event in deployment.lists()} == set(good)
    windows = deployment.windows()
    assert {user for members in windows.users.values() for user in members} == set(good)
    for user in good:
        row = windows.row(partition_of(user, PARTITIONS), user)
        assert row is not None and windows.read(row)["item"].tolist() == [item_hash("i3")]

    status = worker.status()
    assert (status["dead_letters"], status["waiting"]) == (len(BAD), 0)
    assert worker.stop() == 0
    log = worker.log.read_text()
    assert "Traceback" not in log and f"go to {s.topics.dead_letters}" in log


def test_dead_letters_that_were_read_before_are_not_written_again_after_a_stop(deployment: Deployment) -> None:
    send_between_good_ones(deployment)
    first = deployment.worker().ready()
    deployment.settled()
    assert first.stop() == 0
    deployment.worker().ready()
    deployment.send_raw([(deployment.settings.input.topics["view"], b"late", b"?", T0, [])])
    deployment.settled()
    assert len(deployment.records(deployment.settings.topics.dead_letters)) == len(BAD) + 1


def test_a_record_that_is_more_than_the_dead_letters_take_is_told_without_its_value(deployment: Deployment) -> None:
    """Its headers make the letter larger than the record was. What comes after it is not held up."""
    s = deployment.settings
    topic, largest = s.input.topics["click"], b"x" * (MAX_MESSAGE_BYTES - 90)
    worker = deployment.worker().ready()
    for n in range(2):
        values = (largest, body(ts=T0 + n), b"?")
        deployment.send_raw((topic, b"u", value, T0, []) for value in values)
    deployment.settled()
    letters = deployment.records(s.topics.dead_letters)
    told = [(r.value, dict(r.headers).get("eddyline_dlt-omitted-value-bytes")) for r in letters]
    assert sorted(told, key=str) == [(b"", str(len(largest)).encode())] * 2 + [(b"?", None)] * 2
    assert {event.source.offset for event in deployment.lists()} <= {1, 4}
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()
