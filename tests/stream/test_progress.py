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


# Who starves: nobody


def test_nobody_starves_under_a_flood_of_one_user() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, [f"u{n}" for n in range(100)])
    offset, served = 1, []
    while len(served) < 100:
        for _ in range(3):  # three events of the hot user for every list that is made
            offset += 1
            batch(progress, CLICK, offset, ["hot"])
        taken = progress.take(1)
        served += [w.user for w in taken if w.user != "hot"]
        answer(progress, taken)
        assert progress.waiting <= 101
    assert served == [f"u{n}" for n in range(100)], "those who have waited longest come first"
    assert [w.user for w in progress.take(1)] == ["hot"]
    assert progress.conflated == 3 * 100 - 1


def test_a_user_waits_for_no_more_than_those_who_waited_before() -> None:
    rng = random.Random(1)
    progress, taken, ahead = Progress(), 0, dict[str, int]()
    for offset in range(1, 2000):
        user = f"u{int(rng.paretovariate(0.6)) % 300}"
        if user not in ahead:
            ahead[user] = taken + progress.waiting
        batch(progress, CLICK, offset, [user])
        if offset % 3 == 0:
            for w in progress.take(1):
                assert taken == ahead.pop(w.user), f"{w.user} was passed by"
                taken += 1
                answer(progress, [w])
    assert taken > 500


def test_those_who_wait_and_those_who_are_owed_take_turns() -> None:
    progress = Progress()
    owed = [f"o{n}" for n in range(6)]
    progress.owe(CLICK, 0)
    assert progress.speak(0, [({CLICK: 0}, owed)]) == 6 == progress.backlog
    batch(progress, CLICK, 20, [f"w{n}" for n in range(100)])
    assert [w.user for w in progress.take(4)] == ["w0", "w1", "o0", "o1"]
    assert [w.user for w in progress.take(1)] == ["w2"]
    assert [w.user for w in progress.take(8)] == ["w3", "w4", "w5", "w6", "o2", "o3", "o4", "o5"]
    assert [w.user for w in progress.take(3)] == ["w7", "w8", "w9"] and progress.backlog == 0


# Silence, and what is owed


def test_what_is_applied_in_silence_is_committed_and_owed() -> None:
    progress = Progress()
    progress.hush(0)
    batch(progress, CLICK, 5, [])
    progress.owe(CLICK, 3)
    batch(progress, CLICK, 9, [])
    progress.owe(CLICK, 5)
    assert progress.committable() == {CLICK: 9} and progress.settled and progress.quiet == {0}
    assert progress.owed() == {CLICK: 3} == progress.silence(0)


def test_a_debt_is_paid_when_its_last_user_is_answered() -> None:
    progress = Progress()
    progress.owe(CLICK, 3)
    progress.speak(0, [({CLICK: 3}, ["a", "b"]), ({CLICK: 7}, ["c"]), ({CLICK: 8}, [])])
    assert progress.quiet == set() and progress.owed() == {CLICK: 3} and progress.settled
    a, b, c = progress.take(5)
    assert [(w.user, w.trigger) for w in (a, b, c)] == [("a", None), ("b", None), ("c", None)]
    answer(progress, [a])
    assert progress.owed() == {CLICK: 3}
    answer(progress, [b])
    assert progress.owed() == {CLICK: 7}, "as chunks are answered, the debt shrinks"
    answer(progress, [c])
    assert progress.owed() == {}


def test_when_silence_begins_those_who_wait_are_owed() -> None:
    progress = Progress()
    batch(progress, TP("click", 0), 4, ["a"])
    batch(progress, TP("click", 1), 2, ["b"])
    progress.speak(0, [({VIEW: 2}, ["c"])])
    progress.hush(0)
    assert [w.user for w in progress.take(9)] == ["b"] and progress.backlog == 0
    assert progress.owed() == {CLICK: 3, VIEW: 2}
    assert progress.committable() == {CLICK: 4}, "the other partition is still being answered"


def test_a_list_that_fails_in_a_silence_is_owed() -> None:
    progress = Progress()
    batch(progress, CLICK, 4, ["a"])
    failed = progress.take(1)
    progress.hush(0)
    progress.give_back(failed)
    assert progress.waiting == 0 and progress.settled
    assert progress.committable() == {CLICK: 4} and progress.owed() == {CLICK: 3}


def test_one_who_comes_too_early_holds_no_offset_back_and_is_owed() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, ["a", "b"])
    batch(progress, CLICK, 2, ["a"])
    a, b = (progress.defer(w) for w in progress.take(2))
    assert progress.settled and progress.committable() == {CLICK: 2}
    assert progress.owed() == {CLICK: 0}
    answer(progress, [b])
    assert progress.owed() == {CLICK: 0}
    progress.give_back([a])
    (a,) = progress.take(1)
    assert a.trigger is not None and a.trigger.offset == 1
    assert progress.defer(a) == a, "one debt is enough"
    answer(progress, [a])
    assert progress.owed() == {} and progress.settled


def test_two_of_one_user_become_one_and_the_other_s_hold_is_free() -> None:
    progress = Progress()
    batch(progress, CLICK, 1, ["a"])
    first = progress.defer(*progress.take(1))
    batch(progress, VIEW, 8, ["a"])
    second = progress.defer(*progress.take(1))
    one = progress.one(first, second)
    assert one.trigger == second.trigger and one.ticket == first.ticket
    assert progress.owed() == {CLICK: 0} and progress.conflated == 1
    answer(progress, [one])
    assert progress.owed() == {}


