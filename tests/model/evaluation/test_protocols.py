"""Protocols: what is asked, what is known, and what is chosen."""

from dataclasses import replace

import numpy as np
import pytest

from model.dataset import DatasetError
from model.evaluation import basket, loo, session_stream, temporal
from model.evaluation.exams import Exam, Method, Paper
from model.evaluation.methods.registry import make
from model.evaluation.methods.trained import Trained
from model.evaluation.protocols import PROTOCOLS, UnknownProtocolError, evaluate
from model.evaluation.running import NothingToAskError, best, choose, take
from model.rules import RulesConfig
from tests.model.evaluation.worlds import happened, ring_world, world_of
from tests.model.test_train import TINY

WEEK = session_stream.PERIOD_MS


def questions(exam: Exam) -> list[tuple[int, list[int], int, list[int]]]:
    """(user, history as rows, target, rows that may be shown) of every question."""
    found = []
    for paper in exam.papers():
        a = paper.asked
        for b in range(len(a)):
            rows = a.rows[b]
            allowed = a.allowed[0 if len(a.allowed) == 1 else b]
            found.append(
                (int(a.users[b]), rows[rows >= 0].tolist(), int(paper.targets[b]), np.flatnonzero(allowed).tolist())
            )
    return found


def test_temporal_asks_the_last_tenth_and_hides_what_was_met():
    rows = [("a", n % 10, n) for n in range(18)] + [("a", 10, 18), ("b", 0, 19)]
    chosen, (test,) = temporal.exams(world_of(happened(rows), 12))
    assert (chosen.line is test.line, chosen.end, test.end) == (True, 17, 18)
    (a, b) = questions(test)
    assert (a[1][-2:], a[2], a[3]) == ([6, 7], 10, [10, 11])
    assert b == (1, [], 0, list(range(12)))
    assert questions(chosen) == []  # event 17 is of an item that a had met


def test_strict_histories_have_only_what_was_earlier():
    rows = [("a", n, n) for n in range(9)] + [("a", 9, 8)]
    plain, strict = temporal.exams(world_of(happened(rows), 10), strict=True)[1]
    assert questions(plain)[0][1] == list(range(9))
    assert questions(strict)[0][1:] == (list(range(8)), 9, [8, 9])


def test_temporal_tells_methods_what_came_between_papers():
    world = ring_world(users=10, steps=4)
    papers = list(temporal.exams(world, (0.4, 0.5, 1.0), refresh=7)[1][0].papers())
    assert [p.known for p in papers] == [20, 27, 34]


def test_a_basket_is_asked_from_what_came_before_it_and_repeats_count():
    rows = [("a", 0, 0), ("a", 1, 0), ("b", 2, 1), ("a", 0, 5), ("a", 2, 5), ("b", 2, 6)]
    world = world_of(happened(rows, action=3), 4)
    (test,) = basket.exams(world, (0.2, 0.5, 1.0))[1]
    every = [0, 1, 2, 3]
    assert questions(test) == [(0, [0, 1], 0, every), (0, [0, 1], 2, every), (1, [2], 2, every)]


def test_what_the_rules_show_to_nobody_is_no_candidate_and_a_target_among_it_a_miss():
    rules = RulesConfig.model_validate({"categories": {"deny": ["film"]}, "items": {"deny": ["i05"]}})
    rows = [("a", n % 10, n) for n in range(18)] + [("a", 10, 18), ("b", 1, 19)]
    world = replace(world_of(happened(rows), 12), rules=rules)
    (a, b) = questions(temporal.exams(world)[1][0])
    assert (a[2], a[3]) == (10, [11]) and (b[2], b[3]) == (1, [1, 3, 7, 9, 11])  # even ones are films
    world = replace(world_of(happened(rows, action=3), 12), rules=rules)
    assert {tuple(q[3]) for q in questions(basket.exams(world)[1][0])} == {(1, 3, 7, 9, 11)}


