"""One contract for all methods: toy events with an obvious answer, and what every one of them must keep."""

from dataclasses import replace

import numpy as np
import pytest

from model.evaluation.exams import Asked, Method, Shelf, World
from model.evaluation.methods import ease
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.ease import TooLargeError
from model.evaluation.methods.popularity import Popularity
from model.evaluation.methods.registry import DEFAULTS, METHODS, UnknownMethodError, make
from model.evaluation.methods.text import tfidf_svd
from model.evaluation.methods.walks import near_pairs
from model.replay import Timeline, timeline
from tests.model.evaluation.worlds import happened, world_of

DAY = 86_400_000
# Six people take 0 and 2 (both films), six 1 and 3 (both books); everybody took 4 before; the seventh has 4 and 0 only.
CIRCLES = [(f"u{u}", item, 1000 * (20 * u + n)) for u in range(12) for n, item in enumerate((4, u % 2, u % 2 + 2))]
ASKER = [("z", 4, DAY), ("z", 0, DAY + 1000)]


@pytest.fixture
def world() -> World:
    return world_of(happened(CIRCLES + ASKER), 6)


@pytest.fixture
def line(world: World) -> Timeline:
    return timeline(world.events, world.catalog)


def asked(world: World, line: Timeline, users: list[str]) -> Asked:
    codes = np.searchsorted(np.unique(world.events.user.astype(str)), users)
    shelf = Shelf.of(line, np.arange(len(line)))
    histories = shelf.cut(*shelf.span(codes))
    now = np.full(len(users), DAY + 2000)
    return Asked(codes, now, histories, world.catalog.index_of(histories.items), np.ones((1, len(world.catalog)), bool))


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest, world: World) -> Method:
    return make([request.param], world)[0]


def test_scores_are_one_for_every_question_and_item(method: Method, world: World, line: Timeline):
    method.learn(line, len(line))
    scores = method.scores(asked(world, line, ["z", "u0", "u1"]))
    assert scores.shape == (3, 6)
    assert not np.isnan(scores).any()


def test_what_is_learned_anew_leaves_nothing_behind(method: Method, world: World, line: Timeline):
    question = asked(world, line, ["z", "u1"])
    method.learn(line, 20)
    method.add(line, 20, 30)
    before = np.array(method.scores(question))
    method.learn(line, len(line))
    method.learn(line, 20)
    method.add(line, 20, 30)
    np.testing.assert_allclose(method.scores(question), before, atol=1e-6)


def test_a_question_without_a_history_has_an_answer(method: Method, world: World, line: Timeline):
    method.learn(line, len(line))
    nobody = asked(world, line, ["z"])
    empty = Shelf.of(line, np.arange(0)).cut(np.zeros(1, np.int64), np.zeros(1, np.int64))
    rows = world.catalog.index_of(empty.items)
    scores = method.scores(Asked(nobody.users, nobody.now, empty, rows, nobody.allowed))
    assert scores.shape == (1, 6)
    assert not np.isnan(scores).any()


def test_variants_begin_with_the_present_settings(method: Method):
    variants = method.variants()
    assert variants[0].settings() == method.settings()
    assert len({str(v.settings()) for v in variants}) == len(variants)
    assert {v.name for v in variants} == {method.name}


@pytest.mark.parametrize("name", ["item-knn", "ease", "counts", "counts+repeat", "walks", "walks-ranked", "fallback"])
def test_who_took_0_is_shown_2_and_not_3(name: str, world: World, line: Timeline):
    (method,) = make([name], world)
    method.learn(line, len(line))
    scores = method.scores(asked(world, line, ["z"]))[0]
    assert scores[2] > scores[3]


@pytest.mark.parametrize("name", ["counts", "counts+repeat", "fallback"])
def test_a_worker_that_shares_no_counts_knows_its_own_users_alone(name: str, world: World, line: Timeline):
    """Of two, one has those who took 0 and 2, the other those who took 1 and 3."""
    apart = replace(world, shards=2)
    (method,) = make([name], apart)
    method.learn(line, len(line))
    codes = {str(user): code for code, user in enumerate(np.unique(world.events.user.astype(str)))}
    found = method.scores(asked(apart, line, ["z", "u0", "u1"]))
    for row, user in enumerate(("z", "u0", "u1")):
        mine = np.array([codes[str(u)] % 2 == codes[user] % 2 for u in world.events.user])
        (alone,) = make([name], world)
        alone.learn(replace(line, fresh=mine, **pairs_of(line, mine)), len(line))
        np.testing.assert_allclose(found[row], alone.scores(asked(world, line, [user]))[0], rtol=1e-5, atol=1e-6)
    (together,) = make([name], world)
    together.learn(line, len(line))
    assert not np.allclose(found, together.scores(asked(world, line, ["z", "u0", "u1"])))


def pairs_of(line: Timeline, of: np.ndarray) -> dict[str, np.ndarray]:
    """The pairs that these events count."""
    kept = of[line.pair_event]
    return {"pair_event": line.pair_event[kept], "pair_from": line.pair_from[kept]}


