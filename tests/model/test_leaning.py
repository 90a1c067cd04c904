"""What is known of users beside what they did: whom it shapes a list for, how, and that it gives way."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint, leaning
from model.catalog import Catalog, Item
from model.config import ModelConfig
from model.engine import Engine
from model.evaluation.exams import Asked, World
from model.evaluation.methods.served import Served
from model.history import Histories
from model.leaning import LEAST, STRENGTH, WEIGHT, Leanings, concentration, leanings_of
from model.mix import SHORT
from model.online import OnlineScores
from model.people import About, People, Person
from model.recommender import Recommender
from model.replay import timeline
from tests.model.evaluation.worlds import happened
from tests.model.worlds import met, shelf, text_vectors

CATALOG, TEXT = shelf(12), text_vectors(12)
# Each of 60 people meets 0; the first 30 then 2 and 4 (films), the others 1 and 3 (books).
EVENTS = happened([(f"u{u:02}", item, 100 * u + item) for u in range(60) for item in ((0, 2, 4), (0, 1, 3))[u >= 30]])
PEOPLE = People.of(Person(f"u{u:02}", {"side": "left" if u < 30 else "right", "u": f"only {u}"}) for u in range(60))
NONE = [np.zeros((0, 0), np.float32)]


def model(leanings: Leanings | None = None) -> Recommender:
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, text_dim=8, items=12, short_term="gru")
    made = Recommender(config).eval()
    made.set_items(CATALOG.hashes, TEXT)
    made.leanings = leanings
    return made


def learned() -> Leanings:
    found = leanings_of(EVENTS, PEOPLE, CATALOG)
    assert found is not None
    return found


def described(side: str = "", interests: Sequence[str] = ()) -> About:
    return People.of([Person("x", {"side": side}, list(interests))]).about


def popular_to(about: About, h: Histories) -> np.ndarray:
    """How popular items are to a user f32[N], where all are as popular with all."""
    engine, online = Engine(CATALOG, TEXT, model(learned())), OnlineScores.empty(CATALOG)
    lean = engine.lean(h, about, online)
    return online.popularity if lean is None or lean.popularity is None else lean.popularity[0]


def test_a_group_that_is_like_all_is_shrunk_to_all_and_one_that_is_not_is_less() -> None:
    popularity = np.full(50, 0.02)
    alike, unlike = np.full(50, 20.0), np.zeros(50)
    unlike[:10] = 100
    assert concentration(alike, popularity) > 1000 * concentration(unlike, popularity)


def test_a_group_of_few_says_nothing() -> None:
    assert len(learned().groups) == 2  # not the sixty that have one member each
    few = People.of(Person(f"u{u:02}", {"side": "left"}) for u in range(LEAST - 1))
    assert leanings_of(EVENTS, few, CATALOG) is None


def test_what_a_group_met_is_as_much_more_popular_as_its_counts_say() -> None:
    found = learned()
    both = (found.more[[0]] + found.more[[1]]).toarray()[0]
    row = next(r for r in (0, 1) if found.more[[r]].toarray()[0, 2] > 0)
    left = found.more[[row]].toarray()[0]
    assert (left[[1, 3, 5]] == 0).all()  # what it never met
    counts, popular = np.array([30.0, 30, 30]), (np.array([60.0, 30, 30]) + 1) / (180 + 12)
    k = concentration(counts, popular)
    np.testing.assert_allclose(left[[0, 2, 4]], np.log((counts / popular + k) / k), rtol=1e-5)
    assert (both[5:] == 0).all()


def test_a_user_without_history_is_shown_what_their_group_met() -> None:
    left, right = popular_to(described(side="left"), met([])), popular_to(described(side="right"), met([]))
    assert min(left[2], left[4]) > max(left[1], left[3])
    assert min(right[1], right[3]) > max(right[2], right[4])
    np.testing.assert_allclose([left.sum(), right.sum()], 1, rtol=1e-5)


def test_groups_give_way_as_a_history_grows() -> None:
    def ratio(n: int) -> float:
        found = popular_to(described(side="left"), met(list(range(4, 4 + n))))
        return float(np.log(found[2] / found[1]))

    found = learned()
    whole = STRENGTH * max(found.more[[r]].toarray()[0, 2] for r in (0, 1))
    np.testing.assert_allclose([ratio(n) for n in (0, 2, 4)], [whole, whole * 3 / 4, whole / 2], rtol=1e-4)
    assert ratio(SHORT) == 0


def test_stated_items_are_read_as_if_they_were_clicked() -> None:
    engine, online = Engine(CATALOG, TEXT, model()), OnlineScores.empty(CATALOG)
    lean = engine.lean(met([]), described(interests=["i03"]), online)
    assert lean is not None and lean.popularity is None
    fused = engine.encode(met([]), NONE, lean)
    clicked = engine.encode(met([3]), NONE)
    np.testing.assert_allclose(fused.vectors, clicked.vectors, atol=1e-6)
    np.testing.assert_allclose(fused.long, fused.vectors)
    assert float(fused.short[0]) == 0


def test_stated_items_give_way_as_a_history_grows() -> None:
    engine, online = Engine(CATALOG, TEXT, model()), OnlineScores.empty(CATALOG)
    about, alone = described(interests=["i03", "i05"]), engine.encode(met([5]), NONE)
    weights = []
    for n in (0, 1, 4, SHORT):
        lean = engine.lean(met(list(range(n))), about, online)
        weights.append(0.0 if lean is None else float(lean.weights[0]))
    m = 2 * WEIGHT
    np.testing.assert_allclose(weights, [1, 7 / 8 * m / (m + 1), 1 / 2 * m / (m + 4), 0], rtol=1e-5)
    lean = engine.lean(met([5]), about, online)
    assert lean is not None and lean.vectors is not None
    fused, u = engine.encode(met([5]), NONE, lean), lean.weights[0]
    np.testing.assert_allclose(fused.vectors, u * lean.vectors + (1 - u) * alone.vectors.numpy(), atol=1e-6)
    # what is left of the window is what the reasons take apart
    np.testing.assert_allclose(fused.vectors - fused.long, float(fused.short[0]) * alone.vectors, atol=1e-6)


def test_a_category_that_is_liked_makes_its_items_more_popular_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    even = popular_to(described(interests=["film"]), met([]))
    assert (even == even[0]).all()
    monkeypatch.setattr(leaning, "LIKED", 0.33)
    films = popular_to(described(interests=["film"]), met([]))
    assert films[::2].min() > films[1::2].max()


@pytest.mark.parametrize("interests", [[], ["i99", "no such category"]])
def test_where_nothing_is_known_nothing_changes(interests: list[str]) -> None:
    engine, online = Engine(CATALOG, TEXT, model(learned())), OnlineScores.empty(CATALOG)
    assert engine.lean(met([1, 2]), described(interests=interests), online) is None
    assert engine.lean(met([1, 2]), None, online) is None
    assert Engine(CATALOG, TEXT).lean(met([]), described(interests=["i03"], side="left"), online) is None


def test_a_worker_ranks_what_an_evaluation_scores() -> None:
    """The engine's lists, of candidates, against the dense scores of `Served`, for users with and without history."""
    people = People.of(
        [Person("a", {"side": "left"}), Person("b", {}, ["i03", "film"]), Person("c", {"side": "right"}, ["i07"])]
    )
    events = happened([(user, item, item) for user, item in (("a", 5), ("b", 5), ("c", 1), ("d", 1))])
    world = World(events, CATALOG, {}, lambda: TEXT, people=people)
    engine = Engine(CATALOG, TEXT, model(learned()))
    h = met([], [], [1], [1])
    line, online = timeline(events, CATALOG), OnlineScores.empty(CATALOG)
    served = Served(world, engine, "served")
    served.learn(line, 0)
    rows, users = CATALOG.index_of(h.items), np.arange(4)
    scores = served.scores(Asked(users, np.zeros(4, np.int64), h, rows, engine.allowed(h)))
    plain = Served(world, engine, "plain", people=False)
    plain.learn(line, 0)
    bare = plain.scores(Asked(users, np.zeros(4, np.int64), h, rows, engine.allowed(h)))
    np.testing.assert_array_equal(scores[3], bare[3])  # d is not described
    assert all(not np.allclose(scores[b], bare[b]) for b in range(3))

    def search(vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        near = np.argsort(-(vectors @ engine.item_vectors.T), axis=1)[:, :k]
        return np.zeros(near.shape, np.float32), near

    lean = engine.lean(h, people.about.take(world.described), online)
    fused = engine.encode(h, NONE * 4, lean)
    candidates = engine.candidates(h, fused, search, online, 12, lean=lean)
    for b, ranked in enumerate(engine.rank(h, fused, candidates, online, 12, lean=lean)):
        dense = np.where(engine.allowed(h)[b], scores[b], -np.inf)
        np.testing.assert_allclose(dense[ranked.items], np.sort(dense)[::-1][: len(ranked.items)], rtol=1e-4)
        assert len(ranked.items) == np.isfinite(dense).sum()
        shares = [sum(reason.share for reason in reasons) for reasons in ranked.reasons]
        assert max(shares) <= 1 + 1e-5


def test_candidates_are_those_that_are_popular_with_the_group() -> None:
    found = model(learned())
    engine, online = Engine(CATALOG, TEXT, found), OnlineScores.empty(CATALOG)
    lean = engine.lean(met([]), described(side="right"), online)
    assert lean is not None
    nothing, shown = engine.followers(met([]), online), engine.shown(met([]))
    assert sorted(online.strongest(nothing, engine.mix, shown, 3, lean.popularity)[0].tolist()) == [0, 1, 3]
    assert sorted(online.strongest(nothing, engine.mix, shown, 3)[0].tolist()) != [0, 1, 3]


def test_leanings_are_kept_with_the_model_and_follow_items_into_another_catalogue(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "m", model(learned()), datetime(2026, 11, 25, tzinfo=UTC))
    loaded = checkpoint.load(tmp_path / "m").leanings
    assert loaded is not None
    without = shelf(3)
    other = Catalog.build({i: Item(i, i) for i in [*without.ids[1:], "new"]})
    wide, narrow = learned().over(CATALOG).toarray(), loaded.over(other).toarray()
    rows = CATALOG.index_of(other.hashes)
    np.testing.assert_allclose(narrow[:, rows >= 0], wide[:, rows[rows >= 0]])
    assert (narrow[:, rows < 0] == 0).all()
