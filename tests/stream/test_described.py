"""Items and users as they were described at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from aiokafka import TopicPartition

from model.catalog import Item
from model.people import Person
from stream.described import AsOf, Items

TP = TopicPartition("catalog", 0)


class Record(NamedTuple):
    key: bytes
    value: bytes | None
    timestamp: int
    offset: int = 0


def written(value: Any, at: int) -> Record:
    return Record(getattr(value, "item", "").encode(), msgspec.json.encode(value), at)


def as_of(until: int | None, *records: Record) -> AsOf:
    found = AsOf(Item, until)
    found.on_records(TP, records)
    return found


def test_the_newest_record_before_a_time_counts_and_none_at_or_after_it() -> None:
    log = [written(Item("a", title), at) for title, at in (("first", 10), ("second", 20), ("third", 30))]
    for until, title in ((11, "first"), (20, "first"), (21, "second"), (None, "third")):
        assert Items(as_of(until, *log), ["a"], 0).items == {"a": Item("a", title)}


def test_what_is_withdrawn_later_is_still_there_and_what_was_before_is_an_id_where_it_was_met() -> None:
    log = [written(Item("a", "A"), 10), Record(b"a", None, 20)]
    assert Items(as_of(20, *log), [], 0).items == {"a": Item("a", "A")}
    gone = Items(as_of(21, *log), ["a"], 0)
    assert gone.items == {"a": Item("a", "a")} and gone.described == 0
    assert Items(as_of(21, *log), [], 0).items == {}


def test_of_what_was_met_and_is_described_only_later_the_oldest_texts_are_lent() -> None:
    log = [written(Item("a", "A", price=2.0, in_stock=False), 30), written(Item("a", "A, better", price=1.0), 40)]
    found = Items(as_of(20, *log), ["a"], 0)
    assert found.items == {"a": Item("a", "A")} and (found.described, found.lent) == (0, 1)
    assert Items(as_of(20, *log), [], 0).items == {}


def test_an_item_is_sold_out_only_if_it_was_before_the_first_question() -> None:
    found = as_of(None, written(Item("a", "A", in_stock=False), 10))
    assert not Items(found, [], 10).items["a"].in_stock
    assert Items(found, [], 9).items["a"].in_stock


def test_what_describes_nothing_is_passed_over() -> None:
    found = as_of(None, Record(b"a", b"{", 1), Record(b"a", b'{"item": "a"}', 1), written(Item("b", "B"), 1))
    assert found.known.keys() == {"b"}


def test_people_are_kept_by_name() -> None:
    found = AsOf(Person, 20)
    found.on_records(TP, [Record(b"u", msgspec.json.encode(Person("u", {"x": 1})), 10)])
    found.on_records(TP, [Record(b"u", msgspec.json.encode(Person("u", {"x": 2})), 20)])
    assert found.known["u"].value == Person("u", {"x": 1})
