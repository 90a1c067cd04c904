"""From histories to finished columns no step is taken for each user: as many Python calls for many as for few."""

import gc
import sys

import numpy as np
import pytest
import torch

from model.catalog import Catalog, Item
from model.config import ModelConfig, RankConfig
from model.engine import Engine
from model.history import Histories, weight_table
from model.near import SCORES
from model.online import Counts, OnlineScores
from model.recommender import Recommender
from model.rules import Ask, Asked
from tests.model.worlds import text_vectors

N, FEW, MANY = 600, 64, 1024
CLICK = 2
RANK = RankConfig.model_validate(
    {
        "rules": {
            "one_of_group": True,
            "most": {"c0": 2, "c1": 3},
            "least": {"c2": 1},
            "price": {"max": 90},
            "seen": {"view": "allow"},
            "pinned": {"i0007": 2},
            "boosts": {"categories": {"c3": 0.5}},
        },
        "diversity": {"method": "mmr"},
    }
)


def catalogue() -> Catalog:
    return Catalog.build(
        {
            f"i{n:04}": Item(f"i{n:04}", "t", categories=[f"c{n % 9}"], price=n % 100, item_group_id=f"g{n // 2}")
            for n in range(N)
        }
    )


CATALOG = catalogue()
TEXT = text_vectors(N, 12)


def histories(users: int) -> Histories:
    """The same FEW users again and again: what only some of them need, a wider search or another candidate, is a step
    for all of these, and may not be taken more often for more of the same.
    """
    rng = np.random.default_rng(0)
    rows, lengths = rng.integers(0, N, (FEW, 40)), rng.integers(1, 41, FEW)
    there = np.arange(40) >= 40 - lengths[:, None]
    made = Histories(
        np.where(there, CATALOG.hashes[rows], np.uint64(0)),
        np.where(there, CLICK, 0).astype(np.uint8),
        np.where(there, np.arange(1, 41) * 1000, 0),
        np.where(there, weight_table()[CLICK], 0).astype(np.float32),
        lengths.astype(np.int32),
        np.zeros(0, np.uint32),
        np.zeros(FEW + 1, np.int64),
    )
    return made.take(np.arange(users) % FEW)


def engine_of(model: Recommender | None) -> Engine:
    return Engine(CATALOG, TEXT, model, seen=RANK.seen, rules=RANK.rules, diversity=RANK.diversity)


def trained() -> Recommender:
    torch.manual_seed(0)
    model = Recommender(ModelConfig(items=N, text_dim=12, dim=16))
    model.set_items(CATALOG.hashes, TEXT)
    return model.eval()


def counted() -> OnlineScores:
    rng = np.random.default_rng(1)
    a, b = CATALOG.hashes[rng.integers(0, N, (2, 4000))]
    ones, n = np.ones(4000, np.uint32), np.zeros(N, np.int32)
    return OnlineScores.build(
        CATALOG, Counts(a, b, np.zeros(4000, np.int32), ones, CATALOG.hashes, n, n.astype(np.uint32) + 3), 0
    ).prepared()


def searched(engine: Engine):
    """All compared, by few calls."""

    def search(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = vectors @ engine.item_vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), best.astype(np.int64)

    return search


def calls(act) -> int:
    """Calls of Python and C functions that the interpreter makes for it."""
    number = 0

    def note(_frame, event: str, _arg) -> None:
        nonlocal number
        number += event in ("call", "c_call")

    gc.disable()  # its callbacks would be counted
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
        gc.enable()
    return number


@pytest.mark.parametrize("model", [None, trained()], ids=["fallback", "trained"])
@pytest.mark.parametrize("asking", [False, True], ids=["touched", "asking"])
def test_many_users_take_as_many_calls_as_few(model, asking):
    engine, online = engine_of(model), counted()
    search = searched(engine)
    made = {}

    def lists(users: int) -> None:
        h, profiles = worlds[users]
        asked = requests[users] if asking else None
        h = h if asked is None else asked.on_page(h)
        fused = engine.encode(h, profiles, None, True)
        followers, shown = engine.followers(h, online), engine.shown(h, None, asked)
        terms = engine.rules.terms(shown, 10, asked)
        found = engine.candidates(h, fused, search, online, 50, followers, None, shown, terms)
        made[users] = engine.rank(h, fused, found, online, 10, True, followers, None, terms, shown=shown)

    worlds = {users: (h := histories(users), engine.profiles(h)) for users in (FEW, MANY)}
    anything = (Ask(category="c4", item="i0009"), None, 50_000)
    requests = {users: Asked.by(users, dict.fromkeys(range(0, users, 2), anything)) for users in (FEW, MANY)}
    assert MANY * N < SCORES  # what is compared in full is compared in one part: beyond, by 64 MB of scores
    for users in (FEW, MANY):
        lists(users)  # what is made when it is first needed
    few, many = calls(lambda: lists(FEW)), calls(lambda: lists(MANY))
    assert many == few
    assert (made[FEW].items >= 0).sum() > 9 * FEW
    np.testing.assert_array_equal(made[MANY].items, np.tile(made[FEW].items, (MANY // FEW, 1)))
