"""Users of the compacted topic: what is known of whom, after records, newer ones, tombstones, and what is no user."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import msgspec
import pytest
from aiokafka import TopicPartition

from model.history import item_hash
from model.people import Person
from stream.lists import people
from stream.lists.people import Register

TP = TopicPartition("users", 0)


@dataclass(frozen=True)
class Record:
    """As much of a Kafka record as is read."""

    key: bytes | None
    value: bytes | None
    offset: int = 0


def record(user: str, interests: list[str] | None = None, **attributes: str) -> Record:
    return Record(user.encode(), msgspec.json.encode(Person(user, dict(attributes), interests or [])))


def known(register: Register, *users: str) -> list[tuple[list[int], list[int]]]:
    about = register.about(users)
    assert about is not None
    return [(about.groups.row(b).tolist(), about.interests.row(b).tolist()) for b in range(len(users))]


def test_what_is_hidden_is_kept_beside_what_is_stated() -> None:
    register = Register()
    one = msgspec.json.encode(Person("a", {}, ["i1"], ["i8", "i9"]))
    register.on_users(TP, [Record(b"a", one), record("b", ["i2"])])
    about = register.about(["b", "nobody", "a"])
    assert about is not None
    assert [about.hidden.row(b).tolist() for b in range(3)] == [[], [], sorted([item_hash("i8"), item_hash("i9")])]
    assert about.hidden.owner.tolist() == [2, 2]
    assert known(register, "a", "b") == [([], [item_hash("i1")]), ([], [item_hash("i2")])]


def test_nothing_is_known_of_nobody() -> None:
    register = Register()
    assert register.about(["a"]) is None
    register.on_users(TP, [record("a", city="Oslo")])
    assert register.about(["b", "c"]) is None


def test_the_newest_record_of_a_user_counts_and_a_tombstone_forgets() -> None:
    register = Register()
    register.on_users(TP, [record("a", city="Oslo"), record("b", ["i1"]), record("a", ["i2", "i3"], city="Rome")])
    assert known(register, "b", "nobody", "a") == [
        ([], [item_hash("i1")]),
        ([], []),
        ([item_hash("city Rome")], sorted([item_hash("i2"), item_hash("i3")])),
    ]
    register.on_users(TP, [Record(b"a", None), Record(b"never there", None)])
    register.on_users(TP, [record("c", city="Bonn")])  # takes the row that is free
    assert known(register, "a", "b", "c") == [([], []), ([], [item_hash("i1")]), ([item_hash("city Bonn")], [])]
    assert len(register) == 2


@pytest.mark.parametrize("value", [b"{", b'{"user": "b"}', b"[]", b'{"user": "a", "interests": 3}', b'{"user": 1}'])
def test_what_is_no_user_is_told_and_what_was_known_stays(value: bytes, caplog: pytest.LogCaptureFixture) -> None:
    register = Register()
    register.on_users(TP, [record("a", city="Oslo")])
    with caplog.at_level(logging.ERROR):
        register.on_users(TP, [Record(b"a", value, 17), record("b", city="Rome")])
    assert "users at offset 17 is no user" in caplog.text
    assert known(register, "a", "b") == [([item_hash("city Oslo")], []), ([item_hash("city Rome")], [])]


def test_what_was_replaced_takes_no_room_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "LEAST", 64)
    register = Register()
    for turn in range(50):
        batch = [record(f"u{u}", [f"i{turn}", f"j{u}"], turn=str(turn)) for u in range(40)]
        register.on_users(TP, [*batch, Record(f"u{turn}".encode(), None)])
    assert register._end <= 2 * 40 * 3 + 3
    kept = known(register, "u1", "u39", "u49")
    expected = sorted([item_hash("i49"), item_hash("j39")])
    assert kept[1] == ([item_hash("turn " + "40")], expected)
    assert kept[2] == ([], [])
    assert kept[0][1] == sorted([item_hash("i49"), item_hash("j1")])
