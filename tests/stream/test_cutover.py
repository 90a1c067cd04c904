"""Whose turn it is, by hand: what a partition is to do, what a command is to do next, and where the cut is."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from faust.types import TP

from stream.answers.control import Turn
from stream.answers.debts import Debts
from stream.answers.emission import EmitConfig, Silence
from stream.answers.turns import Stance, Turns, stance
from stream.cutover import Group, Plan, Step, asked, cut_of, given, less, next_step, taken_back
from stream.errors import StateError
from stream.events import InputConfig
from stream.ingest import Ingest
from stream.kafka.changelog import Changelog
from stream.kafka.clients import KafkaConfig
from stream.kafka.debts import Note
from stream.process.monitor import Monitor
from stream.state import State, StateConfig
from stream.trends import Trends, TrendsConfig

CLICK, VIEW = TP("click", 0), TP("view", 0)
CLICK_1 = TP("click", 1)

FIRST = Turn(1, "v2", "v1", False, 0, {}, 0)
GIVEN = given(FIRST, {"click": [10, 20], "view": [5]}, 0)
BACK = asked(GIVEN, 1, "v2", "v1", 0)


def test_a_turn_goes_there_and_back() -> None:
    assert asked(None, 0, "v1", "v2", 0) == FIRST
    assert (GIVEN.number, GIVEN.answering, GIVEN.began) == (1, "v2", 1)
    assert Turn(2, "v1", "v2", False, 1, GIVEN.floor, 0) == BACK, "v2 answers from its floor on while it is asked"
    again = given(BACK, {"click": [30, 40], "view": [9]}, 0)
    assert (again.number, again.answering, again.began, again.floor_of("click", 1)) == (2, "v1", 2, 40)
    assert asked(None, 4, "v1", "v2", 0).number == 5, "partitions remember more turns than the topic"


def test_a_turn_that_is_taken_back_leaves_who_answered_where_it_was() -> None:
    back = taken_back(BACK, 0)
    assert back == Turn(3, "v2", "v1", True, 1, GIVEN.floor, 0)
    assert taken_back(FIRST, 0) == Turn(2, "v1", "v2", True, 0, {}, 0)


@pytest.mark.parametrize(
    ("turn", "state", "noted", "expected"),
    [
        (None, "v1", 0, Stance.ANSWERS),
        (FIRST, "v1", 0, Stance.FALLS_SILENT),
        (FIRST, "v1", 1, Stance.SILENT),
        (FIRST, "v2", 0, Stance.SILENT),
        (FIRST, "v3", 0, Stance.SILENT),
        (GIVEN, "v1", 1, Stance.SILENT),
        (GIVEN, "v1", 0, Stance.SILENT),  # it was noted for it, and it has not seen that
        (GIVEN, "v2", 0, Stance.BEGINS),
        (GIVEN, "v2", 1, Stance.ANSWERS),
        (BACK, "v2", 1, Stance.FALLS_SILENT),
        (BACK, "v2", 0, Stance.FALLS_SILENT),
        (BACK, "v1", 1, Stance.SILENT),
        (taken_back(FIRST, 0), "v1", 0, Stance.BEGINS),
        (taken_back(FIRST, 0), "v1", 1, Stance.BEGINS),
        (taken_back(FIRST, 0), "v2", 0, Stance.SILENT),
        (FIRST, "v1", 2, Stance.SILENT),  # its partition has gone further than the worker has heard
        (None, "v1", 2, Stance.SILENT),
    ],
)
def test_what_a_partition_is_to_do(turn: Turn | None, state: str, noted: int, expected: Stance) -> None:
    assert stance(turn, state, noted, begins_silent=False) is expected


def test_a_state_may_begin_silent_until_a_turn_is_given_to_it() -> None:
    assert stance(None, "v2", 0, begins_silent=True) is Stance.SILENT
    assert stance(GIVEN, "v2", 0, begins_silent=True) is Stance.BEGINS
    assert stance(GIVEN, "v2", 1, begins_silent=True) is Stance.ANSWERS


def test_partitions_go_along_by_what_stands_beside_their_offsets() -> None:
    turns = Turns("v2", ["click", "view", "request"])
    assert turns.notes({CLICK: 7}) == {CLICK: Note(7)}, "before all turns nothing is said of them"
    turns.claimed({CLICK: Note(7, 1), VIEW: Note(), CLICK_1: Note(None, 3), TP("click", 2): Note(None, 3)}, {0, 1})
    turns.hear(GIVEN)
    assert [turns.stance(p) for p in (0, 1, 2)] == [Stance.ANSWERS, Stance.SILENT, Stance.BEGINS]
    assert turns.notes({CLICK: 7, TP("view", 2): 8}) == {
        CLICK: Note(7, 1),
        VIEW: Note(None, 1),
        TP("request", 0): Note(None, 1),
        **{TP(topic, 1): Note(None, 3) for topic in ("click", "view", "request")},
        TP("view", 2): Note(8),
    }
    assert turns.missed(2) and not turns.missed(0)
    assert turns.floors(0) == {CLICK: 10, VIEW: 5}
    assert Turns("v1", ["click"]).floor(CLICK) == 0


@pytest.mark.parametrize(
    ("turn", "before", "speaker", "step"),
    [
        (None, "v1", "v2", Step.ASK),
        (FIRST, "v1", "v2", Step.GO_ON),
        (FIRST, "v2", "v1", Step.GO_BACK),
        (GIVEN, "v1", "v2", Step.NOTHING),
        (GIVEN, "v2", "v1", Step.ASK),
        (GIVEN, "v2", "v3", Step.ASK),
        (BACK, "v2", "v1", Step.GO_ON),
        (BACK, "v1", "v2", Step.GO_BACK),
        (taken_back(FIRST, 0), "v1", "v2", Step.ASK),
        (taken_back(FIRST, 0), "v2", "v1", Step.NOTHING),
    ],
)
def test_a_command_goes_on_or_back_from_what_is_written(
    turn: Turn | None, before: str, speaker: str, step: Step
) -> None:
    assert next_step(turn, before, speaker) is step


@pytest.mark.parametrize(("turn", "names"), [(GIVEN, ("v1", "v3")), (FIRST, ("v1", "v3")), (FIRST, ("v3", "v2"))])
def test_a_cut_over_from_who_does_not_answer_is_refused(turn: Turn, names: tuple[str, str]) -> None:
    with pytest.raises(StateError) as refused:
        next_step(turn, *names)
    assert "eddyline cut-over --from" in refused.value.remedy


def test_the_cut_is_where_each_partition_fell_silent() -> None:
    silent = Group(
        "v1",
        {CLICK: 50, VIEW: 9, CLICK_1: 33, TP("request", 0): 4},
        {CLICK: Note(41, 1), VIEW: Note(None, 1), CLICK_1: Note(30, 1), TP("request", 0): Note(None, 1)},
    )
    assert silent.heeds(1, 2) and not silent.heeds(1, 3) and not silent.heeds(2, 2)
    assert cut_of(FIRST, silent, {TP("buy", 1): 77}) == {
        "buy": [0, 77],
        "click": [41, 30],
        "request": [4],
        "view": [9],
    }


def test_the_cut_is_never_below_where_who_falls_silent_began() -> None:
    behind = Group("v2", {CLICK: 8, CLICK_1: 25, VIEW: 7}, {CLICK: Note(3, 2), CLICK_1: Note(22, 2), VIEW: Note(6, 2)})
    assert cut_of(BACK, behind, {}) == {"click": [10, 22], "view": [6]}


def test_one_that_never_began_has_answered_nothing_from_where_it_was_to() -> None:
    """What it had noted in the silence before was another's to answer."""
    never = Group("v2", {CLICK: 90, CLICK_1: 95, VIEW: 3}, {CLICK: Note(2), CLICK_1: Note(), VIEW: Note()})
    assert cut_of(BACK, never, {}) == {"click": [10, 20], "view": [5]}


