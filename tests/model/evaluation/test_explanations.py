"""What is measured of reasons, by hand; and that those of the engine are right where the answer is known."""

import numpy as np
import pytest
import torch

from model.config import ModelConfig
from model.engine import Engine
from model.evaluation import temporal
from model.evaluation.explanations import agreement, measure, nats, without
from model.history import item_hash
from model.mix import Mix
from model.online import OnlineScores
from model.recommender import Recommender
from tests.model.evaluation.worlds import ring_world
from tests.model.worlds import met


def test_agreement_by_hand():
    costs = np.array([[3.0, 1.0], [1.0, 2.0], [0.0, 4.0]])
    said = np.array([[0.9, 0.5], [0.0, 0.0], [0.0, 0.1]])
    found = agreement(said, costs)
    # the first is the dearest for one item of two: it costs 3, where that is the most, and 1, where 4 is
    assert found["first"] == 0.5
    assert found["lost"] == (3 + 1) / 2
    # item one: both pairs told apart are right; item two: 0 before 1 and 0 before 2 are wrong, 2 before 1 is right
    assert found["order"] == pytest.approx((1 + (1 - 2) / 3) / 2)


def test_agreement_of_what_tells_nothing_apart_is_none():
    assert agreement(np.zeros((3, 1)), np.array([[1.0], [2.0], [3.0]]))["order"] == 0.0


def test_a_history_without_an_item_is_one_in_which_it_was_never_met():
    h = met([1, 2, 1, 3])
    found = without(h, np.array([[0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], bool))
    ids = {0: "", **{item_hash(f"i{k:02}"): k for k in (1, 2, 3)}}
    assert [[ids[i] for i in row] for row in found.items.tolist()] == [[1, 2, 1, 3], ["", "", 2, 3], ["", 1, 2, 1]]
    assert found.times.tolist() == [[1000, 2000, 3000, 4000], [0, 0, 2000, 4000], [0, 1000, 2000, 3000]]
    assert found.lengths.tolist() == [4, 2, 3]


def test_scores_are_those_of_the_engine_s_own_lists():
    world = ring_world(users=6)
    engine, h = Engine(world.catalog, world.texts()), met([1, 2, 3])
    online, rows = OnlineScores.empty(world.catalog), np.array([[5, 7, 9]], np.int32)
    fused = engine.encode(h, engine.profiles(h))
    (ranked,) = engine.rank(h, fused, rows, online, 3)
    found = nats(engine, h, ranked.items, online)[0]
    np.testing.assert_allclose(np.exp(found) / np.exp(found).sum(), ranked.scores, rtol=1e-5)


def test_reasons_are_right_where_one_interaction_leads_to_the_item():
    """On a ring an item comes from the few before it, the nearest most often: counts know it, and reasons say it."""
    world = ring_world()
    (exam,) = temporal.exams(world, (0.7, 0.8, 1.0))[1]
    engine = Engine(world.catalog, world.texts(), mix=Mix(neural=0.0))
    found = measure(world, engine, exam, 40)
    assert len(found.users) > 20
    assert found.rankers["reasons"]["first"].mean() > 0.9
    assert found.rankers["reasons"]["order"].mean() > 0.9
    rows = found.rows()
    assert rows["reasons"]["above chance"].low > 0.3
    assert (rows["chance"]["order"].mean, rows["best"]["first"].mean) == (0.0, 1.0)
    assert rows["chance"]["lost"].mean < rows["reasons"]["lost"].mean <= rows["best"]["lost"].mean
    assert "attention" not in rows
    assert (found.facts["named"] > 0).all()
    # three of seven are named, and when all three are gone the others take their place in the mean
    assert found.facts["explained"].mean() > 0.8
    assert 0.2 < found.facts["truly"].mean() < found.facts["explained"].mean()


def test_an_encoder_that_looks_back_has_its_attention_compared():
    world = ring_world(users=12)
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, text_dim=world.texts().shape[1], items=len(world.catalog))
    (exam,) = temporal.exams(world, (0.7, 0.8, 1.0))[1]
    found = measure(world, Engine(world.catalog, world.texts(), Recommender(config).eval()), exam, 10)
    assert set(found.rankers) == {"reasons", "newest", "attention", "chance", "best"}
    assert np.isfinite(found.rankers["attention"]["order"]).all()
