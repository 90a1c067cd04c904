"""Outcomes of lists, from records: rings, repeats, and what is no feedback."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

import numpy as np
import pytest
from aiokafka import TopicPartition

from model.fatigue import OUTCOME_CODE
from model.history import item_hash
from stream.lists.feedback import KEPT, Reactions

TP = TopicPartition("feedback", 0)


@dataclass(frozen=True)
class Record:
    """As much of a Kafka record as is read."""

    value: bytes | None
    offset: int = 0
    timestamp: int = 77


def record(user: str, item: str, outcome: str = "shown", ts: int | None = 5) -> Record:
    said = {"user": user, "item": item, "outcome": outcome, "recommendation": "r1", "value": 3}
    return Record(json.dumps(said | ({} if ts is None else {"ts": ts})).encode())


def known(reactions: Reactions, user: str) -> set[tuple[int, int, int]]:
    found = reactions.of(["nobody", user])
    if found is None:
        return set()
    assert not found.codes[0].any()
    at = np.flatnonzero(found.codes[1])
    return set(zip(found.items[1, at].tolist(), found.times[1, at].tolist(), found.codes[1, at].tolist(), strict=True))


def test_outcomes_are_kept_by_user_and_repeats_count_once():
    reactions = Reactions()
    assert reactions.of(["a"]) is None
    reactions.on_feedback(TP, [record("a", "x"), record("b", "x"), record("a", "x"), record("a", "y", "clicked", None)])
    reactions.on_feedback(TP, [record("a", "x")])
    shown, clicked = OUTCOME_CODE["shown"], OUTCOME_CODE["clicked"]
    assert known(reactions, "a") == {(item_hash("x"), 5, shown), (item_hash("y"), 77, clicked)}
    assert known(reactions, "b") == {(item_hash("x"), 5, shown)}
    assert len(reactions) == 2


def test_the_newest_are_kept_and_batches_do_not_matter():
    many = [record(f"u{i % 3}", f"i{i}", ts=i) for i in range(3 * (KEPT + 20))]
    whole, parts = Reactions(), Reactions()
    whole.on_feedback(TP, many)
    for first in range(0, len(many), 7):
        parts.on_feedback(TP, many[first : first + 7])
    for user in ("u0", "u1", "u2"):
        assert known(whole, user) == known(parts, user)
        assert len(known(whole, user)) == KEPT
    assert {time for _, time, _ in known(whole, "u0")} == set(range(3 * 20, 3 * (KEPT + 20), 3))


def test_beyond_the_most_users_the_quietest_half_is_forgotten():
    reactions = Reactions(most=10)
    for n in range(11):
        reactions.on_feedback(TP, [record(f"u{n}", "x", ts=100 - n)])
    assert len(reactions) == 6
    assert known(reactions, "u10") == set() and len(known(reactions, "u0")) == 1
    reactions.on_feedback(TP, [record("new", "y", ts=200)])  # takes a row that is free
    assert known(reactions, "new") == {(item_hash("y"), 200, 1)}


@pytest.mark.parametrize("value", [None, b"", b"{", b"[]", b'{"user": "a", "item": "x", "outcome": "eaten"}'])
def test_what_is_no_feedback_is_told_and_ignored(value: bytes | None, caplog: pytest.LogCaptureFixture):
    reactions = Reactions()
    with caplog.at_level(logging.ERROR):
        reactions.on_feedback(TP, [record("a", "x"), Record(value, 9), record("b", "x")])
    assert len(reactions) == 2
    assert "offset 9 is no feedback" in caplog.text
