"""Habits: what is counted of who comes back, what the term adds to a score, and that it is learned and kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model import checkpoint
from model.catalog import Catalog, Item
from model.choice import fitted
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.habits import EVERY, NAMES, PRIOR, Habits, firsts
from model.history import HistoryLog, item_hash
from model.mix import Mix
from model.online import DAY_MS, OnlineScores
from model.replay import timeline
from model.train import TrainError, train
from model.tune import validation_set
from tests.model.worlds import met, shelf, text_vectors

# a: i0, i1, i0, then i2; b: i0, i2, i0. Even items are films, odd ones books.
HAPPENED = [("a", 0), ("a", 1), ("b", 0), ("a", 0), ("b", 2), ("a", 2), ("b", 0)]


def happened(rows: list[tuple[str, int]], gap_ms: int = 1000) -> Events:
    users, items = (np.array(x, object) for x in zip(*((u, f"i{i:02}") for u, i in rows), strict=True))
    n = len(rows)
    return Events(users, items, np.full(n, 3, np.uint8), np.arange(n) * gap_ms, np.full(n, np.nan, np.float32))


def learned(catalog: Catalog) -> Habits:
    line = timeline(happened(HAPPENED), catalog)
    return Habits.learned(line, len(line), catalog)


def test_the_first_of_a_user_with_an_item_is_the_first():
    users, rows = np.array([0, 1, 0, 0, 1]), np.array([5, 5, 5, 6, 5])
    assert firsts(users, rows).tolist() == [True, True, False, True, False]


def test_how_often_who_has_an_item_comes_back_to_it_is_shrunk_to_its_kind_and_that_to_all():
    found = learned(shelf(4))
    # i0: 2 of the 3 + 2 interactions that came after; i1: 0 of 2; i2: 0 of 0 + 1; everybody, one more of each: 3 of 9
    mean = 3 / 9
    film, book = (2 + 200 * mean) / (6 + 200), (0 + 200 * mean) / (2 + 200)
    own = [(2 + 150 * film) / 155, 150 * book / 152, 150 * film / 151, book]
    np.testing.assert_allclose(found.over(shelf(4)).again_kind, np.log([film / mean, book / mean] * 2), rtol=1e-5)
    np.testing.assert_allclose(found.again, np.log(np.array(own) / mean), rtol=1e-5)
    # firsts: 2 of 4 of i0, 1 of 1 of i1, 2 of 2 of i2; of all, one more of each: 6 of 8
    first = np.array([(2 + 15) / 24, (1 + 15) / 21, (2 + 15) / 22, 15 / 20])
    np.testing.assert_allclose(found.first, np.log(first / 0.75), atol=1e-6)


def test_an_item_that_is_new_comes_back_as_its_kind_does_and_a_new_kind_as_all_do():
    items = {i: Item(i, i, categories=[c]) for i, c in (("i00", "film"), ("new", "book"), ("odd", "song"))}
    found, known = learned(shelf(4)), learned(shelf(4)).over(shelf(4))
    over = found.over(Catalog.build(items))
    row = {i: over.again[n] for n, i in enumerate(Catalog.build(items).ids)}
    assert row["i00"] == known.again[0]
    assert row["new"] == known.again_kind[1]
    assert row["odd"] == 0


WEIGHTS = np.array([2.0, 0.5, 3.0, 1.0, 0.7, 0.2, -0.4, -1.5, 0.1, 0.6, 0.9], np.float32)


def three_days() -> HistoryLog:
    """u: i00 on day 0 and day 2, i01 on day 2, and i03 as a sign of no interest on day 3; v: nothing."""
    log = HistoryLog()
    for day, item, weight in ((0, 0, 5.0), (2, 0, 5.0), (2, 1, 5.0), (3, 3, -1.0), (1, 2, 5.0)):
        log.add("u", day * DAY_MS, 3, item_hash(f"i{item:02}"), weight)
    return log


def test_the_term_of_two_users_by_hand():
    catalog = shelf(5)
    over = replace(learned(catalog), weights=WEIGHTS).over(catalog)
    h, online = three_days().histories(["u", "v"]), OnlineScores.empty(catalog)
    scores = np.arange(10, dtype=np.float32).reshape(2, 5)
    every = np.tile(np.arange(5), (2, 1))
    found = over.of(h, catalog.index_of(h.items), online).over(scores, every)

    rare = np.log(1 / 5)
    new = 2 * scores + 0.5 * rare + 3 * over.first
    np.testing.assert_allclose(found[1], new[1], rtol=1e-5)
    np.testing.assert_allclose(found[0, 3:], new[0, 3:], rtol=1e-5)  # what was returned is no habit

    def mine(row: int, share: float, days: float) -> float:
        facts = (1, np.log(share), np.log(5), np.log(1 + days), days == 0, rare, over.again[row], over.again_kind[row])
        return 2 * scores[0, row] + 0.5 * rare + float(np.dot(facts, WEIGHTS[EVERY:]))

    np.testing.assert_allclose(found[0, :3], [mine(0, 2 / 4, 0), mine(1, 1 / 4, 0), mine(2, 1 / 4, 1)], rtol=1e-5)


def test_weights_times_features_are_the_term_and_without_weights_nothing_changes():
    catalog, random = shelf(40), np.random.default_rng(0)
    h = met(*[random.integers(0, 40, 9).tolist() for _ in range(50)])
    scores = random.normal(size=(50, 7)).astype(np.float32)
    at = np.stack([random.permutation(40)[:7] for _ in range(50)])
    for weights in (random.normal(size=len(NAMES)).astype(np.float32), PRIOR):
        over = replace(learned(catalog), weights=weights).over(catalog)
        term = over.of(h, catalog.index_of(h.items), OnlineScores.empty(catalog))
        np.testing.assert_allclose(term.features(scores, at) @ weights, term.over(scores, at), atol=1e-4)
    np.testing.assert_array_equal(term.over(scores, at), scores)


def milk(days: int = 40) -> Events:
    """Ten people buy i00 every day, one of the items 2 to 11 every third day, and never that again."""
    rows = [(day, u, 0) for day in range(days) for u in range(10)]
    rows += [(day, u, 2 + (u + day // 3) % 10) for day in range(0, 30, 3) for u in range(10)]
    day, user, item = np.array(sorted(rows)).T
    ids, users = np.array([f"i{i:02}" for i in item], object), np.array([f"u{u}" for u in user], object)
    n = len(rows)
    return Events(users, ids, np.full(n, 3, np.uint8), day * DAY_MS + user, np.full(n, np.nan, np.float32))


def test_questions_about_baskets_know_nothing_of_the_basket():
    catalog = shelf(12)
    line = timeline(milk(), catalog)
    params = OnlineScores.empty(catalog).params
    plain, strict = (validation_set(line, 100, catalog, params, 400, "allow", baskets) for baskets in (False, True))
    assert plain.targets.tolist() == strict.targets.tolist()
    newest = np.concatenate([h.times[:, -1] for h in strict.histories])
    assert len(newest) == 400 and (newest % DAY_MS < 10).all()
    ages = np.concatenate([h.times[:, -1] for h in plain.histories]) - newest
    assert (ages >= 0).all() and (ages > 0).any()


TINY = TrainConfig(
    model=ModelConfig(dim=8, layers=1, window=8), epochs=1, batch=16, seen="allow", baskets=True, habits=True
)


def test_habits_are_learned_kept_in_the_folder_and_make_lists(tmp_path: Path):
    catalog = shelf(12)
    model = train(milk(), catalog, text_vectors(12), TINY)
    assert model.habits is not None
    said = model.metrics["validation"]
    assert isinstance(said, dict) and said["habits_ndcg@10"] >= said["ndcg@10"]
    saved = checkpoint.save(tmp_path / "m", model, datetime(2026, 11, 28, tzinfo=UTC))
    assert checkpoint.HABITS in saved.sha256
    kept = checkpoint.load(tmp_path / "m")
    assert kept.habits is not None
    for name, array in model.habits.arrays().items():
        np.testing.assert_array_equal(getattr(kept.habits, name), array)

    # z has bought both as often: i00, which people come back to, and i05, which they do not
    log = HistoryLog()
    for item in (0, 5):
        log.add("z", 50 * DAY_MS, 3, item_hash(f"i{item:02}"), 5.0)
    h = log.histories(["z"])
    engine = Engine(catalog, text_vectors(12), kept, Mix(neural=0.0), seen="allow")
    online = OnlineScores.empty(catalog)
    fused = engine.encode(h, engine.profiles(h))
    lists = engine.rank(h, fused, np.arange(12, dtype=np.int32)[None], online, 12)
    assert lists[0].items[0] == 0
    assert ("interaction", 0) in [(reason.type, reason.item) for reason in lists[0].reasons[0]]


def test_a_model_that_learned_none_has_none(tmp_path: Path):
    catalog = shelf(12)
    model = train(milk(), catalog, text_vectors(12), TINY.model_copy(update={"habits": False}))
    saved = checkpoint.save(tmp_path / "m", model, datetime(2026, 11, 28, tzinfo=UTC))
    assert model.habits is None and checkpoint.HABITS not in saved.sha256
    assert Engine(catalog, text_vectors(12), model, seen="allow").habits is None


def test_habits_are_refused_where_nothing_is_shown_again():
    with pytest.raises(TrainError, match=r"set \[rank\] seen"):
        train(milk(), shelf(12), text_vectors(12), TINY.model_copy(update={"seen": "exclude"}))


def test_met_items_are_candidates_where_habits_ask_for_them():
    catalog = shelf(40)
    model = train(milk(), catalog, text_vectors(40), TINY)
    h = met([20, 21])
    engine = Engine(catalog, text_vectors(40), model, Mix(neural=0.0), seen="allow")
    fused = engine.encode(h, engine.profiles(h))
    nothing = np.full((1, 1), -1, np.int64)
    found = engine.candidates(
        h, fused, lambda v, k: (np.zeros((1, 1), np.float32), nothing), OnlineScores.empty(catalog), 1
    )
    assert {20, 21} <= set(found[0].tolist())


def test_the_fit_finds_who_comes_back():
    """`fitted` over what the term says of choices that were made by known weights gives these weights."""
    catalog, random = shelf(12), np.random.default_rng(3)
    over = learned(catalog).over(catalog)
    h = met(*[random.integers(0, 12, 6).tolist() for _ in range(3000)])
    term = over.of(h, catalog.index_of(h.items), OnlineScores.empty(catalog))
    scores = random.normal(size=(3000, 12)).astype(np.float32)
    features = term.features(scores, np.tile(np.arange(12), (3000, 1)))
    true = np.zeros(len(NAMES), np.float32)
    true[[0, NAMES.index("met"), NAMES.index("share")]] = 1.5, 2.0, 1.0
    noise = random.gumbel(size=(3000, 12))
    found = fitted(features, (features @ true + noise).argmax(1), PRIOR)
    np.testing.assert_allclose(found[[0, NAMES.index("share")]], [1.5, 1.0], atol=0.2)
