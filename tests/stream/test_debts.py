"""Who is owed a list after a silence, by hand: from rows and one offset a topic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from faust.types import TP

from model.history import ACTION_CODE
from stream.answers import debts
from stream.answers.control import Turn
from stream.answers.debts import Debts, owed_lists
from stream.answers.emission import Silence
from stream.answers.progress import Progress, Trigger, Waiting
from stream.answers.turns import Turns
from stream.kafka.debts import Note, note, noted
from stream.windows.columns import Columns

CLICK, VIEW = TP("click", 0), TP("view", 0)
TOPICS = {"click": "click", "view": "view"}


def columns(**applied: tuple[int, int]) -> Columns:
    """Rows of partition 0 with the last click and view that each has taken in."""
    made = Columns(["click", "view"])
    for user, offsets in applied.items():
        (row,) = made.rows(0, [user])
        made.applied[row] = offsets
    return made


def owed(made: Columns, **first: int) -> list[tuple[dict[TP, int], list[str]]]:
    rows = np.fromiter(made.users[0].values(), np.int64)
    return list(owed_lists(made, rows, {TP(topic, 0): offset for topic, offset in first.items()}))


def test_those_are_owed_who_have_taken_in_what_was_applied_in_silence() -> None:
    made = columns(before=(9, 4), clicked=(10, -1), viewed=(2, 7), both=(12, 5))
    assert owed(made, click=10) == [({CLICK: 10}, ["clicked", "both"])]
    assert owed(made, click=10, view=5) == [({CLICK: 10}, ["clicked", "both"]), ({VIEW: 7}, ["viewed"])]
    assert owed(made, click=13, view=8) == [] == owed(made, gone=0)


def test_debts_are_paid_in_the_order_of_offsets_and_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debts, "CHUNK", 2)
    made = columns(e=(50, -1), a=(10, -1), d=(40, -1), c=(30, -1), b=(20, -1))
    assert owed(made, click=5) == [({CLICK: 10}, ["a", "b"]), ({CLICK: 30}, ["c", "d"]), ({CLICK: 50}, ["e"])]


def test_the_text_beside_an_offset_says_from_where_on_nobody_was_answered() -> None:
    assert noted(note(Note(17), 90)) == Note(17) and note(Note(17), 90) == "unanswered from 17"
    assert note(None, 90) == "" == note(Note(90), 90), "what is not committed is read again"
    foreign = ("", "another's", "unanswered from x", "17", ", unanswered from 17", "turn", "turn 5 unanswered from 17")
    assert [noted(text) for text in foreign] == [Note()] * len(foreign)


def test_the_text_beside_an_offset_says_which_turn_was_taken_note_of() -> None:
    for said, text in ((Note(17, 5), "turn 5, unanswered from 17"), (Note(None, 5), "turn 5")):
        assert note(said, 90) == text and noted(text) == said
    assert note(Note(90, 5), 90) == "turn 5"


class World:
    """Debts over a state of rows and progress, with what Kafka would say told by hand."""

    def __init__(self, made: Columns, max_lag: int | None = None, topics: dict[str, str] = TOPICS) -> None:
        self.columns, self.progress, self.woken, self.restored = made, Progress(), 0, True
        self.behind: dict[TP, int | None] = {}
        self.silence = Silence(["click", "view"], max_lag)
        self.silence.paused = False
        self.committed: dict[TP, int] = {}
        self.unread: set[TP] = set()
        self.hurried: list[bool] = []
        self.turns = Turns("v1", ["click", "view", "request"])
        state: Any = SimpleNamespace(columns=made, progress=self.progress)
        read: Any = SimpleNamespace(
            behind=lambda tp, applied: self.behind.get(tp),
            reread=lambda tp, applied: tp not in self.unread,
            committed=lambda tp: self.committed.get(tp, 0),
        )
        self.debts = Debts(state, self.silence, self.turns, topics, read, lambda: self.restored, self.wake)
        self.debts.hurry = self.hurried.append

    def wake(self) -> None:
        self.woken += 1

    def tend(self) -> None:
        self.debts.tend([CLICK, VIEW])

    def taken(self) -> list[str]:
        return [w.user for w in self.progress.take(100)]

    def trigger(self, user: str) -> Trigger:
        return self.debts.trigger(cast(int, self.columns.row(0, user)), 0.0)


def test_a_pause_ends_with_those_who_were_touched_in_it() -> None:
    world = World(columns(a=(10, -1), b=(20, -1), c=(5, -1)))
    world.tend()
    assert not world.debts.quiet(CLICK, 10)
    world.silence.paused = True
    assert world.debts.quiet(CLICK, 10)
    world.progress.owe(CLICK, 10)
    world.tend()
    assert world.taken() == []
    world.silence.paused = False
    assert world.debts.quiet(CLICK, 21), "until those of the silence are known, there is silence"
    world.tend()
    assert world.woken == 1 and world.taken() == ["a", "b"] and not world.debts.quiet(CLICK, 22)


def test_what_a_former_owner_owes_is_paid_when_rows_are_there_and_lag_is_known() -> None:
    world = World(columns(a=(10, -1)), max_lag=100)
    world.progress.owe(CLICK, 3)
    world.restored = False
    world.tend()
    world.restored = True
    world.tend()
    assert world.taken() == [], "it may be in the middle of the backlog that the former owner died in"
    world.behind = {CLICK: 500, VIEW: 0}
    world.tend()
    assert world.taken() == []
    world.behind = {CLICK: 0, VIEW: 0}
    world.tend()
    assert world.taken() == ["a"]


def test_a_batch_that_is_too_far_behind_is_applied_in_silence() -> None:
    world = World(columns(a=(10, -1)), max_lag=100)
    world.behind = {CLICK: 101, VIEW: 0}
    world.tend()
    assert world.debts.quiet(CLICK, 0)
    world.behind = {CLICK: 50, VIEW: 0}
    world.tend()
    assert not world.debts.quiet(CLICK, 51)


def test_one_who_was_touched_since_the_silence_has_a_list_for_that() -> None:
    made = columns(a=(10, 3), b=(20, -1), c=(15, -1))
    world = World(made)
    world.progress.owe(CLICK, 0)
    world.tend()
    rows = {user: cast(int, made.row(0, user)) for user in "abc"}
    made.applied[rows["c"], 0] = 21
    made.applied[rows["a"], 1] = 4
    owed = {w.user: w for w in world.progress.take(9)}
    assert [world.debts.answered_since(owed[u], rows[u]) for u in "abc"] == [True, False, True]


def test_an_event_that_causes_no_list_is_no_answer() -> None:
    made = columns(a=(10, 3))
    world = World(made, topics={"click": "click"})
    world.progress.owe(CLICK, 0)
    world.tend()
    (w,) = world.progress.take(9)
    made.applied[0:] = 10, 99
    assert not world.debts.answered_since(w, cast(int, made.row(0, "a")))


def test_the_trigger_is_the_row_s_newest_event_whoever_asks() -> None:
    made = columns(a=(10, 3), b=(10, 3), c=(-1, 3))
    for user, action, time in (("a", "view", 700), ("b", "click", 900), ("c", "click", 800)):
        row = made.rows(0, [user])
        values: dict[str, Any] = {"item": [7], "action": [ACTION_CODE[action]], "time": [time], "weight": [1.0]}
        made.append(row, np.array([0]), {name: np.array(value) for name, value in values.items()})
    world = World(made)
    assert world.trigger("a")[:3] == ("view", 3, 700)
    assert world.trigger("b")[:3] == ("click", 10, 900)
    assert world.trigger("c")[:3] == ("view", 3, 800), "its click came from another state's topic"
    assert World(made, topics={"click": "click"}).trigger("a")[:3] == ("click", 10, 700)
    assert World(made, topics={"click": "click"}).trigger("c")[:3] == ("view", 3, 800)


def test_debts_end_with_the_partition() -> None:
    world = World(columns(a=(10, -1)))
    world.progress.owe(CLICK, 0)
    world.tend()
    world.debts.claimed()
    assert not world.debts.answered_since(Waiting(0, "a", 0, None), cast(int, world.columns.row(0, "a")))


# Turns

ASKED = Turn(1, "v2", "v1", False, 0, {}, 0)
BEGINS = Turn(1, "v1", "v0", True, 1, {"click": [15], "view": [5], "request": [3]}, 0)


def applied(world: World, tp: TP, first: int, users: list[str]) -> None:
    """A batch that touches users, as `stream.ingest` takes it in."""
    quiet = world.debts.quiet(tp, first)
    ticket = world.progress.applied(tp, first + len(users), first)
    for i, user in enumerate(users):
        (row,) = world.columns.rows(0, [user])
        world.columns.applied[row, world.columns.topics.index(tp.topic)] = first + i
        if not quiet:
            trigger = Trigger(tp.topic, first + i, 0, 0.0, None)
            world.progress.wait(ticket, 0, user, trigger)
    if quiet:
        world.progress.owe(tp, first)
    world.debts.applied(tp, first + len(users))


def notes(world: World) -> dict[TP, Note]:
    return world.turns.notes(world.progress.owed())


def test_a_partition_falls_silent_when_all_that_it_took_in_is_answered_and_exactly_there() -> None:
    world = World(columns())
    world.committed = {VIEW: 4}
    world.tend()
    applied(world, CLICK, 10, ["a", "b", "c"])
    taken = world.progress.take(2)
    world.turns.hear(ASKED)
    world.tend()
    assert world.debts.holding and world.hurried == [True] and notes(world) == {}
    for w in [*taken, *world.progress.take(9)]:
        assert not world.debts.news.is_set(), "someone still waits"
        world.progress.done(w.ticket)
        world.tend()
    assert world.debts.news.is_set() and not world.debts.holding and world.hurried == [True, False]
    assert notes(world) == {CLICK: Note(13, 1), VIEW: Note(4, 1), TP("request", 0): Note(0, 1)}
    applied(world, CLICK, 13, ["a", "d"])
    world.tend()
    assert world.taken() == [] and notes(world)[CLICK] == Note(13, 1) and world.debts.mute(0)


def test_who_is_owed_a_list_gets_it_before_there_is_silence() -> None:
    """A debt of a former owner, or of an interval: below the cut nothing is left to the other version."""
    world = World(columns(a=(10, -1)))
    world.progress.owe(CLICK, 10)
    world.turns.hear(ASKED)
    world.tend()
    assert world.debts.holding and not world.debts.news.is_set()
    (a,) = world.progress.take(9)
    world.progress.done(a.ticket)
    world.tend()
    assert world.debts.news.is_set() and world.progress.paid


def test_what_a_former_owner_may_have_answered_is_taken_in_before_there_is_silence() -> None:
    world = World(columns())
    world.unread = {CLICK}
    world.turns.hear(ASKED)
    world.tend()
    assert not world.debts.holding and not world.debts.news.is_set()
    applied(world, CLICK, 0, ["a"])
    world.unread = set()
    world.tend()
    assert world.debts.holding and world.taken() == ["a"]


def test_in_a_pause_the_cut_is_where_the_pause_began() -> None:
    world = World(columns())
    world.tend()
    applied(world, CLICK, 10, ["a"])
    world.silence.paused = True
    applied(world, CLICK, 11, ["b"])
    world.turns.hear(ASKED)
    world.tend()
    assert notes(world)[CLICK] == Note(10, 1) and world.taken() == []


def test_who_begins_owes_those_from_the_cut_on_whatever_it_had_noted_before() -> None:
    world = World(columns(a=(14, 4), b=(15, -1), c=(2, 5), d=(20, -1)))
    world.progress.owe(CLICK, 0)  # a silence since the beginning
    world.turns.hear(BEGINS)
    world.tend()
    assert sorted(world.taken()) == ["b", "c", "d"]
    assert notes(world)[VIEW] == Note(5, 1)


def test_who_is_behind_the_cut_answers_nothing_below_it() -> None:
    world = World(columns(a=(8, 2)))
    world.turns.hear(BEGINS)
    world.tend()
    assert world.taken() == [] and world.debts.floor(CLICK) == 15
    world.silence.paused = True
    applied(world, CLICK, 9, ["a"])
    world.silence.paused = False
    world.tend()
    assert world.taken() == [], "what was applied in a pause below the cut was another's, too"


def test_an_event_below_the_cut_is_no_answer_to_one_above_it() -> None:
    world = World(columns(a=(8, 6)))
    world.turns.hear(BEGINS)
    world.tend()
    (a,) = world.progress.take(9)
    row = cast(int, world.columns.row(0, "a"))
    world.columns.applied[row, 0] = 14
    assert not world.debts.answered_since(a, row), "that click was another's to answer"
    world.columns.applied[row, 0] = 15
    assert world.debts.answered_since(a, row)


def test_who_dies_while_it_pays_what_it_owes_goes_on_from_its_own_note() -> None:
    world = World(columns(b=(15, -1), d=(20, -1)))
    world.turns.claimed({CLICK: Note(18, 1), VIEW: Note(None, 1)}, {0})
    world.progress.owe(CLICK, 18)
    world.turns.hear(BEGINS)
    world.tend()
    assert world.taken() == ["d"]


def test_who_never_began_falls_silent_where_it_was_to_begin() -> None:
    world = World(columns(a=(20, 9)))
    world.silence.paused = True
    world.progress.owe(CLICK, 0)
    world.turns.hear(Turn(2, "v0", "v1", False, 1, BEGINS.floor, 0))
    world.tend()
    assert notes(world) == {CLICK: Note(15, 2), VIEW: Note(5, 2), TP("request", 0): Note(3, 2)}


def test_a_turn_that_is_taken_back_resumes_from_its_own_silence() -> None:
    world = World(columns())
    world.tend()
    applied(world, CLICK, 10, ["a"])
    world.turns.hear(ASKED)
    for w in world.progress.take(9):
        world.progress.done(w.ticket)
    world.tend()
    applied(world, CLICK, 11, ["b"])
    world.turns.hear(Turn(2, "v1", "v2", True, 0, {}, 0))
    world.tend()
    assert world.taken() == ["b"] and not world.debts.mute(0)
