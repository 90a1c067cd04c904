"""When freed memory is given back."""

from __future__ import annotations

from weakref import ref

from stream.process.memory import AFTER_BYTES, EVERY_S, Spent, give_back


class Thing:
    itself: Thing


def test_memory_is_given_back_after_much_was_used_and_not_too_often() -> None:
    now = [0.0]
    spent = Spent(lambda: now[0])
    assert not spent.add(AFTER_BYTES)  # too early
    now[0] = EVERY_S
    assert spent.add(1)
    assert not spent.add(AFTER_BYTES - 1)
    now[0] = 3 * EVERY_S
    assert spent.add(1)


def test_when_there_is_nothing_to_do_the_rest_is_given_back_once() -> None:
    now = [0.0]
    spent = Spent(lambda: now[0])
    spent.add(10)
    assert not spent.add(0)
    now[0] = EVERY_S
    assert spent.add(0)
    now[0] = 3 * EVERY_S
    assert not spent.add(0)


def test_what_only_points_to_itself_is_given_back_too() -> None:
    thing = Thing()
    thing.itself, seen = thing, ref(thing)
    del thing
    give_back()
    assert seen() is None
