"""Tickets: what may be committed when, whatever the order of answers, failures and rebalances."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from faust.types import TP

from stream.answers.progress import Progress, Trigger, Waiting

CLICK, VIEW = TP("click", 0), TP("view", 0)


def trigger(ticket: int, offset: int, topic: str) -> Trigger:
    return Trigger(topic, offset, ts=1000 + offset, arrived=float(ticket), trace=None)


def batch(progress: Progress, tp: TP, next_offset: int, users: Iterable[str]) -> int:
    """One applied batch of one event, whose users wait; returns its ticket."""
    ticket = progress.applied(tp, next_offset, next_offset - 1)
    for user in users:
        progress.wait(ticket, tp.partition, user, trigger(ticket, next_offset - 1, tp.topic))
    return ticket


def answer(progress: Progress, waiting: Iterable[Waiting]) -> None:
    for w in waiting:
        progress.done(w.ticket)


def test_a_batch_is_committable_when_its_last_user_is_answered() -> None:
    progress = Progress()
    batch(progress, CLICK, 3, ["a", "b"])
    taken = progress.take(10)
    assert [w.user for w in taken] == ["a", "b"] and progress.waiting == 0
    answer(progress, taken[:1])
    assert progress.committable() == {} and not progress.settled
    answer(progress, taken[1:])
    assert progress.committable() == {CLICK: 3} and progress.settled


def test_a_batch_that_touched_nobody_is_committable_at_once() -> None:
    progress = Progress()
    batch(progress, CLICK, 5, [])
    assert progress.committable() == {CLICK: 5}


def test_nothing_is_committed_past_an_older_batch_that_is_open() -> None:
    progress = Progress()
    batch(progress, CLICK, 3, ["a"])
    batch(progress, VIEW, 9, ["b"])
    a, b = progress.take(2)
    answer(progress, [b])
    assert progress.committable() == {}
    answer(progress, [a])
    assert progress.committable() == {CLICK: 3, VIEW: 9}


def test_offsets_stay_committable_and_only_grow() -> None:
    progress = Progress()
    for n in (3, 7, 7, 12):
        batch(progress, CLICK, n, ["a"])
        answer(progress, progress.take(1))
        assert progress.committable() == {CLICK: n} == progress.committable()


def test_a_dead_letter_holds_its_batch() -> None:
    progress = Progress()
    ticket = batch(progress, CLICK, 3, [])
    progress.hold(ticket, 2)
    progress.done(ticket)
    assert progress.committable() == {}
    progress.done(ticket)
    assert progress.committable() == {CLICK: 3}


def test_a_user_who_waits_keeps_place_and_ticket_and_takes_the_newer_trigger() -> None:
    progress = Progress()
    first = batch(progress, CLICK, 1, ["a"])
    batch(progress, CLICK, 2, ["b"])
    batch(progress, CLICK, 3, ["a"])
    assert progress.waiting == 2 and progress.conflated == 1
    a, b = progress.take(2)
    assert (a.user, a.ticket, a.trigger.offset) == ("a", first, 2)
    answer(progress, [b])
    assert progress.committable() == {}
    answer(progress, [a])
    assert progress.committable() == {CLICK: 3}


def test_an_event_that_comes_while_its_user_is_answered_waits_for_a_list_of_its_own() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, ["a"])
    taken = progress.take(1)
    batch(progress, CLICK, 2, ["a"])
    assert progress.waiting == 1 and progress.conflated == 0
    answer(progress, taken)
    assert progress.committable() == {CLICK: 1}


def test_users_of_the_same_name_in_two_partitions_are_two() -> None:
    progress = Progress()
    batch(progress, TP("click", 0), 1, ["a"])
    batch(progress, TP("click", 1), 1, ["a"])
    assert [(w.partition, w.user) for w in progress.take(5)] == [(0, "a"), (1, "a")]


def test_a_list_that_failed_makes_its_user_wait_again_with_the_oldest_ticket_and_newest_trigger() -> None:
    progress = Progress()
    first = batch(progress, CLICK, 1, ["a"])
    failed = progress.take(1)
    batch(progress, CLICK, 2, ["a"])
    progress.give_back(failed)
    (a,) = progress.take(5)
    assert (a.ticket, a.trigger.offset) == (first, 1)
    assert progress.committable() == {}
    answer(progress, [a])
    assert progress.committable() == {CLICK: 2} and progress.settled


def test_two_lists_of_one_user_may_fail_in_either_order() -> None:
    for order in ((0, 1), (1, 0)):
        progress = Progress()
        first = batch(progress, CLICK, 1, ["a"])
        failed = progress.take(1)
        batch(progress, CLICK, 2, ["a"])
        failed += progress.take(1)
        for i in order:
            progress.give_back([failed[i]])
        (a,) = progress.take(5)
        assert (a.ticket, a.trigger.offset) == (first, 1), order
        assert progress.committable() == {}, "the first event is committed before it is answered"
        answer(progress, [a])
        assert progress.committable() == {CLICK: 2} and progress.settled


def test_a_partition_given_up_is_forgotten_and_holds_nothing_up() -> None:
    progress = Progress()
    batch(progress, TP("click", 0), 1, ["a"])
    batch(progress, TP("click", 1), 5, ["b"])
    progress.forget({0})
    assert [w.user for w in progress.take(5)] == ["b"]
    assert progress.committable() == {}
    progress.forget({1})
    assert progress.committable() == {}


def test_a_list_under_way_for_a_partition_given_up_ends_without_a_trace() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, ["a"])
    taken = progress.take(1)
    progress.forget({0})
    assert not progress.settled
    answer(progress, taken)
    assert progress.settled and progress.committable() == {}


def test_a_list_that_fails_after_its_partition_came_back_does_not_hide_the_event_that_is_read_again() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, ["a"])
    failed = progress.take(1)
    progress.forget({0})
    batch(progress, CLICK, 1, ["a"])  # assigned anew, and read again
    progress.give_back(failed)
    assert progress.committable() == {}, "the event is committed before it is answered"
    answer(progress, progress.take(5))
    assert progress.committable() == {CLICK: 1} and progress.settled


@dataclass
class Touch:
    """One user touched by one batch. `group`: the list under way that covers it."""

    tp: TP
    user: str
    offset: int
    state: str = "waits"
    group: int | None = None


@dataclass
class SlowModel:
    """Every batch and every touch for ever; what is committable is read off them each time."""

    batches: list[tuple[TP, int, list[Touch]]] = field(default_factory=list)
    forgotten: set[int] = field(default_factory=set)
    done: dict[TP, int] = field(default_factory=dict)

    def waiting(self, partition: int, user: str) -> list[Touch]:
        everything = (t for i, (*_, ts) in enumerate(self.batches) if i not in self.forgotten for t in ts)
        return [t for t in everything if (t.tp.partition, t.user, t.state) == (partition, user, "waits")]

    def forget(self, partitions: set[int]) -> None:
        self.forgotten |= {i for i, (tp, *_) in enumerate(self.batches) if tp.partition in partitions}
        self.done = {tp: offset for tp, offset in self.done.items() if tp.partition not in partitions}

    def committable(self) -> dict[TP, int]:
        for i, (tp, next_offset, touches) in enumerate(self.batches):
            if i in self.forgotten:
                continue
            if any(t.state != "answered" for t in touches):
                break
            self.done[tp] = next_offset
        return self.done


@pytest.mark.parametrize("seed", range(40))
def test_random_operations_agree_with_a_slow_model(seed: int) -> None:
    rng = random.Random(seed)
    progress, model, offsets = Progress(), SlowModel(), dict[TP, int]()
    under_way: list[tuple[Waiting, list[Touch]]] = []
    for _ in range(250):
        what = rng.choices(["batch", "take", "answer", "fail", "forget"], (30, 25, 30, 10, 2))[0]
        if what == "batch":
            tp = TP(rng.choice(["click", "view"]), rng.randrange(3))
            offset = offsets[tp] = offsets.get(tp, 0) + rng.randint(1, 5)
            users = rng.sample("abcdef", rng.randint(0, 4))
            batch(progress, tp, offset, users)
            model.batches.append((tp, offset, [Touch(tp, user, offset - 1) for user in users]))
        elif what == "take":
            for w in progress.take(rng.randint(1, 4)):
                covered = model.waiting(w.partition, w.user)
                assert w.trigger.offset == covered[-1].offset, "the trigger is the newest event that waits"
                assert w.trigger.topic == covered[-1].tp.topic
                for touch in covered:
                    touch.state = "under way"
                under_way.append((w, covered))
        elif what in ("answer", "fail") and under_way:
            w, covered = under_way.pop(rng.randrange(len(under_way)))
            (progress.give_back([w]) if what == "fail" else progress.done(w.ticket))
            for touch in covered:
                touch.state = "waits" if what == "fail" else "answered"
        elif what == "forget":
            gone = set(rng.sample(range(3), rng.randint(1, 2)))
            progress.forget(gone)
            model.forget(gone)
        assert progress.committable() == model.committable()
    while progress.waiting or under_way:
        under_way += [(w, []) for w in progress.take(10)]
        answer(progress, [w for w, _ in under_way])
        under_way.clear()
    assert progress.settled
