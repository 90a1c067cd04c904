"""Records of other shapes: what is declared is read, whatever is not there is told, and plain shapes are columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from model.history import ACTION_CODE, item_hash, weight_table
from stream.backfill import archived
from stream.errors import ConfigError
from stream.events import Decoder, Events, InputConfig
from stream.records import Unreadable
from stream.settings import Settings
from stream.windows import window
from stream.windows.columns import Columns
from stream.windows.packing import digest
from tests.stream.test_events import MSGPACK, T0, Fetched

ORDER = {
    "customer": {"id": "u"},
    "placed": T0 // 1000,
    "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}, {"sku": "c", "n": 0}],
}
LINES = {"user": "$.customer.id", "ts": "$.placed", "ts_unit": "s", "each": "$.lines[*]", "item": "@.sku"}
KINDS = {"user": "$.who", "item": "$.what.id", "action": "$.kind", "actions": {"pv": "view", "order-placed": "buy"}}


def decoder(shape: Mapping[str, Any], *actions: str) -> Decoder:
    config = InputConfig.model_validate(
        {"topics": dict.fromkeys(actions or ("click",), "t"), "shapes": {"t": shape}, "weights": {"view": 7}}
    )
    return config.decoders()["t"]


def read(shape: Mapping[str, Any], *records: Fetched, actions: tuple[str, ...] = ()) -> Events:
    events, bad = decoder(shape, *actions).decode(records)
    assert not bad, bad[0].reason
    return events


def refused(shape: Mapping[str, Any], record: Fetched, actions: tuple[str, ...] = ()) -> str:
    events, bad = decoder(shape, *actions).decode([record])
    assert len(events) == 0 and [type(one) for one in bad] == [Unreadable]
    return bad[0].reason


def record(value: Any, **fields: Any) -> Fetched:
    return Fetched(json.dumps(value).encode(), **fields)


def items(events: Events) -> list[int]:
    return events.items.tolist()


def hashes(*names: str) -> list[int]:
    return [item_hash(name) for name in names]


def test_fields_of_any_name_and_depth_are_read() -> None:
    shape = {"user": "$.customer['the id']", "item": "$.product.sku", "ts": "$.meta.at"}
    value = {"customer": {"the id": "u", "x": [1]}, "product": {"sku": 17}, "meta": {"at": T0 - 3}, "more": {}}
    events = read(shape, record(value, offset=4))
    assert (events.users, items(events), events.times.tolist(), events.offsets.tolist()) == (
        ["u"], hashes("17"), [T0 - 3], [4],
    )  # fmt: skip


def test_messagepack_has_the_same_shapes() -> None:
    value = msgpack.packb({"who": "u", "what": {"id": "i"}, "kind": "pv"})
    events = read(KINDS, Fetched(value, headers=MSGPACK), actions=("view", "buy"))
    assert events.actions.tolist() == [ACTION_CODE["view"]]


def test_a_batch_of_a_plain_shape_is_read_as_columns_to_the_same_as_one_by_one() -> None:
    kinds = ("pv", "order-placed", "buy", "view")
    records = [
        record({"who": "u", "what": {"id": f"i{n % 7}"}, "kind": kinds[n % 4], "ts": T0 - n}, offset=n)
        for n in range(40)
    ]
    both = decoder(KINDS, "view", "buy")
    plain = both._plain(records)
    assert plain is not None, "a batch with nothing amiss was read one by one"
    slow, bad = both._one_by_one(records)
    assert not bad and plain.users == slow.users
    for name in ("items", "actions", "times", "weights", "offsets"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(slow, name))
    weights = weight_table({"view": 7})
    np.testing.assert_array_equal(plain.weights, weights[plain.actions])
    assert set(plain.actions.tolist()) == {ACTION_CODE["view"], ACTION_CODE["buy"]}


def test_the_action_is_what_the_record_says_and_only_those_of_the_topic_are_taken() -> None:
    value = {"who": "u", "what": {"id": "i"}, "kind": "login"}
    told = refused(KINDS, record(value), actions=("view", "buy"))
    assert "'login'" in told and "[input.topics]" in told and 'others = "pass"' in told
    assert "'share'" in refused(KINDS, record({**value, "kind": "share"}), actions=("view", "buy"))
    passing = {**KINDS, "others": "pass"}
    kept = record({**value, "kind": "pv"}, offset=1)
    events = read(passing, record(value), kept, record({**value, "kind": "share"}, offset=2), actions=("view", "buy"))
    assert events.offsets.tolist() == [1]


def test_each_line_of_an_order_is_an_interaction() -> None:
    events = read(LINES, record(ORDER, offset=9), actions=("buy",))
    assert items(events) == hashes("a", "b", "c")
    assert events.users == ["u"] * 3 and events.offsets.tolist() == [9] * 3
    assert events.times.tolist() == [T0 // 1000 * 1000] * 3 and set(events.actions.tolist()) == {ACTION_CODE["buy"]}


def test_lines_are_chosen_by_a_filter_and_none_is_none() -> None:
    chosen = {**LINES, "each": "$.lines[?@.n > 0]"}
    assert items(read(chosen, record(ORDER))) == hashes("a", "b")
    assert len(read(LINES, record({**ORDER, "lines": []}))) == 0


@pytest.mark.parametrize("each", ["$.lines[*]", "$['lines'][*]", "$.lines.*", "$..lines[*]"])
@pytest.mark.parametrize("lines", [[{"sku": "a"}, {"sku": "b"}], {"x": {"sku": "a"}, "y": {"sku": "b"}}, [], None, "a"])
def test_lines_are_found_the_same_by_every_way_to_say_where(each: str, lines: Any) -> None:
    found = items(read({**LINES, "each": each}, record({**ORDER, "lines": lines})))
    assert found == (hashes("a", "b") if isinstance(lines, list | dict) and lines else [])


def test_an_order_with_a_line_that_says_nothing_is_refused_as_a_whole() -> None:
    value = {**ORDER, "lines": [{"sku": "a"}, {"n": 2}]}
    assert "no item at @.sku" in refused(LINES, record(value))


def test_the_lines_of_an_order_are_applied_together_and_once() -> None:
    columns = Columns(["t"])
    events = read(LINES, record(ORDER, offset=9))
    window.apply(columns, 0, 0, events)
    assert columns.count[0] == 3
    before = digest(columns)
    applied = window.apply(columns, 0, 0, events)
    assert digest(columns) == before and len(applied.rows) == 1 and len(applied.fresh) == 0


@pytest.mark.parametrize("wrapped", [True, False])
def test_rows_of_a_change_log_are_unwrapped(wrapped: bool) -> None:
    shape = {"envelope": "debezium", "user": "$.uid", "item": "$.sku", "ts": "envelope:$.ts_ms"}

    def change(op: str, after: Any) -> bytes:
        payload = {"before": None, "after": after, "op": op, "ts_ms": T0 - 8, "source": {"table": "orders"}}
        return json.dumps({"schema": {}, "payload": payload} if wrapped else payload).encode()

    row = {"uid": "u", "sku": "i"}
    events = read(
        shape,
        Fetched(change("c", row)),
        Fetched(change("u", row), offset=1),
        Fetched(change("d", None), offset=2),
        Fetched(None, offset=3),
        Fetched(change("r", row), offset=4),
    )
    assert events.offsets.tolist() == [0, 4] and events.times.tolist() == [T0 - 8] * 2
    updates = read({**shape, "operations": ["u"]}, Fetched(change("u", row)))
    assert items(updates) == hashes("i")
    assert "nothing in `after`" in refused(shape, Fetched(change("c", None)))
    assert "no object" in refused(shape, Fetched(b"[1]"))


def test_keys_headers_and_constants_are_fields_too() -> None:
    shape = {"user": "key", "item": "header:sku", "ts": "header:at", "action": "=view"}
    headers = [("sku", b"i"), ("at", str(T0 - 1).encode())]
    events = read(shape, Fetched(b"{}", b"u", headers=headers), actions=("view", "click"))
    assert (events.users, items(events), events.times.tolist()) == (["u"], hashes("i"), [T0 - 1])
    assert events.actions.tolist() == [ACTION_CODE["view"]]
    assert "no item at header:sku" in refused(shape, Fetched(b"{}", b"u"), actions=("view",))


def test_what_is_not_there_is_its_default() -> None:
    shape = {"user": "$.u", "item": "$.i", "action": "$.a", "defaults": {"item": "shop", "action": "view"}}
    events = read(
        shape, record({"u": "u"}), record({"u": "u", "i": "x", "a": "buy"}, offset=1), actions=("view", "buy")
    )
    assert items(events) == hashes("shop", "x")
    assert events.actions.tolist() == [ACTION_CODE["view"], ACTION_CODE["buy"]]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"what": {"id": "i"}, "kind": "pv"}, "missing required field `who`"),
        ({"who": "u", "what": "i", "kind": "pv"}, "at `$.what`"),
        ({"who": "u", "what": {"id": None}, "kind": "pv"}, "at `$.what.id`"),
        ({"who": "u", "what": {"id": ""}, "kind": "pv"}, "empty item"),
        ({"who": "v", "what": {"id": "i"}, "kind": "pv"}, "is not its user"),
        ({"who": "u", "what": {"id": "i"}, "kind": "pv", "ts": [1]}, "at `$.ts`"),
    ],
)
def test_what_is_amiss_is_told_by_its_place(value: Any, expected: str) -> None:
    assert expected in refused(KINDS, record(value), actions=("view", "buy"))


def test_what_is_no_name_or_time_is_told_in_lines_too() -> None:
    assert "which is no name" in refused(LINES, record({**ORDER, "lines": [{"sku": ["a"]}]}))
    assert "which is no name" in refused(LINES, record({**ORDER, "customer": {"id": True}}))
    assert "is no time" in refused(LINES, record({**ORDER, "placed": {"at": 1}}))
    assert "is not ISO 8601" in refused(LINES, record({**ORDER, "placed": "soon"}))


def test_times_are_read_in_the_unit_that_is_declared_or_as_iso_8601() -> None:
    moment = datetime.fromtimestamp(T0 / 1000, UTC)
    assert read(LINES, record({**ORDER, "placed": moment.isoformat()})).times[0] == T0
    assert read(LINES, record({**ORDER, "placed": None}, timestamp=T0 + 7)).times[0] == T0 + 7
    assert read({**LINES, "ts_unit": "us"}, record({**ORDER, "placed": T0 * 1000})).times[0] == T0


def test_one_shape_may_be_that_of_all_topics() -> None:
    config = InputConfig.model_validate({"shapes": {"*": {"user": "$.u"}, "buy": {"user": "$.b"}}})
    for topic, field in (("view", "u"), ("click", "u"), ("buy", "b")):
        events, bad = config.decoders()[topic].decode([record({field: "u", "item": "i"})])
        assert not bad and events.users == ["u"]


def test_events_of_ours_are_not_sent_to_topics_of_another_shape() -> None:
    config = InputConfig.model_validate({"shapes": {"buy": {"user": "$.b"}}})
    config.refuse_foreign(["view", "click"])
    with pytest.raises(ConfigError, match=r"buy: records there have a shape of their own"):
        config.refuse_foreign(["view", "buy"])


def test_values_are_read_where_they_are_wanted() -> None:
    shape = {"user": "$.u", "item": "$.i", "value": "$.n"}
    config = InputConfig.model_validate({"topics": {"buy": "t"}, "shapes": {"t": shape}})
    records = [record({"u": "u", "i": "i", "n": 2}), record({"u": "u", "i": "j"}, offset=1)]
    events, bad = config.decoders(valued=True)["t"].decode(records)
    assert not bad and events.values is not None and events.values[0] == 2 and np.isnan(events.values[1])
    assert config.decoders()["t"].decode(records)[0].values is None
    wrong = record({"u": "u", "i": "i", "n": "many"})
    assert "`$.n`" in config.decoders(valued=True)["t"].decode([wrong])[1][0].reason


def test_an_archive_of_topics_of_several_actions_is_refused_and_not_taken_for_one_action(tmp_path: Path) -> None:
    shape = {"t": {"action": "$.a"}}
    settings = Settings(input=InputConfig.model_validate({"topics": {"view": "t", "buy": "t"}, "shapes": shape}))
    with pytest.raises(ConfigError, match="t has events of several actions"):
        archived(settings, tmp_path)
