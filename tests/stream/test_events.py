"""Decoding: good records become columns, bad ones a reason, and neither touches the other."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgpack
import numpy as np
import pytest

from model.history import ACTION_CODE, item_hash, weight_table
from stream.events import Decoder, Events, InputConfig
from stream.records import Unreadable

T0 = 1_700_000_000_000
JSON = [("content-type", b"application/json")]
MSGPACK = [("content-type", b"application/msgpack")]


@dataclass
class Fetched:
    """What `decode` reads of a fetched record."""

    value: bytes | None
    key: bytes | None = b"u"
    offset: int = 0
    timestamp: int = T0
    timestamp_type: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


def decode(*records: Fetched, action: str = "click", **config: Any) -> tuple[Events, list[Unreadable]]:
    return Decoder(action, InputConfig(**config)).decode(records)


def event(**fields: Any) -> dict[str, Any]:
    return {"user": "u", "item": "i", **fields}


def as_json(**fields: Any) -> bytes:
    return json.dumps(event(**fields)).encode()


def as_msgpack(value: Mapping[str, Any]) -> bytes:
    return msgpack.packb(value) or b""


def time_of(record: Fetched, **config: Any) -> int:
    events, bad = decode(record, **config)
    assert not bad, bad[0].reason
    return int(events.times[0])


def reason(record: Fetched, **config: Any) -> str:
    events, bad = decode(record, **config)
    assert len(events) == 0 and len(bad) == 1
    assert bad[0].record is record
    return bad[0].reason


def test_records_become_columns_in_offset_order() -> None:
    records = [
        Fetched(as_json(user="a", item="i1", ts=T0 - 5), b"a", offset=7),
        Fetched(
            as_msgpack({"user": "b", "item": "i2", "ts": T0 - 4}), b"b", offset=9, headers=[("traceparent", b"00-1")]
        ),
        Fetched(as_json(user="a", item="i1", ts=T0 - 9), b"a", offset=12),
    ]
    events, bad = decode(*records, action="buy")
    assert bad == []
    assert len(events) == 3 and events.users == ["a", "b", "a"]
    np.testing.assert_array_equal(
        events.items, np.array([item_hash("i1"), item_hash("i2"), item_hash("i1")], np.uint64)
    )
    np.testing.assert_array_equal(events.actions, np.full(3, ACTION_CODE["buy"], np.uint8))
    np.testing.assert_array_equal(events.times, [T0 - 5, T0 - 4, T0 - 9])
    np.testing.assert_array_equal(events.offsets, [7, 9, 12])
    np.testing.assert_array_equal(events.weights, np.full(3, weight_table()[ACTION_CODE["buy"]]))
    assert events.traces == {9: b"00-1"}
    dtypes = [c.dtype for c in (events.items, events.actions, events.times, events.weights, events.offsets)]
    assert dtypes == [np.uint64, np.uint8, np.int64, np.float32, np.int64]


def test_nothing_fetched_is_no_event() -> None:
    events, bad = decode()
    assert len(events) == 0 and bad == [] and events.items.dtype == np.uint64


def test_numbers_are_users_and_items_by_their_digits() -> None:
    events, _ = decode(Fetched(b'{"user": 7, "item": 8}', b"7"))
    assert events.users == ["7"] and events.items.tolist() == [item_hash("8")]


def test_fields_that_are_not_read_do_no_harm() -> None:
    full = as_json(ts=T0, value=2.5, session=3, context={"a": [1]}, unknown={"b": None})
    events, bad = decode(Fetched(full), Fetched(as_msgpack(event(context={"a": {"b": [1.5]}}, unknown=1))))
    assert len(events) == 2 and not bad


@pytest.mark.parametrize(
    "headers",
    [
        [],
        JSON,
        [("content-type", b"Application/JSON; charset=utf-8")],
        [("content-type", b"application/cloudevents+json")],
        [("other", b"x"), ("content-type", b"text/json")],
    ],
)
def test_json_is_known_by_its_type_or_its_first_byte(headers: list[tuple[str, bytes]]) -> None:
    assert time_of(Fetched(b" \n" + as_json(ts=T0), headers=headers)) == T0


@pytest.mark.parametrize("kind", [None, b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack"])
def test_messagepack_is_known_by_its_type_or_its_first_byte(kind: bytes | None) -> None:
    headers = [("content-type", kind)] if kind else []
    assert time_of(Fetched(as_msgpack(event(ts=T0)), headers=headers)) == T0
    many = event(ts=T0, **{f"f{i}": i for i in range(20)})  # a map of more than 15 has another first byte
    assert time_of(Fetched(as_msgpack(many), headers=headers)) == T0


@pytest.mark.parametrize(
    ("ts", "unit"),
    [(1_699_999_999, "s"), (1_699_999_999.0, "s"), (1_699_999_999_000, "ms"), (1_699_999_999_000_000, "us")],
)
def test_a_number_is_a_time_in_the_configured_unit(ts: float, unit: str) -> None:
    assert time_of(Fetched(as_json(ts=ts)), ts_unit=unit) == 1_699_999_999_000


@pytest.mark.parametrize(
    "text", ["2023-11-14T22:13:19Z", "2023-11-14T22:13:19+00:00", "2023-11-14T23:13:19+01:00", "2023-11-14 22:13:19"]
)
@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_text_is_iso_8601_and_utc_where_it_says_nothing_else(text: str, unit: str) -> None:
    expected = int(datetime(2023, 11, 14, 22, 13, 19, tzinfo=UTC).timestamp() * 1000)
    assert time_of(Fetched(as_json(ts=text)), ts_unit=unit) == expected


def test_fractions_of_a_second_are_kept_to_the_millisecond() -> None:
    assert time_of(Fetched(as_json(ts="2023-11-14T22:13:19.250Z"))) == T0 - 750
    assert time_of(Fetched(as_json(ts=1_699_999_999.25)), ts_unit="s") == T0 - 750


def test_a_missing_time_is_the_records() -> None:
    assert time_of(Fetched(as_json())) == T0
    assert time_of(Fetched(as_json(ts=None)), ts_unit="us") == T0


def test_a_time_may_lie_ahead_of_its_record_by_the_allowed_skew() -> None:
    assert time_of(Fetched(as_json(ts=T0 + 500)), max_skew_ms=500) == T0 + 500
    assert "ahead of its record" in reason(Fetched(as_json(ts=T0 + 501)), max_skew_ms=500)
    assert time_of(Fetched(as_json(ts=1)), max_skew_ms=0) == 1  # the past is no skew: history is replayed


def test_weights_are_those_of_the_settings() -> None:
    events, _ = decode(Fetched(as_json()), action="view", weights={"view": 2.5})
    assert events.weights.tolist() == [2.5]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (Fetched(None), "the value is null"),
        (Fetched(b""), "the value is empty"),
        (Fetched(b"", headers=MSGPACK), "the value is empty"),
        (Fetched(b"hello"), "neither a JSON object nor a MessagePack map"),
        (Fetched(as_json()[:-3]), "truncated"),
        (Fetched(as_json() + b"{}"), "trailing characters"),
        (Fetched(b'["u", "i"]'), "Expected `object`, got `array`"),
        (Fetched(as_json(user=1.5)), "Expected `int | str`, got `float` - at `$.user`"),
        (Fetched(b'{"item": "i"}'), "missing required field `user`"),
        (Fetched(b'{"user": "u"}'), "missing required field `item`"),
        (Fetched(as_json(user=""), b""), "empty user - at `$.user`"),
        (Fetched(as_json(item="")), "empty item - at `$.item`"),
        (Fetched(as_json(user="u\0"), b"u\0"), "NUL byte in user"),
        (Fetched(as_json(item="i\0")), "NUL byte in item"),
        (Fetched(as_json(user="u" * 1025), b"u" * 1025), "longer than 1024"),
        (Fetched(b'{"user": "u", "item": "\\ud800 and more"}'), "surrogate"),
        (Fetched(b'{"user": "u", "item": "\xff"}'), "utf-8"),
        (Fetched(b'{"user": "u", "item": "i", "context": {"x": ' + b"[" * 100_000), "nested too deeply"),
        (Fetched(b'{"user": "u", "item": "i", "x": ' + b"[" * 100_000), "nested too deeply"),
        (Fetched(as_json(ts=0)), "before 1970"),
        (Fetched(as_json(ts=-T0)), "before 1970"),
        (Fetched(as_json(ts="0001-01-01")), "before 1970"),
        (Fetched(as_json(ts="yesterday")), "'yesterday' is not ISO 8601"),
        (Fetched(as_json(ts=True)), "got `bool` - at `$.ts`"),
        (Fetched(as_json(ts=10**30)), "ahead of its record"),
        (Fetched(as_json(ts=10**400)), "too large"),
        (Fetched(as_msgpack(event(ts=float("nan")))), "nan is no time"),
        (Fetched(as_json(), timestamp=-1), "neither the event nor its record has a time"),
        (Fetched(as_json(), None), "no key"),
        (Fetched(as_json(), b"v"), "key b'v' is not its user 'u'"),
        (Fetched(as_json(), headers=[("content-type", b"text/csv")]), "unknown content type 'text/csv'"),
        (Fetched(as_json(), headers=MSGPACK), "not MessagePack"),
        (Fetched(as_msgpack(event()), headers=JSON), "JSON is malformed"),
        (Fetched(as_msgpack(event())[:-1]), "incomplete"),
        (Fetched(as_msgpack(event()) + b"x"), "not MessagePack: unpack(b) received extra data"),
        (Fetched(b"\xc1", headers=MSGPACK), "not MessagePack: FormatError"),
        (Fetched(b"\x91" * 100_000, headers=MSGPACK), "not MessagePack: StackError"),
        (Fetched(b"\x81\x90\x01"), "list is not allowed for map key"),
        (Fetched(b"\x82\xa4user\xa1u\xa4item\xa1\xff"), "utf-8"),
        (Fetched(as_msgpack({"user": b"u", "item": "i"})), "got `bytes` - at `$.user`"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_an_unreadable_record_says_why(record: Fetched, expected: str) -> None:
    assert expected in reason(record)


def test_a_value_may_have_as_many_bytes_as_the_settings_allow() -> None:
    value = as_json(context={"filler": "x" * 1000})
    assert not decode(Fetched(value), max_event_bytes=len(value))[1]
    assert "max_event_bytes = 1000" in reason(Fetched(value), max_event_bytes=1000)


def test_bad_records_leave_the_good_ones_around_them() -> None:
    bad = [b"x", None, b"{}", b"\x81\x90\x01", as_json(ts="never")]
    records = [Fetched(as_json(item=f"i{n}"), offset=2 * n) for n in range(6)]
    mixed = [
        r for n, good in enumerate(records) for r in (good, *(Fetched(v, offset=2 * n + 1) for v in bad[n : n + 1]))
    ]
    events, unreadable = decode(*mixed)
    assert events.offsets.tolist() == [0, 2, 4, 6, 8, 10]
    assert events.items.tolist() == [item_hash(f"i{n}") for n in range(6)]
    assert [u.record.offset for u in unreadable] == [1, 3, 5, 7, 9]


def test_no_bytes_raise() -> None:
    """Events with bytes changed, put in and taken out, 20,000 times: each is an event or has a reason."""
    rng = random.Random(0)
    nested = event(ts=T0, context={"a": [1, {"b": 2.5}], "c": None})
    seeds, decoder = [json.dumps(nested).encode(), as_msgpack(nested)], Decoder("view", InputConfig())
    for _ in range(20_000):
        value = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 5)):
            at = rng.randrange(len(value))
            value[at : at + rng.randint(0, 2)] = rng.randbytes(rng.randint(0, 2))
        record = Fetched(bytes(value), headers=rng.choice([[], JSON, MSGPACK]))
        events, bad = decoder.decode([record])
        assert len(events) + len(bad) == 1
        assert not bad or bad[0].reason


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"topics": {}}, "no topic to read"),
        ({"topics": {"click": "t", "view": "t"}}, "same topic"),
        ({"topics": {"stare": "t"}}, "stare"),
        ({"weights": {"stare": 1.0}}, "stare"),
        ({"ts_unit": "h"}, "ts_unit"),
    ],
)
def test_inputs_that_make_no_sense_are_refused(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        InputConfig(**settings)
