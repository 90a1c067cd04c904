"""The engine's lists where they are more than the best candidates: terms, diversity, exploration."""

import numpy as np
import pytest

from model.diversity import DiversityConfig
from model.evaluation.exams import Asked
from model.evaluation.methods.served import Served
from model.evaluation.past import unseen
from model.explore import ExploreConfig
from model.metrics import diversity
from model.online import Counts, OnlineScores
from model.replay import timeline
from model.terms import Terms
from tests.model.evaluation.worlds import world_of
from tests.model.test_engine import CATALOG, NOTHING, N, engine, search_of
from tests.model.worlds import met, ring_walks

HISTORIES = met([1, 2, 3], [], [4, 8], list(range(15)))
SEEDS = np.arange(len(HISTORIES), dtype=np.uint64)


def ranked(e, h=HISTORIES, n=5, online=NOTHING, m=10, reasons=True, **more):
    fused = e.encode(h, e.profiles(h))
    return e.rank(h, fused, e.candidates(h, fused, search_of(e), online, m), online, n, reasons, **more)


def test_plain_terms_are_the_list_without_any():
    plain, same = ranked(engine()), ranked(engine(), terms=Terms.plain(len(HISTORIES), 5))
    assert (plain.items == same.items).all() and (plain.scores == same.scores).all()
    assert plain.propensity is None and plain.explored is None
    assert [r.propensities for r in plain] == [r.propensities for r in same]
    assert [r.reasons for r in plain] == [r.reasons for r in same]


def test_a_pin_that_was_no_candidate_is_scored_and_explained_like_any_item():
    terms = Terms.plain(len(HISTORIES), 5)
    terms.pinned[:, 1] = 7  # withdrawn, so never a candidate
    for one in ranked(engine(), terms=terms):
        assert one.items[1] == 7 and 0 < one.scores[1] < 1
        assert len(set(one.items.tolist())) == len(one.items)
        assert one.reasons[1]


def test_a_boost_moves_an_item_up():
    boosts = np.zeros(N, np.float32)
    boosts[12] = 5
    terms = Terms(np.full(2, 3, np.int32), np.full((2, 3), -1, np.int32), boosts=boosts)
    for one in ranked(engine(), m=N, terms=terms, h=met([1], [2])):
        assert one.items[0] == 12 and one.scores[0] == one.scores.max()


def test_the_same_seeds_are_the_same_lists_and_others_are_not():
    e = engine(explore=ExploreConfig(method="softmax", temperature=5.0))
    once, again, other = (ranked(e, seeds=s) for s in (SEEDS, SEEDS, SEEDS + np.uint64(99)))
    assert (once.items == again.items).all() and (once.propensity == again.propensity).all()
    assert (once.items != other.items).any()
    with pytest.raises(ValueError, match="pass `seeds`"):
        ranked(e)


def test_items_with_few_interactions_have_their_share_of_places_and_none_that_may_not_be_shown():
    """All items but 5, 6, 7 and 9 are met often; 7 is withdrawn, 9 was met by the user."""
    rows = np.array([r for r in range(N) if r not in (5, 6, 7, 9)])
    no, many = Counts.empty(), np.full(len(rows), 50, np.uint32)
    zeros = np.zeros(len(rows), np.int32)
    online = OnlineScores.build(
        CATALOG, Counts(no.a, no.b, no.pair_bucket, no.pair_count, CATALOG.hashes[rows], zeros, many), 0
    )
    assert sorted(online.few(5).tolist()) == [5, 6, 7, 9]
    assert sorted(online.few(50).tolist()) == [5, 6, 7, 9] and len(online.few(50.5)) == N
    users = 4000
    h = met(*[[9, 1]] * users)
    e = engine(explore=ExploreConfig(new_items=0.25))
    found = ranked(e, h, 1, online, 4, reasons=False, seeds=np.arange(users, dtype=np.uint64))
    new = np.isin(found.items[:, 0], [5, 6])
    best = found.items[~new][0, 0]
    assert (found.items[~new] == best).all() and not np.isin(found.items, [7, 9]).any()
    assert new.mean() == pytest.approx(0.25, abs=0.03)
    assert (found.items == 5).mean() == pytest.approx(0.125, abs=0.025)
    np.testing.assert_allclose(found.propensity[new], 0.125)


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_diverse_lists_differ_more_in_themselves(method):
    e = engine(diversity=DiversityConfig(method=method, strength=20.0))
    plain, other = ranked(engine(), m=N), ranked(e, m=N)
    unit = e.item_vectors / np.linalg.norm(e.item_vectors, axis=1, keepdims=True)
    assert diversity(other.items, unit) > diversity(plain.items, unit) + 0.01
    assert other.propensity is not None and set(other.propensity[other.items >= 0].tolist()) == {1.0}


def test_an_evaluation_ranks_the_diverse_lists_of_a_worker():
    events, catalog = ring_walks(40, 9)
    world = world_of(events, len(catalog))
    e = type(engine())(catalog, world.texts(), diversity=DiversityConfig(method="mmr", strength=3.0))
    plain = type(e)(catalog, world.texts())
    line = timeline(world.events, catalog)
    h = met([0, 1], [5], [])
    rows = catalog.index_of(h.items)
    asked = Asked(np.zeros(3, np.int64), np.zeros(3, np.int64), h, rows, unseen(rows, h, catalog.seen32, len(catalog)))
    method = Served(world, e, "diverse")
    method.learn(line, len(line))
    scores = np.where(asked.allowed, method.scores(asked), -np.inf)
    fused = e.encode(h, e.profiles(h))
    (online,) = method._online
    everything = np.where(asked.allowed, np.arange(len(catalog), dtype=np.int32), np.int32(-1))
    for n in (world.places,):
        found = e.rank(h, fused, everything, online, n, False).items
        for user in range(3):
            best = np.argsort(-scores[user], kind="stable")[:n]
            best = best[np.isfinite(scores[user, best])]
            assert found[user, : len(best)].tolist() == best.tolist()
    assert (
        e.rank(h, fused, everything, online, 5, False).items != plain.rank(h, fused, everything, online, 5).items
    ).any()