def test_no_paper_cuts_a_basket():
    rows = [("a", n % 3, n // 4) for n in range(40)]
    (test,) = basket.exams(world_of(happened(rows), 3), (0.25, 0.48, 1.0), refresh=3)[1]
    assert test.end == 20
    assert [p.known % 4 for p in test.papers()] == [0] * 5


def test_loo_asks_for_the_last_and_validates_on_the_one_before():
    rows = [("a", 0, 0), ("b", 3, 1), ("a", 1, 2), ("b", 4, 3), ("a", 2, 4), ("b", 5, 5), ("c", 1, 6), ("c", 2, 7)]
    world = world_of(happened(rows), 6)
    chosen, (test,) = loo.exams(world)
    assert questions(chosen) == [(0, [0], 1, [1, 2, 3, 4, 5]), (1, [3], 4, [0, 1, 2, 4, 5])]
    assert questions(test) == [(0, [0, 1], 2, [2, 3, 4, 5]), (1, [3, 4], 5, [0, 1, 2, 5])]
    # c has too few events to be asked, but may be learned from; what is asked is learned by nobody
    assert sorted(test.line.rows.tolist()) == [0, 1, 2, 3]


def test_a_session_is_asked_at_every_prefix_without_what_was_never_met():
    first = [("s", 0, 0), ("s", 1, 1), ("t", 2, 2)]
    second = [
        ("u", 0, WEEK),
        ("v", 5, WEEK + 1),
        ("u", 5, WEEK + 2),
        ("u", 2, WEEK + 3),
        ("u", 0, WEEK + 4),
        ("v", 1, WEEK + 5),
    ]
    world = world_of(happened([*first, *second]), 6)
    _, (test,) = session_stream.exams(world)
    # item 5 is new: u's is dropped, and v is left with one
    known = [0, 1, 2]
    assert questions(test) == [(2, [0], 2, known), (2, [0, 2], 0, known)]
    assert not test.online
    assert session_stream.exams(world, online=True)[1][0].online


def test_sessions_need_two_periods():
    with pytest.raises(DatasetError, match="two periods of 7 days"):
        session_stream.exams(world_of(happened([("a", 0, 0), ("a", 1, 1)]), 2))


class Noting(Method):
    """Remembers what it was told; always prefers one item."""

    def __init__(self, item: int = 0, items: int = 12) -> None:
        self.name, self.item, self.items = "noting", item, items

    def learn(self, line, end):
        self.told = [(0, end)]

    def add(self, line, first, last):
        self.told.append((first, last))

    def scores(self, asked):
        scores = np.zeros((len(asked), self.items))
        scores[:, self.item] = 1
        return scores

    def settings(self):
        return {"item": self.item}

    def variants(self):
        return [self, Noting(self.item + 1, self.items)]


def test_methods_are_told_of_every_event_once_and_in_time():
    world = ring_world(users=10, steps=4)
    (test,) = temporal.exams(world, (0.4, 0.5, 1.0), refresh=7)[1]
    method = Noting()
    take([method], [test], world, 3)
    assert method.told == [(0, 20), (20, 27), (27, 34)]


def test_settings_climb_to_the_best():
    rows = [("a", n % 2, n) for n in range(20)] + [(f"u{n}", 3, 20 + n) for n in range(20)]
    exam = temporal.exams(world_of(happened(rows), 12), (0.5, 0.95, 1.0))[0]
    (chosen,) = choose([Noting(items=12)], exam)
    assert chosen.settings() == {"item": 0}  # 1 is no better than 0: a climb ends there
    (chosen,) = choose([Noting(2, items=12)], exam)
    assert chosen.settings() == {"item": 3}


def test_lists_hold_the_best_that_may_be_shown():
    scores = np.array([[1.0, 4.0, 3.0, 2.0]])
    assert best(scores, np.array([[True, False, True, True]]), np.array([0]), 2).tolist() == [[2, 3]]
    assert best(scores, np.array([[True, False, False, False]]), np.array([0]), 2).tolist() == [[0, -1]]


@pytest.mark.parametrize("protocol", ["temporal", "basket", "loo"])
def test_who_follows_the_ring_beats_who_counts_what_is_popular(protocol: str):
    world = ring_world()
    methods = make(["popular", "counts"], world)
    for table, chosen in evaluate(world, protocol, methods, (0.6, 0.7, 1.0), k=2).values():
        assert [m.name for m in chosen] == ["popular", "counts"]
        assert table.difference("counts", "popular")["hr@2"].low > 0


def test_rows_of_a_protocol_can_be_named():
    world = ring_world(users=10)
    tables = evaluate(world, "temporal", make(["popular"], world), k=3, tune=False, rows=["strict"])
    assert list(tables) == ["strict"]


def test_a_trained_model_takes_part_with_every_seed():
    world = ring_world(users=12, steps=6)
    once = TINY.model_copy(update={"epochs": 1})
    methods = [Trained(world, "gpt/pooled/attention", seed, once) for seed in (0, 1)]
    (table, _) = evaluate(world, "temporal", methods, (0.7, 0.8, 1.0), k=1, tune=False, rows=["temporal"])["temporal"]
    assert list(table.answers) == ["gpt/pooled/attention"]
    assert table.answers["gpt/pooled/attention"].ranks.shape == (2, len(table.asks))
    _, (test,) = temporal.exams(world, (0.7, 0.8, 1.0))
    question = next(iter(test.papers())).asked
    assert (methods[0].scores(question) != methods[1].scores(question)).any()
    assert [m.settings()["seed"] for m in methods] == [0, 1]


def test_a_protocol_that_there_is_not_is_refused():
    world = ring_world(users=3)
    with pytest.raises(UnknownProtocolError, match=f"use one of {', '.join(PROTOCOLS)}"):
        evaluate(world, "weekly", [])
    with pytest.raises(UnknownProtocolError, match="temporal has no row 'strct': use some of temporal, strict"):
        evaluate(world, "temporal", [], rows=["temporal", "strct"])


def test_a_test_without_a_question_is_refused():
    rows = [("a", 0, n) for n in range(20)]
    world = world_of(happened(rows), 2)
    with pytest.raises(NothingToAskError, match="no event of the test"):
        evaluate(world, "temporal", make(["popular"], world), tune=False)


def test_a_paper_is_cut_with_all_that_belongs_to_it():
    (exam,) = temporal.exams(ring_world(users=10, steps=4), (0.4, 0.5, 1.0), refresh=7)[1]
    paper: Paper = next(iter(exam.papers()))
    some = paper.take(np.array([1, 3]))
    assert some.targets.tolist() == paper.targets[[1, 3]].tolist()
    assert some.asked.rows.tolist() == paper.asked.rows[[1, 3]].tolist()
    assert some.asked.allowed.tolist() == paper.asked.allowed[[1, 3]].tolist()


def test_a_thinner_exam_asks_less_and_tells_as_much():
    (exam,) = temporal.exams(ring_world(users=10, steps=4), (0.4, 0.5, 1.0), refresh=7)[1]
    whole, some = list(exam.papers()), list(exam.every(3).papers())
    assert [p.known for p in some] == [p.known for p in whole]
    for paper, part in zip(whole, some, strict=True):
        assert part.targets.tolist() == paper.targets[::3].tolist()
