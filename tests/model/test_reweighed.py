"""An engine beside another: what is large is one and the same, and lists are those of an engine made for itself."""

import numpy as np
import pytest
import torch

from model.baselines import UserModel
from model.config import ModelConfig
from model.engine import Engine
from model.exposure import ExposureConfig
from model.mix import Mix
from model.recommender import Recommender
from model.reweighed import reweighed
from tests.model.test_engine import CATALOG, TEXT, after, ranked
from tests.model.worlds import met

COUNTS = after(1, 4, 5, 6)
HISTORIES = met([1, 2, 3, 8, 9], [4], [], list(range(10, 18)))
KINDS = ("fallback", "attention", "alpha", "blended")


def model(kind: str) -> UserModel | None:
    if kind == "fallback":
        return None
    torch.manual_seed(0)
    fusion = "alpha" if kind == "alpha" else "attention"
    mix = Mix(neural=1.0, online=0.7, text=0.4 if kind == "blended" else 0.0)
    found = Recommender(
        ModelConfig(dim=16, layers=1, text_dim=8, items=len(CATALOG), fusion=fusion, mix=mix, short_term="gru")
    )
    found.set_items(CATALOG.hashes, TEXT)
    return found.eval()


def lists(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    found = ranked(engine, HISTORIES, COUNTS)
    return np.concatenate([one.items for one in found]), np.concatenate([one.scores for one in found])


def check_same_lists(one: Engine, other: Engine) -> None:
    for a, b in zip(lists(one), lists(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_other_rules_over_the_same_vectors(kind: str):
    given, bound = model(kind), ExposureConfig(categories={"book": 0.2})
    first = Engine(CATALOG, TEXT, given)
    before = lists(first)
    beside = Engine(CATALOG, TEXT, given, exposure=bound, seen="allow", like=first)
    assert beside.item_vectors is first.item_vectors and beside._items is first._items
    check_same_lists(beside, Engine(CATALOG, TEXT, given, exposure=bound, seen="allow"))
    assert not np.array_equal(lists(beside)[0], before[0])
    np.testing.assert_array_equal(lists(first)[0], before[0])


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_over_the_same_vectors(kind: str):
    first = Engine(CATALOG, TEXT, model(kind))
    before = lists(first)
    given, mix = reweighed(first.given, Mix(online=0.1, alpha=0.2, by_window=(0.5, 1.5, 1.0)))
    beside = Engine(CATALOG, TEXT, given, mix, like=first)
    assert beside.item_vectors is first.item_vectors
    if kind != "fallback":  # what is not set stays the model's own
        assert (mix.neural, mix.text, mix.online) == (1.0, 0.4 if kind == "blended" else 0.0, 0.1)
    check_same_lists(beside, Engine(CATALOG, TEXT, given, mix))
    assert not np.array_equal(lists(beside)[1], before[1])
    for a, b in zip(lists(first), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["fallback", "alpha"])
def test_alpha_is_the_weight_of_the_window_where_one_is_fixed(kind: str):
    first = Engine(CATALOG, TEXT, model(kind))
    given, mix = reweighed(first.given, Mix(alpha=0.25))
    beside = Engine(CATALOG, TEXT, given, mix, like=first)
    long = beside.profiles(HISTORIES)
    assert beside.encode(HISTORIES, long).short[0] == pytest.approx(0.25)
    assert first.encode(HISTORIES, long).short[0] == pytest.approx(0.85 if kind == "fallback" else 0.7)


def test_other_fusions_weigh_for_themselves():
    first = Engine(CATALOG, TEXT, model("attention"))
    given, mix = reweighed(first.given, Mix(alpha=0.25))
    assert given is first.given
    check_same_lists(Engine(CATALOG, TEXT, given, mix, like=first), first)
