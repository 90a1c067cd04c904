"""What is owed after a silence: first offsets, the users they stand for, and what a crash would find of them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from faust.types import TP

from stream.answers.progress import Progress, Waiting
from tests.stream.test_progress import CLICK, VIEW, answer, batch, trigger


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