def test_who_is_behind_is_told_by_the_topics_that_it_reads() -> None:
    goal = {CLICK: 50, CLICK_1: 10, VIEW: 9, TP("buy", 0): 99}
    read = {"click", "view", "buy"}
    assert less(goal, {CLICK: 47, VIEW: 12}, read) == 3 + 10
    assert less(goal, {CLICK: 47, VIEW: 2}, read - {"view"}) == 3 + 10, "requests do not count"
    assert less(goal, goal, read) == 0
    plan = Plan(Group("v1", goal, {CLICK: Note(None, 4)}), Group("v2", {CLICK: 50}), None, Step.ASK, 10)
    assert plan.highest == 4


# A batch in the middle of which the cut is


class World:
    """An ingest agent's part over a state in memory, whose turn began at a cut."""

    def __init__(self, turn: Turn | None) -> None:
        topics = {"click": "click", "view": "view"}
        state = State(StateConfig(), list(topics), Trends(TrendsConfig()), Changelog(KafkaConfig(), "v2"), "w", "t")
        state.owned = {0}
        self.turns = Turns("v2", ["click", "view", "request"])
        silence = Silence(topics, None)
        silence.paused = False
        read: Any = SimpleNamespace()
        self.debts = Debts(state, silence, self.turns, topics, read, lambda: True, lambda: None)
        self.ingest = Ingest(
            InputConfig(topics=topics), EmitConfig(), state, self.debts, cast(Any, None), "request", "dlt", "g",
            Monitor(), lambda: None,
        )  # fmt: skip
        self.progress = state.progress
        if turn is not None:
            self.turns.hear(turn)
            self.debts.tend([CLICK, VIEW])

    def batch(self, tp: TP, first: int, users: str) -> None:
        self.ingest.batch(tp, [self.record(tp, first + i, user) for i, user in enumerate(users)])

    def record(self, tp: TP, offset: int, user: str) -> Any:
        said = {"user": user, "correlation_id": f"r{offset}"} if tp.topic == "request" else {"user": user, "item": "i"}
        return SimpleNamespace(
            key=user.encode(), value=json.dumps(said).encode(), offset=offset, timestamp=1_000 + offset, headers=[]
        )

    def taken(self) -> list[str]:
        return [w.user for w in self.progress.take(100)]


