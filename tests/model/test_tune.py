"""What is chosen on held-out events: that the weights which suit them best are found."""

from __future__ import annotations

import numpy as np

from model.catalog import Catalog
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.mix import EVEN, Mix
from model.online import Counts, OnlineScores
from model.train import train
from model.tune import Validation, fit_mix, scored
from tests.model.worlds import met, shelf, text_vectors

N = 40
CATALOG, TEXT = shelf(N), text_vectors(N)


def random_counts(seed: int) -> OnlineScores:
    rng = np.random.default_rng(seed)
    a, b = CATALOG.hashes[rng.integers(0, N, (2, 2000))]
    none, one = np.zeros(2000, np.int32), np.ones(2000, np.uint32)
    return OnlineScores.build(CATALOG, Counts(a, b, none, one, a, none, one), 0)


def test_windows_whose_vectors_say_more_weigh_more():
    """To users of few items the next is as the counts say, to those of many as the vectors say."""
    rng = np.random.default_rng(0)
    h = met(*[rng.integers(0, N, 3).tolist() for _ in range(40)], *[rng.integers(0, N, 30).tolist() for _ in range(40)])
    engine, online = Engine(CATALOG, TEXT, mix=Mix(neural=1.0)), random_counts(1)
    neural = scored(engine, h, engine.profiles(h))
    said = np.where(np.arange(len(h))[:, None] < 40, online.related(engine.window_rows(h)[1]), neural)
    targets = np.where(engine.allowed(h), said, -np.inf).argmax(1)
    mix, figures = fit_mix(engine, engine, Validation([h], [online], targets))
    few, _, many = mix.by_window
    assert few < 1 < many
    even = mix.model_copy(update={"by_window": EVEN})
    weighed = (Engine(CATALOG, TEXT, mix=m) for m in (even, mix))
    before, after = (ranks_of(e, h, online, targets) for e in weighed)
    assert after < before and figures["hr@10"] > 0.9


def ranks_of(engine: Engine, h, online: OnlineScores, targets: np.ndarray) -> float:
    """Mean place of the targets in the lists that the engine makes."""

    def search(vectors, k):
        found = vectors @ engine.item_vectors.T
        rows = np.argsort(-found, axis=1)[:, :k]
        return np.take_along_axis(found, rows, 1), rows

    fused = engine.encode(h, engine.profiles(h))
    lists = engine.rank(h, fused, engine.candidates(h, fused, search, online, N), online, N, False)
    return float(np.mean([one.items.tolist().index(t) for one, t in zip(lists, targets, strict=True)]))


def users_who_come_back(users: int = 30, steps: int = 25, own: int = 4) -> tuple[Events, Catalog]:
    """Each has a few items of the shelf, and takes one of them every time."""
    rng = np.random.default_rng(2)
    mine = np.stack([rng.permutation(N)[:own] for _ in range(users)])
    who = np.tile(np.arange(users), steps)
    item = mine[who, rng.integers(0, own, len(who))]
    events = Events(
        np.array([f"u{u}" for u in who], object),
        np.array([f"i{k:02}" for k in item], object),
        np.full(len(who), 3, np.uint8),
        1000 * np.arange(len(who), dtype=np.int64),
        np.full(len(who), np.nan, np.float32),
    )
    return events, CATALOG


def test_what_users_come_back_to_is_learned_and_weighed_where_it_may_be_shown_again():
    events, catalog = users_who_come_back()
    shape = ModelConfig(dim=8, layers=1, window=16)
    c = TrainConfig(model=shape, epochs=1, batch=16, learning_rate=1e-6, seen="allow", refit=False)
    model = train(events, catalog, TEXT, c)
    assert model.mix.repeat > 0
    found = model.metrics["validation"]
    assert isinstance(found, dict) and found["events"] == 75 and found["hr@10"] > 0.95
    blind = train(events, catalog, TEXT, c.model_copy(update={"epochs": 6, "learning_rate": 1e-2}))
    assert blind.metrics["validation"]["neural_hr@10"] > found["neural_hr@10"]


def test_what_was_met_is_neither_asked_nor_weighed_where_it_is_never_shown():
    events, catalog = users_who_come_back(own=N)
    c = TrainConfig(model=ModelConfig(dim=8, layers=1, window=16), epochs=1, batch=16, refit=False)
    model = train(events, catalog, TEXT, c)
    found = model.metrics["validation"]
    assert isinstance(found, dict) and found["events"] < 75
    assert model.mix.repeat == 0
