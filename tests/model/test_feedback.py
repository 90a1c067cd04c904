"""How feedback moves a user: by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from model.checkpoint import save
from model.config import ModelConfig
from model.engine import Engine
from model.evaluation.exams import Asked
from model.evaluation.methods.registry import released
from model.evaluation.methods.served import Served
from model.fatigue import HOUR_MS
from model.feedback import FeedbackConfig, moved
from model.fusion import Fused
from model.history import Histories, item_hash, pack
from model.recommender import Recommender
from tests.model.evaluation.worlds import happened, world_of
from tests.model.test_fatigue import NOW, told
from tests.model.worlds import shelf

CATALOG = shelf(20)
ITEMS = np.zeros((20, 2), np.float32)
ITEMS[:3] = [[2, 0], [0, 5], [-3, 4]]
CONFIG = FeedbackConfig(rate=0.1, half_life_h=10.0)
NOTHING = Histories.empty(1)
BUY, BACK = 3, 9


def did(*interactions: tuple[int, int, float, float]) -> Histories:
    """One user's (catalogue row, action, weight, hours ago), oldest first."""
    rows = [(NOW - int(ago * HOUR_MS), action, item_hash(f"i{row:02}"), w) for row, action, w, ago in interactions]
    return pack([(rows, [])])


def shifted(h: Histories, outcomes=None, config: FeedbackConfig = CONFIG) -> list[float]:
    """How far a user at (3, 4), whose vector has length 5, is moved."""
    vectors, long = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
    fused = Fused(vectors, torch.tensor([0.7]), long)
    found = moved(fused, h, outcomes, np.array([NOW]), CATALOG, ITEMS, config)
    np.testing.assert_allclose(found.vectors - vectors, found.long - long, atol=1e-6)
    assert found.short is fused.short
    return [round(x, 4) + 0.0 for x in (found.vectors - vectors)[0].tolist()]


def test_a_user_goes_towards_what_they_like_and_away_from_what_they_refuse():
    # a tenth of 5; items at length 1 are (1, 0), (0, 1) and (-.6, .8)
    assert shifted(NOTHING, told([(0, "liked", 0)])) == [0.5, 0]
    assert shifted(NOTHING, told([(1, "disliked", 0)])) == shifted(NOTHING, told([(1, "hidden", 0)])) == [0, -0.5]
    assert shifted(NOTHING, told([(2, "liked", 0), (-1, "liked", 0)])) == [-0.3, 0.4]
    # of two words each says half
    assert shifted(NOTHING, told([(0, "liked", 0), (1, "disliked", 0)])) == [0.25, -0.25]


def test_a_word_fades_and_alone_it_is_not_made_stronger():
    assert shifted(NOTHING, told([(0, "liked", 10)])) == [0.25, 0]
    assert shifted(NOTHING, told([(0, "liked", -5), (1, "liked", 10)])) == [round(0.5 / 1.5, 4), round(0.25 / 1.5, 4)]


def test_actions_of_negative_weight_are_words_and_the_newest_of_an_item_counts():
    assert shifted(did((0, BUY, 5.0, 9), (0, BACK, -3.0, 0))) == [-0.5, 0]
    assert shifted(did((0, BACK, -0.5, 0))) == [-0.25, 0]
    assert shifted(did((0, BACK, -3.0, 1), (0, BUY, 5.0, 0))) == [0, 0]
    assert shifted(did((0, BACK, -3.0, 1)), told([(0, "liked", 0)])) == [0.5, 0]
    for order in (1, -1):
        assert shifted(NOTHING, told([(0, "disliked", 2), (0, "bought", 1)][::order])) == [0, 0]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_who_said_nothing_stays_where_they_are_and_without_a_rate_everybody(rate: float):
    h, config = did((0, BUY, 5.0, 1)), FeedbackConfig(rate=rate)
    assert config.on == (rate > 0) == (config.horizon_ms > 0)
    fused = Fused(torch.ones(1, 2), torch.ones(1), torch.zeros(1, 2))
    given = np.array([NOW]), CATALOG, ITEMS, config
    for outcomes in (None, told([(0, "shown", 0), (1, "clicked", 0)])):
        assert moved(fused, h, outcomes, *given) is fused
    if not rate:
        assert moved(fused, did((0, BACK, -3.0, 0)), told([(1, "liked", 0)]), *given) is fused


def test_an_evaluation_ranks_by_what_was_moved():
    world = world_of(happened([("a", 0, 0)]), 20)
    h = did((3, BUY, 5.0, 2), (4, BACK, -3.0, 0))
    asked = Asked(np.zeros(1, np.int64), np.array([NOW]), h, world.catalog.index_of(h.items), np.ones((1, 20), bool))
    engine = Engine(world.catalog, world.texts())
    plain, found = (
        Served(replace(world, feedback=FeedbackConfig(rate=rate)), engine, "", neural_only=True).scores(asked)[0]
        for rate in (0.0, 0.2)
    )
    items = engine.item_vectors  # of length 1, as the fallback's users are
    length = np.linalg.norm(engine.encode(h, engine.profiles(h)).vectors[0].numpy())
    np.testing.assert_allclose(found - plain, -0.2 * length * items @ items[4], atol=1e-6)


def test_a_released_model_is_held_against_itself_without_feedback(tmp_path):
    small = Recommender(ModelConfig(dim=16, layers=1, text_dim=8, items=1))
    save(tmp_path / "1", small, datetime(2026, 1, 1, tzinfo=UTC))
    world = world_of(happened([("a", 0, 0)]), 20)
    moving = replace(world, feedback=FeedbackConfig(rate=0.1))
    both = [[m.name for m in released(w, tmp_path / "1")] for w in (world, moving)]
    assert both == [["released", "neural"], ["released", "neural", "released, no feedback"]]
