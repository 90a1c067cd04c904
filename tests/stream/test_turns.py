"""Whose turn it is: nobody starves, however loud others are, and whoever waits takes turns with whoever is owed."""

from __future__ import annotations

import random

from stream.answers.progress import Progress
from tests.stream.test_progress import CLICK, answer, batch


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
