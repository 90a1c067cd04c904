"""Rows that are handed over: the same on the other side, and the newest by what it knows."""

from __future__ import annotations

from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
from faust.types import TP

from model import history
from stream.answers.progress import Trigger, Waiting
from stream.errors import StateError
from stream.lists.desk import Desk, is_older
from stream.lists.handover import MESSAGE_BYTES, messages
from stream.lists.interests import Interests, Row, joined, pack, unpack
from stream.process.monitor import Monitor

HANDED_OVER = TP("interests", 2)


def interests(*users: tuple[str, int, int], partition: int = 2) -> Interests:
    """Rows of (name, interactions, last offset of "view"), each user with two items seen before."""
    rows = [([(1000 + i, 2, 7 + i, 0.5) for i in range(n)], [n, n + 1]) for _, n, _ in users]
    return Interests(
        [
            Waiting(partition, name, 0, Trigger("view", offset, 1000 + n, 1.0, b"00-1" if n else None))
            for name, n, offset in users
        ],
        history.pack(rows),
        [n + 10 for _, n, _ in users],
        [{"view": offset, "buy": 3} if n else {"view": offset} for _, n, offset in users],
    )


def record(value: bytes, offset: int = 0) -> SimpleNamespace:
    return SimpleNamespace(value=value, offset=offset)


def handed(desk: Desk, offset: int, *users: tuple[str, int, int]) -> None:
    some = interests(*users)
    desk.batch(HANDED_OVER, [record(pack(some, range(len(users))), offset)])


@pytest.fixture
def desk() -> Desk:
    made = Desk(1.0, Monitor(), lambda: None)
    made.owned = {2}
    return made


def test_rows_come_out_as_they_went_in() -> None:
    some = interests(("a", 3, 40), ("b", 0, 41), ("c", 30, 42))
    for members in ([0, 1, 2], [2, 0], [1]):
        got = unpack(pack(some, members), 9.0)
        assert [user for user, _ in got] == [some.users[i].user for i in members]
        for i, (_, trigger) in zip(members, got, strict=True):
            assert trigger[:3] == some.users[i].trigger[:3]
            assert (trigger.arrived, trigger.trace) == (9.0, some.users[i].trigger.trace)
            assert (trigger.row.ever, trigger.row.applied) == (some.counts[i], some.applied[i])
        histories = joined([trigger.row for _, trigger in got])
        wide = histories.items.shape[1]
        for name in ("items", "actions", "times", "weights"):
            want = getattr(some.histories, name)[members]
            np.testing.assert_array_equal(getattr(histories, name), want[:, want.shape[1] - wide :])
        assert histories.lengths.tolist() == some.histories.lengths[members].tolist()
        assert [histories.seen_by(i).tolist() for i in range(len(members))] == [
            some.histories.seen_by(i).tolist() for i in members
        ]


def test_no_rows_are_no_histories() -> None:
    assert len(joined([])) == 0


def test_messages_are_of_one_partition_and_bounded_in_size() -> None:
    many = interests(*((f"u{n}", 120, n) for n in range(500)))
    for i in range(0, 500, 7):
        many.users[i] = many.users[i]._replace(partition=5)
    made = list(messages(many))
    assert sorted(i for _, members in made for i in members) == list(range(500))
    for partition, members in made:
        assert {many.users[i].partition for i in members} == {partition}
        assert len(pack(many, members)) < 1.1 * MESSAGE_BYTES


def test_one_row_larger_than_a_message_goes_alone() -> None:
    one = history.pack([([(1, 2, 3, 1.0)], list(range(MESSAGE_BYTES // 4 + 1)))])
    some = Interests([Waiting(0, "a", 0, Trigger("view", 1, 1, 1.0, None))], one, [1], [{"view": 1}])
    assert list(messages(some)) == [(0, [0])]


def test_a_message_of_another_version_or_of_nobody_stops_the_worker_with_a_remedy(desk: Desk) -> None:
    for value in (msgpack.packb((2,)), b"\xc1", b"", msgpack.packb(7)):
        with pytest.raises(StateError, match="interests, partition 2, offset 5"):
            desk.batch(HANDED_OVER, [record(value, 5)])


def test_the_newest_row_waits_by_what_it_knows_not_by_when_it_came(desk: Desk) -> None:
    handed(desk, 0, ("a", 1, 10))
    handed(desk, 1, ("a", 2, 20))
    handed(desk, 2, ("a", 1, 10))
    (w,) = desk.progress.take(5)
    assert w.trigger is not None and w.trigger.row is not None
    assert (w.trigger.offset, w.trigger.row.applied) == (20, {"view": 20, "buy": 3})
    assert desk.progress.conflated == 2


def test_an_older_row_that_comes_after_its_user_was_answered_is_dropped(desk: Desk) -> None:
    handed(desk, 0, ("a", 2, 20))
    (w,) = desk.progress.take(5)
    desk.answered(w.ticket)
    handed(desk, 1, ("a", 1, 10))
    assert desk.progress.waiting == 0
    assert desk.committable() == {HANDED_OVER: 2}


def test_an_equal_row_is_answered_again_as_it_may_be_a_repeat_after_a_crash(desk: Desk) -> None:
    handed(desk, 0, ("a", 2, 20))
    (w,) = desk.progress.take(5)
    desk.answered(w.ticket)
    handed(desk, 1, ("a", 2, 20))
    assert desk.progress.waiting == 1


def test_offsets_are_committed_when_the_lists_behind_them_are_acknowledged(desk: Desk) -> None:
    handed(desk, 0, ("a", 1, 10), ("b", 1, 11))
    handed(desk, 1, ("c", 1, 12))
    a, b, c = desk.progress.take(5)
    desk.answered(c.ticket)
    desk.answered(a.ticket)
    assert desk.committable() == {}
    desk.answered(b.ticket)
    assert desk.committable() == {HANDED_OVER: 2}


def test_a_partition_that_is_not_ours_is_left_to_its_owner(desk: Desk) -> None:
    desk.batch(TP("interests", 3), [record(pack(interests(("a", 1, 10)), [0]))])
    assert desk.progress.waiting == 0


def test_rows_that_were_answered_are_there_for_their_profiles(desk: Desk) -> None:
    handed(desk, 0, ("a", 3, 10), ("b", 1, 11))
    assert desk.interests(desk.progress.take(5), 0.0) is not None
    keys, histories, counts = desk.known([(2, "a"), (2, "nobody")])
    assert (keys, histories.lengths.tolist(), counts) == ([(2, "a")], [3], [13])


def test_older_means_less_of_some_topic_and_more_of_none() -> None:
    assert is_older({"view": 1}, {"view": 2})
    assert is_older({}, {"view": 0})
    assert not is_older({"view": 2}, {"view": 2})
    assert not is_older({"view": 1, "buy": 5}, {"view": 2, "buy": 4})
    assert not is_older({"buy": 0}, {"view": 2})


def test_a_copied_row_does_not_keep_its_message() -> None:
    (_, trigger), _ = unpack(pack(interests(("a", 3, 1), ("b", 2, 2)), [0, 1]), 0.0)
    assert isinstance(trigger.row, Row)
    assert trigger.row.interactions.base is None