def test_words_say_which_items_are_alike(world: World, line: Timeline):
    (method,) = make(["tfidf-svd"], world)
    method.learn(line, len(line))
    scores = method.scores(asked(world, line, ["z"]))[0]
    assert min(scores[0], scores[2]) > scores[1]  # film against book


@pytest.mark.parametrize("name", ["popular", "personal+popular"])
def test_what_everybody_took_comes_first(name: str, world: World, line: Timeline):
    (method,) = make([name], world)
    method.learn(line, len(line))
    assert method.scores(asked(world, line, ["z"]))[0].argmax() == 4


@pytest.mark.parametrize("name", ["personal", "personal+popular", "counts+repeat", "walks"])
def test_what_a_user_took_is_shown_again(name: str, world: World, line: Timeline):
    (method,) = make([name], world)
    method.learn(line, len(line))
    scores = method.scores(asked(world, line, ["u1", "u0"]))
    assert scores[0, 3] > scores[0, 2]
    assert scores[1, 2] > scores[1, 3]


def test_popularity_forgets_what_is_older_than_its_days():
    rows = [("a", 0, 0), ("b", 0, 1), ("c", 0, 2), ("a", 1, 8 * DAY), ("b", 1, 8 * DAY + 1)]
    world = world_of(happened([*rows, ("z", 2, 8 * DAY + 2)]), 3)
    line = timeline(world.events, world.catalog)
    week, always = Popularity(3, 7.0), Popularity(3)
    question = asked(world, line, ["z"])
    question = Asked(question.users, np.array([8 * DAY + 2]), question.histories, question.rows, question.allowed)
    for method in (week, always):
        method.learn(line, 5)
    assert week.scores(question)[0].tolist() == [0, 2, 0]
    assert always.scores(question)[0].tolist() == [3, 2, 0]


def test_ease_solves_what_it_says(world: World, line: Timeline):
    method = ease.Ease(6, ridge=2.0)
    method.learn(line, 36)
    met = np.zeros((12, 5))
    for u, item, _ in CIRCLES:
        met[int(u[1:]), item] = 1
    inverse = np.linalg.inv(met.T @ met + 2 * np.eye(5))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = method.scores(asked(world, line, ["z"]))[0]
    np.testing.assert_allclose(scores[:5], weights[4] + weights[0], rtol=1e-4)


def test_ease_refuses_a_catalogue_that_it_cannot_hold(world: World, line: Timeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ease, "MOST_ITEMS", 4)
    with pytest.raises(TooLargeError, match="5 x 5 items; its limit is 4"):
        ease.Ease(6).learn(line, 36)


def test_a_name_that_no_method_has_is_refused(world: World):
    with pytest.raises(UnknownMethodError, match=r"no method 'eaze': use some of popular"):
        make(["eaze"], world)
    with pytest.raises(UnknownMethodError, match="no model 'gbt/pooled/alpha'"):
        make(["gbt/pooled/alpha"], world)


def test_what_is_compared_by_default_exists():
    assert {name for names in DEFAULTS.values() for name in names} <= METHODS.keys()


def test_a_grid_is_climbed_a_step_at_a_time():
    found = sweep({"a": 2, "b": 9}, {"a": (1, 2, 3), "b": (4,)})
    assert found == [{"a": 2, "b": 9}, {"a": 1, "b": 9}, {"a": 3, "b": 9}, {"a": 2, "b": 4}]


def test_texts_that_share_a_word_are_near():
    vectors = tfidf_svd(["red wine", "white wine", "bread", "white bread"], 3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_pairs_weigh_by_how_near_they_are():
    users, rows = np.array([0, 1, 0, 0, 0]), np.array([5, 4, 1, 5, 2], np.int32)
    found = near_pairs(users, rows, 6).toarray()
    # user 0 met 5, 1, 5, 2: 5 -> 1 next; 5 -> 2 three apart and next; 1 -> 5 next; 1 -> 2 two apart
    assert found[5, 1] == 1
    assert found[5, 2] == pytest.approx(1 + 1 / 3)
    assert (found[1, 5], found[1, 2]) == (1, 0.5)
    assert found.sum() == pytest.approx(1 + 4 / 3 + 1.5)


def test_pairs_may_be_counted_as_they_come():
    users, rows = np.array([0, 1, 0, 0, 1, 0]), np.array([5, 4, 1, 5, 2, 2], np.int32)
    both = near_pairs(users[:3], rows[:3], 6) + near_pairs(users, rows, 6, 3)
    np.testing.assert_allclose(both.toarray(), near_pairs(users, rows, 6).toarray())


def test_a_second_step_joins_items_that_were_never_met_together():
    rows = [("a", 0, 0), ("a", 1, 1), ("b", 1, 2), ("b", 2, 3), ("z", 0, 4)]
    world = world_of(happened(rows), 4)
    line = timeline(world.events, world.catalog)
    (method,) = make(["walks"], world)
    method.learn(line, 4)
    scores = method.scores(asked(world, line, ["z"]))[0]
    assert scores[1] > scores[2] > scores[3]
