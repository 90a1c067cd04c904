"""When lists go out, by hand: silence, pace, and what has not changed; time is told."""

from __future__ import annotations

import pytest
from faust.types import TP
from pydantic import ValidationError

from stream.answers.emission import Changes, EmitConfig, Pace, Silence
from stream.answers.progress import Trigger, Waiting

A, B = (0, "a"), (0, "b")


def waiting(user: str, ticket: int = 0, offset: int = 0) -> Waiting:
    return Waiting(0, user, ticket, Trigger("click", offset, 0, 0.0, None))


def newer(earlier: Waiting, later: Waiting) -> Waiting:
    return earlier._replace(trigger=later.trigger)


# On what


def test_lists_are_caused_by_all_actions_unless_some_are_named() -> None:
    assert all(EmitConfig().speaks_on(action) for action in ("view", "buy", "share"))
    only = EmitConfig(on=["buy", "click"])
    assert [action for action in ("view", "click", "buy") if only.speaks_on(action)] == ["click", "buy"]
    assert EmitConfig.model_validate({"on": "click, buy"}).on == ["click", "buy"], "as the environment has it"
    assert EmitConfig(on=["purchase"]).speaks_on("buy"), "two names of one action"


@pytest.mark.parametrize("wrong", [{"on": []}, {"on": ["stare"]}, {"max_lag": 0}, {"min_interval_ms": -1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EmitConfig.model_validate(wrong)


# Silence


def silence(max_lag: int | None = 100, topics: tuple[str, ...] = ("click", "view")) -> Silence:
    made = Silence(topics, max_lag)
    made.paused = False
    return made


def test_a_partition_is_silent_while_its_topics_together_are_too_far_behind() -> None:
    s = silence()
    s.measured(TP("view", 0), 0)
    s.measured(TP("click", 0), 60)
    assert not s.silent(0)
    s.measured(TP("view", 0), 41)
    assert s.silent(0)
    s.measured(TP("view", 0), 0)
    assert s.silent(0), "60 are more than half of 100: it is not caught up"
    s.measured(TP("click", 0), 50)
    assert not s.silent(0)
    s.measured(TP("view", 0), 50)
    assert not s.silent(0), "100 are not more than 100"


def test_without_a_limit_no_lag_is_too_much() -> None:
    s = silence(None)
    s.measured(TP("click", 0), 10**9)
    assert not s.silent(0)


def test_there_is_silence_until_it_is_known_how_far_behind_all_topics_are() -> None:
    s = silence()
    assert s.silent(0), "after a restart in the middle of a backlog nothing is known"
    s.measured(TP("click", 0), 0)
    assert s.silent(0)
    s.measured(TP("view", 0), 1000)
    assert s.silent(0)
    s.measured(TP("view", 0), 3)
    assert not s.silent(0) and s.silent(1)
    s.forget()
    assert s.silent(0)


def test_nobody_speaks_while_emission_is_paused_or_it_is_not_known_whether_it_is() -> None:
    s = Silence(["click"], None)
    assert s.paused is None and s.silent(0)
    s.paused = True
    assert s.silent(0)
    s.paused = False
    assert not s.silent(0)


# Pace


def test_a_user_is_early_until_the_interval_is_over() -> None:
    pace = Pace(10.0)
    assert not pace.early(A, 100.0)
    pace.spoke([A], 100.0)
    assert pace.early(A, 100.0) and pace.early(A, 109.9) and not pace.early(A, 110.0)
    assert not pace.early(B, 101.0)


def test_the_newest_of_those_who_came_early_is_due_when_the_interval_is_over() -> None:
    pace = Pace(10.0)
    pace.spoke([A], 100.0)
    pace.spoke([B], 103.0)
    assert pace.next_in(104.0) is None
    pace.defer(waiting("b", offset=1), newer)
    pace.defer(waiting("a", offset=2), newer)
    pace.defer(waiting("a", offset=3), newer)
    assert pace.deferred == 2 and pace.next_in(104.0) == 6.0
    assert pace.due(109.9) == []
    assert [(w.user, w.trigger) for w in pace.due(110.0)] == [("a", waiting("a", offset=3).trigger)]
    assert pace.next_in(111.0) == 2.0 and [w.user for w in pace.due(200.0)] == ["b"]
    assert pace.deferred == 0 and pace.next_in(200.0) is None and pace.due(300.0) == []


def test_a_list_that_failed_makes_nobody_early() -> None:
    pace = Pace(10.0)
    pace.spoke([A], 100.0)
    pace.failed([A])
    assert not pace.early(A, 101.0)


def test_only_users_of_the_last_interval_are_remembered() -> None:
    pace = Pace(10.0)
    for n in range(1000):
        pace.spoke([(0, f"u{n}")], float(n))
    assert len(pace._last) == 10
    pace.spoke([(0, "u995")], 1000.0)
    assert list(pace._last)[-1] == (0, "u995") and pace.early((0, "u995"), 1009.0)


def test_without_an_interval_nobody_is_early_and_nobody_is_remembered() -> None:
    pace = Pace(0.0)
    pace.spoke([A], 1.0)
    assert not pace.early(A, 1.0) and len(pace._last) == 0


# Changes


def sent(changes: Changes, key: tuple[int, str], items: list[str]) -> None:
    changes.acknowledged(key, changes.sent(key), items)


def test_a_list_is_unchanged_when_items_and_order_are_those_of_the_last_one() -> None:
    changes = Changes()
    assert not changes.unchanged(A, ["x", "y"])
    sent(changes, A, ["x", "y"])
    assert changes.unchanged(A, ["x", "y"]) and not changes.unchanged(B, ["x", "y"])
    assert not changes.unchanged(A, ["y", "x"]) and not changes.unchanged(A, ["x"])
    sent(changes, A, ["y", "x"])
    assert not changes.unchanged(A, ["x", "y"])


def test_a_list_counts_when_it_is_acknowledged() -> None:
    changes = Changes()
    number = changes.sent(A)
    assert not changes.unchanged(A, ["x"])
    changes.failed(A, number)
    assert not changes.unchanged(A, ["x"])
    sent(changes, A, ["x"])
    assert changes.unchanged(A, ["x"])


def test_while_another_list_is_under_way_none_is_held_back() -> None:
    changes = Changes()
    sent(changes, A, ["x"])
    first, second = changes.sent(A), changes.sent(A)
    assert not changes.unchanged(A, ["x"])
    changes.acknowledged(A, first, ["y"])
    assert not changes.unchanged(A, ["y"]), "the second one will be the last"
    changes.acknowledged(A, second, ["z"])
    assert changes.unchanged(A, ["z"])


def test_those_who_had_their_list_longest_ago_are_forgotten() -> None:
    changes = Changes(remembered=2)
    for user in "abc":
        sent(changes, (0, user), ["x"])
    assert [changes.unchanged((0, user), ["x"]) for user in "abc"] == [False, True, True]


def test_nothing_is_known_of_users_who_were_another_worker_s() -> None:
    changes = Changes()
    sent(changes, A, ["x"])
    number = changes.sent(B)
    changes.forget()
    changes.acknowledged(B, number, ["x"])
    assert not changes.unchanged(A, ["x"]) and not changes.unchanged(B, ["x"])