def test_one_who_is_owed_and_waits_is_taken_once() -> None:
    progress = Progress()
    progress.owe(CLICK, 0)
    progress.speak(0, [({CLICK: 0}, ["a", "b"])])
    batch(progress, CLICK, 9, ["a"])
    taken = progress.take(5)
    assert sorted(w.user for w in taken) == ["a", "b"]
    answer(progress, taken)
    assert progress.owed() == {} and progress.settled and progress.committable() == {CLICK: 9}


def test_debts_of_a_partition_given_up_are_its_new_owner_s() -> None:
    progress = Progress()
    progress.owe(CLICK, 0)
    progress.speak(0, [({CLICK: 0}, ["a", "b"])])
    (a,) = progress.take(1)
    batch(progress, VIEW, 3, ["c"])
    c = progress.defer(*[w for w in progress.take(2) if w.user == "c"])
    progress.owe(TP("view", 1), 7)
    progress.forget({0})
    assert progress.owed() == {TP("view", 1): 7} and progress.quiet == {1}
    assert progress.take(5) == [] and progress.backlog == 0
    progress.owe(CLICK, 2)  # it came back, and its debt was read
    progress.give_back([a, c])
    assert progress.waiting == 0 and progress.owed() == {TP("view", 1): 7, CLICK: 2} and progress.settled


@dataclass
class Rows:
    """What a crash leaves: the last offset of every topic partition that each user's row has taken in."""

    applied: dict[tuple[int, str], dict[TP, int]] = field(default_factory=dict)
    unanswered: set[tuple[int, str]] = field(default_factory=set)

    def touch(self, tp: TP, user: str, offset: int) -> None:
        self.applied.setdefault((tp.partition, user), {})[tp] = offset
        self.unanswered.add((tp.partition, user))

    def owed(self, partition: int, owed: dict[TP, int]) -> list[tuple[dict[TP, int], list[str]]]:
        found = [
            user
            for (p, user), applied in self.applied.items()
            if p == partition and any(applied.get(tp, -1) >= first for tp, first in owed.items())
        ]
        return [(owed, found[:2]), (owed, found[2:])]

    def check(self, progress: Progress) -> None:
        """Whoever is unanswered would be found after a crash: read again, or owed."""
        committed, owed = progress.committable(), progress.owed()
        for key in self.unanswered:
            offsets = self.applied[key].items()
            found = any(o >= committed.get(tp, 0) or o >= owed.get(tp, o + 1) for tp, o in offsets)
            assert found, f"{key} is lost: {self.applied[key]}, committed {committed}, owed {owed}"


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_a_crash_loses_no_answer(seed: int) -> None:
    rng = random.Random(seed)
    progress, rows, offsets = Progress(), Rows(), dict[TP, int]()
    taken: list[Waiting] = []
    deferred: dict[tuple[int, str], Waiting] = {}
    newest: dict[Waiting, dict[TP, int]] = {}
    for _ in range(300):
        what = rng.choices(
            ["batch", "take", "answer", "fail", "defer", "due", "hush", "speak"], (30, 20, 25, 5, 10, 5, 4, 6)
        )[0]
        if what == "batch":
            tp = TP(rng.choice(["click", "view"]), rng.randrange(2))
            first = offsets.get(tp, 0)
            users = rng.sample("abcdef", rng.randint(0, 4))
            offsets[tp] = first + len(users) + rng.randint(1, 3)
            ticket = progress.applied(tp, offsets[tp], first)
            for i, user in enumerate(users):
                rows.touch(tp, user, first + i)
                if tp.partition not in progress.quiet:
                    progress.wait(ticket, tp.partition, user, trigger(ticket, first + i, tp.topic))
            if users and tp.partition in progress.quiet:
                progress.owe(tp, first)
        elif what == "take":
            for w in progress.take(rng.randint(1, 4)):
                taken.append(w)
                newest[w] = dict(rows.applied[w.key])
        elif what in ("answer", "fail", "defer") and taken:
            w = taken.pop(rng.randrange(len(taken)))
            known = newest.pop(w)
            if what == "answer":
                progress.done(w.ticket)
                if known == rows.applied[w.key]:  # else it is touched again, and waits or is owed for that
                    rows.unanswered.discard(w.key)
            elif what == "fail":
                progress.give_back([w])
            else:
                held = progress.defer(w)
                deferred[w.key] = progress.one(deferred[w.key], held) if w.key in deferred else held
        elif what == "due" and deferred:
            progress.give_back([deferred.pop(rng.choice(list(deferred)))])
        elif what == "hush":
            progress.hush(rng.randrange(2))
        elif what == "speak" and progress.quiet:
            partition = rng.choice(sorted(progress.quiet))
            progress.speak(partition, rows.owed(partition, progress.silence(partition)))
        rows.check(progress)
    for partition in sorted(progress.quiet):
        progress.speak(partition, rows.owed(partition, progress.silence(partition)))
    progress.give_back(deferred.values())
    answer(progress, taken)
    while rest := progress.take(10):
        answer(progress, rest)
    assert progress.settled and progress.owed() == {} and progress.backlog == 0
    assert progress.committable() == {tp: offset for tp, offset in offsets.items()}
