"""Log-linear blends: weights that are fitted, walks that go on, and what is bought again."""

import numpy as np
import pytest

from model.choice import fitted
from model.evaluation import basket
from model.evaluation.exams import Asked, Shelf, World
from model.evaluation.methods.registry import make
from model.evaluation.methods.regulars import NAMES, Regulars, Tally
from model.evaluation.methods.walks import Walks
from model.habits import kinds_of
from model.replay import Timeline, timeline
from tests.model.evaluation.worlds import happened, ring_world, world_of

DAY = 86_400_000


def test_weights_are_those_that_made_the_choices():
    random = np.random.default_rng(0)
    true = np.array([1.5, -0.7, 0.0], np.float32)
    features = random.normal(size=(4000, 8, 3)).astype(np.float32)
    noise = random.gumbel(size=(4000, 8))
    found = fitted(features, (features @ true + noise).argmax(1), np.zeros(3, np.float32))
    np.testing.assert_allclose(found, true, atol=0.1)


def test_without_a_question_the_weights_are_the_prior():
    prior = np.array([1.0, 0.0], np.float32)
    assert fitted(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.int64), prior) is prior


def test_a_feature_that_never_differs_says_nothing():
    features = np.zeros((50, 2, 2), np.float32)
    features[:, 0, 0] = 1
    found = fitted(features, np.zeros(50, np.int64), np.array([0.0, 3.0], np.float32))
    assert found[0] > 1
    assert found[1] == pytest.approx(3.0)


def question(world: World, line: Timeline, user: str, now: int) -> Asked:
    code = np.searchsorted(np.unique(world.events.user.astype(str)), [user])
    times = np.array([now])
    shelf = Shelf.of(line, np.arange(len(line)))
    histories = shelf.cut(*shelf.span(code, times))
    rows = world.catalog.index_of(histories.items)
    return Asked(code, times, histories, rows, np.ones((1, len(world.catalog)), bool))


def test_walks_that_go_on_are_walks_that_begin_anew(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("model.evaluation.methods.walks.REFRESH", 1)
    world = ring_world(users=12)
    line = timeline(world.events, world.catalog)
    whole, went_on = Walks(len(world.catalog)), Walks(len(world.catalog))
    whole.learn(line, len(line))
    went_on.learn(line, len(line) // 3)
    for first in range(len(line) // 3, len(line), 7):
        went_on.add(line, first, min(first + 7, len(line)))
    np.testing.assert_allclose(went_on.steps.toarray(), whole.steps.toarray(), rtol=1e-5)
    np.testing.assert_allclose(went_on.popular, whole.popular)


def test_fitted_walks_know_that_nobody_stays():
    # On the ring nobody meets an item twice: the walks' repeat term is wrong there, and the fit finds that out.
    world = ring_world(users=40)
    line = timeline(world.events, world.catalog)
    plain, ranked = make(["walks", "walks-ranked"], world)
    asked = question(world, line, str(world.events.user[-1]), int(line.times[-1]) + 1)
    for method in (plain, ranked):
        method.learn(line, len(line))
    newest = asked.rows[0, -1]
    plain_place, ranked_place = ((m.scores(asked)[0] > m.scores(asked)[0, newest]).sum() for m in (plain, ranked))
    assert ranked_place > plain_place


# Ten people buy item 0 every day, and one of the items 2 to 11 once, all of them on the same days as item 1.
ROWS = [(f"u{u}", 0, day * DAY + u) for day in range(30) for u in range(10)]
ONCE = [(f"u{u}", 2 + (u + day) % 10, day * DAY + 1000 + u) for day in range(0, 30, 3) for u in range(10)]


def test_how_often_a_thing_is_bought_again_is_counted():
    rows = [("a", 0, 0), ("a", 1, 1), ("a", 0, 2), ("b", 0, 3), ("b", 2, 4), ("b", 0, 5)]
    world = world_of(happened(rows), 3)
    line = timeline(world.events, world.catalog)
    tally = Tally.of(line, len(line), np.array([0, 1, 1]))
    assert tally.met.tolist() == [4, 1, 1]
    assert tally.first.tolist() == [2, 1, 1]
    # item 0: 2 of 4 lines of those who had it; 1 and 2: none of 1 each; everybody, one more of each: 3 of 7
    mean = 3 / 7
    kinds = np.array([(2 + 200 * mean) / 204, 200 * mean / 202])
    np.testing.assert_allclose(tally.again_kind, np.log(kinds[[0, 1, 1]] / mean))
    own = np.array([(2 + 150 * kinds[0]) / 154, 150 * kinds[1] / 151, 150 * kinds[1] / 151])
    np.testing.assert_allclose(tally.again, np.log(own / mean))


def test_a_tally_forgets_what_is_older_than_its_days():
    rows = [("a", 0, 0), ("b", 1, 20 * DAY), ("b", 2, 40 * DAY)]
    world = world_of(happened(rows), 3)
    line = timeline(world.events, world.catalog)
    tally = Tally.of(line, 3, np.zeros(3, np.int64))
    assert (tally.met.tolist(), tally.month.tolist(), tally.days.tolist()) == ([1, 1, 1], [0, 1, 1], [0, 0, 1])
    assert Tally.of(line, 2, np.zeros(3, np.int64)).met.tolist() == [1, 1, 0]


def test_what_is_bought_again_is_shown_before_what_was_bought_last():
    happenings = sorted(ROWS + ONCE, key=lambda row: row[2])
    # z has bought both items as often: 0, which people come back to, and 5, which they do not
    world = world_of(happened([*happenings, ("z", 0, 30 * DAY), ("z", 5, 30 * DAY + 1)]), 12)
    line = timeline(world.events, world.catalog)
    method = Regulars(world.catalog, lambda line, first, last: basket.papers(world, line, first, last, 20))
    method.learn(line, len(line))
    scores = method.scores(question(world, line, "z", 31 * DAY))[0]
    assert scores.argmax() == 0
    assert len(method.weights) == len(NAMES)


def test_items_with_the_same_categories_are_of_a_kind():
    world = world_of(happened([("a", 0, 0)]), 6)
    kinds = kinds_of(world.catalog)
    same = [[a == b for b in world.catalog.categories] for a in world.catalog.categories]
    assert (kinds[:, None] == kinds[None]).tolist() == same
