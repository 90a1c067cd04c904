"""What publishing shares with other clients: where a user's events go, and what an event looks like."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from model.dataset import Events
from model.history import ACTION_CODE
from stream.errors import TopicError
from stream.events import Decoder, InputConfig
from stream.replay import JSON_HEADERS, _topics_by_code, encode_event, partition_of

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


def events(*actions: str) -> Events:
    n = len(actions)
    codes = np.array([ACTION_CODE[a] for a in actions], np.uint8)
    names = np.array(["x"] * n, object)
    return Events(names, names, codes, np.arange(n), np.full(n, np.nan, np.float32))


def test_events_go_to_the_topics_of_their_actions() -> None:
    topics = {"click": "shop.clicks", "buy": "shop.orders", "view": "shop.views"}
    assert _topics_by_code(topics, events("buy", "click", "click")) == {
        ACTION_CODE["click"]: "shop.clicks",
        ACTION_CODE["buy"]: "shop.orders",
    }


def test_an_action_without_a_topic_is_refused_with_the_setting_to_add() -> None:
    with pytest.raises(TopicError) as raised:
        _topics_by_code({"click": "c"}, events("click", "share"))
    assert "share" in raised.value.message and "[input.topics]" in raised.value.remedy
