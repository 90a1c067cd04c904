"""What publishing shares with other clients: where a user's events go, and what an event looks like."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest

from model.archive import SCHEMA
from model.history import ACTION_CODE
from stream.errors import TopicError
from stream.events import Decoder, InputConfig
from stream.kafka.placing import partition_of
from stream.publishing import JSON_HEADERS, encode_event, events_as_records, topics_by_code

JAVA_MURMUR2 = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
"""From the tests of Kafka's own Java clients."""


@pytest.mark.parametrize("user", JAVA_MURMUR2)
@pytest.mark.parametrize("count", [1, 3, 4, 64, 1000])
def test_a_user_is_where_java_clients_put_them(user: str, count: int) -> None:
    assert partition_of(user, count) == (JAVA_MURMUR2[user] & 0x7FFFFFFF) % count


def test_users_spread_over_all_partitions() -> None:
    counts = np.bincount([partition_of(f"u{n}", 8) for n in range(8000)], minlength=8)
    assert counts.min() > 800


class Record:
    """A fetched record with what was encoded."""

    offset, timestamp, timestamp_type = 0, 2000, 0
    headers: Sequence[tuple[str, bytes]] = tuple(JSON_HEADERS)

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key: bytes | None = key
        self.value: bytes | None = value


@pytest.mark.parametrize("user", ["u1", 'a "quoted" one', "Zoë \U0001f600", "7"])
def test_an_encoded_event_is_read_as_it_was_meant(user: str) -> None:
    events, bad = Decoder("click", InputConfig()).decode([Record(user.encode(), encode_event(user, "i1", 1500))])
    assert not bad and events.users == [user] and events.times.tolist() == [1500]


def test_a_value_is_written_where_there_is_one() -> None:
    assert json.loads(encode_event("u", "i", 5)) == {"user": "u", "item": "i", "ts": 5}
    assert json.loads(encode_event("u", "i", 5, 2.5)) == {"user": "u", "item": "i", "ts": 5, "value": 2.5}


def test_events_are_records_of_their_user_and_time_and_say_no_more_than_is_known() -> None:
    frame = pl.DataFrame(
        [("Zoë", "i1", 2, 1500, None, None, None), ("u2", "i2", 3, 1500, 0.99, "s", '{"page": "a"}')],
        SCHEMA,
        orient="row",
    )
    first, second = events_as_records({2: "clicks", 3: "orders"}, {"clicks": 4, "orders": 3}, frame)
    assert first[:2] == ("clicks", partition_of("Zoë", 4)) and second[:2] == ("orders", partition_of("u2", 3))
    assert first[2] == ("Zoë".encode(), '{"user":"Zoë","item":"i1","ts":1500}'.encode(), JSON_HEADERS, 1500)
    assert json.loads(second[2].value or b"") == {
        "user": "u2", "item": "i2", "ts": 1500, "value": 0.99, "session": "s", "context": {"page": "a"}
    }  # fmt: skip


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("ms", [1_700_000_000_000, 1_700_000_000_123])
def test_times_are_in_the_unit_that_workers_expect(unit: Any, ms: int) -> None:
    frame = pl.DataFrame([("u", "i", 2, ms, None, None, None)], SCHEMA, orient="row")
    ((_, _, out),) = events_as_records({2: "c"}, {"c": 1}, frame, unit)
    record = Record(b"u", out.value or b"")
    record.timestamp = ms
    found, bad = Decoder("click", InputConfig(ts_unit=unit)).decode([record])
    assert not bad and found.times.tolist() == [ms] and out.timestamp == ms


def test_events_go_to_the_topics_of_their_actions() -> None:
    topics = {"click": "shop.clicks", "buy": "shop.orders", "view": "shop.views"}
    buy, click = ACTION_CODE["buy"], ACTION_CODE["click"]
    assert topics_by_code(topics, [buy, click]) == {click: "shop.clicks", buy: "shop.orders"}


def test_an_action_without_a_topic_is_refused_with_the_setting_to_add() -> None:
    with pytest.raises(TopicError) as raised:
        topics_by_code({"click": "c"}, [ACTION_CODE["click"], ACTION_CODE["share"]])
    assert "share" in raised.value.message and "[input.topics]" in raised.value.remedy
