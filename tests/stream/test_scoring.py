"""Scores against hand arithmetic: places, misses, margins, and what was popular before an event."""

from __future__ import annotations

import math

import numpy as np
import pytest

from model.dataset import Events
from stream.dev.scoring import DAY_MS, Scoreboard, popular_before, rank

HOUR = 3_600_000


def events(*rows: tuple[str, str, int]) -> Events:
    """Events from (user, item, ms)."""
    users, items, times = zip(*rows, strict=True)
    n = len(rows)
    return Events(
        np.array(users, object), np.array(items, object), np.ones(n, np.uint8), np.array(times), np.zeros(n, np.float32)
    )


def test_a_rank_is_the_place_from_one_and_infinite_where_the_item_is_not() -> None:
    assert rank(["a", "b"], "a") == 1 and rank(["a", "b"], "b") == 2
    assert rank(["a", "b"], "c") == math.inf == rank([], "a")


def test_hits_and_gains_are_means_over_events() -> None:
    board = Scoreboard(["one"], k=3)
    board.score("u", "a", {"one": ["a", "b", "c", "d"]})  # place 1: hit, gain 1
    board.score("u", "c", {"one": ["a", "b", "c", "d"]})  # place 3: hit, gain 1 / log2(4) = 1/2
    board.score("v", "d", {"one": ["a", "b", "c", "d"]})  # place 4 of 3: miss
    board.score("v", "e", {"one": ["a", "b", "c", "d"]})  # not there: miss
    (row,) = board.table()
    assert len(board) == 4
    assert row.hr.mean == 2 / 4
    assert row.ndcg.mean == pytest.approx((1 + 1 / 2) / 4)
    assert row.over == ()
    assert row.hr.low <= row.hr.mean <= row.hr.high


def test_an_event_without_a_prior_list_is_a_miss_for_all() -> None:
    board = Scoreboard(["one", "two"])
    board.score("u", "a", None)
    board.score("u", "a", {"one": ["a"], "two": ["a"]})
    assert board.without_list == 1
    assert [row.hr.mean for row in board.table()] == [1 / 2, 1 / 2]


def test_each_row_is_compared_with_the_one_before_on_the_same_events() -> None:
    board = Scoreboard(["popular", "fallback", "released"])
    for user in "abcdefgh":
        board.score(user, "x", {"popular": ["y"], "fallback": ["y", "x"], "released": ["x"]})
    popular, fallback, released = board.table()
    assert [row.hr.mean for row in (popular, fallback, released)] == [0, 1, 1]
    hr, ndcg = fallback.over
    assert (hr.mean, hr.low, hr.high) == (1, 1, 1)
    assert ndcg.mean == pytest.approx(1 / math.log2(3))
    hr, ndcg = released.over
    assert (hr.mean, hr.low, hr.high) == (0, 0, 0)
    assert ndcg.mean == pytest.approx(1 - 1 / math.log2(3))


def test_intervals_resample_users_not_events() -> None:
    """One user with a thousand hits and one with a thousand misses: the mean of a resample is 0, 1/2 or 1."""
    board = Scoreboard(["one"])
    for _ in range(1000):
        board.score("hit", "a", {"one": ["a"]})
        board.score("miss", "a", {"one": ["b"]})
    (row,) = board.table()
    assert (row.hr.mean, row.hr.low, row.hr.high) == (0.5, 0.0, 1.0)


def test_a_seed_fixes_the_intervals() -> None:
    board = Scoreboard(["one"])
    for n in range(50):
        board.score(f"u{n % 7}", "a", {"one": ["a"] if n % 3 else ["b"]})
    assert board.table(seed=1) == board.table(seed=1)


def test_nothing_scored_is_no_table() -> None:
    assert Scoreboard(["one"]).table() == []


def test_what_is_popular_before_an_event_is_what_was_met_most_and_not_by_its_user() -> None:
    told = events(
        ("a", "x", 0), ("b", "x", 1), ("c", "y", 2), ("d", "z", 3), ("c", "x", 3), ("a", "y", 4), ("e", "w", 5)
    )
    #             before (e, w): x 3 times, y twice, z once; before (a, y): y and z once, and a has met x
    lists = popular_before(told, start=5)
    assert set(lists[0][:2]) == {"y", "z"}
    assert lists[1][:3] == ["x", "y", "z"]
    assert len(lists) == 2


def test_the_baseline_knows_the_events_of_the_same_moment_that_come_before() -> None:
    lists = popular_before(events(("a", "x", 7), ("b", "y", 7), ("c", "z", 7)), start=2, k=2)
    assert set(lists[0]) == {"x", "y"}


def test_the_baseline_never_knows_the_event_itself_nor_those_after() -> None:
    lists = popular_before(events(("a", "x", 0), ("b", "y", 1), ("c", "y", 2), ("d", "y", 3)), start=1, k=1)
    assert lists[0] == ["x"]


def test_the_baseline_forgets_what_is_older_than_its_days() -> None:
    week = 7 * DAY_MS
    told = events(*((f"u{n}", "old", 0) for n in range(5)), ("v", "new", HOUR), ("w", "x", week), ("w", "x", week + 1))
    at_the_edge, past_it = popular_before(told, start=6, k=2)
    assert at_the_edge[0] == "old"  # seven days ago is within seven days
    assert past_it[0] == "new"


def test_the_baseline_lists_what_its_user_has_not_met_though_nobody_has_lately() -> None:
    """A list is full where the data has enough items: a shorter one would make the baseline weaker than it is."""
    told = events(("a", "x", 0), ("b", "y", 1), ("a", "z", 10 * DAY_MS))
    (list_of_a,) = popular_before(told, start=2, k=2)
    assert set(list_of_a) == {"y", "z"}