def test_of_a_batch_in_the_middle_of_which_the_cut_is_those_are_answered_who_came_after_it() -> None:
    world = World(GIVEN)
    world.batch(CLICK, 8, "abcb")
    assert world.taken() == ["b", "c"], "a is below the cut, and b is on both sides of it"
    world.batch(CLICK, 12, "a")
    assert world.taken() == ["a"]


def test_requests_below_the_cut_are_the_other_s_and_those_that_come_too_early_wait_for_it() -> None:
    asked = TP("request", 0)
    world = World(FIRST)
    world.batch(asked, 3, "abc")
    world.batch(CLICK, 0, "d")
    assert world.taken() == [] and world.progress.committable() == {CLICK: 1}, "what is laid aside is not committed"
    world.turns.hear(given(FIRST, {"click": [1], "view": [0], "request": [4]}, 0))
    world.debts.tend([CLICK, VIEW])
    world.batch(asked, 6, "d")
    assert world.taken() == ["b", "c", "d"]
    world.ingest.take_up()
    assert world.taken() == []


def test_what_is_laid_aside_is_taken_up_when_the_turn_comes_and_forgotten_when_partitions_move() -> None:
    asked = TP("request", 0)
    for moved in (False, True):
        world = World(FIRST)
        world.batch(asked, 3, "a")
        if moved:
            world.ingest.claimed()
        world.ingest.take_up()
        assert world.taken() == []
        world.turns.hear(given(FIRST, {"request": [3]}, 0))
        world.ingest.take_up()
        assert world.taken() == ([] if moved else ["a"])
