"""Co-occurrence and popularity: the definition of a pair, and scores by hand."""

from dataclasses import replace

import numpy as np
import pytest

from model import online
from model.catalog import Catalog, Item
from model.history import HistoryLog, item_hash
from model.mix import Mix
from model.online import DAY_MS, PAIR_STEPS, Counts, OnlineParams, OnlineScores, bucket_of, pairs, pairs_of
from tests.model.worlds import shelf, shown

NAMES = "abcd"
CATALOG = Catalog.build({i: Item(i, i) for i in NAMES})
A, B, C, D = (item_hash(i) for i in NAMES)
PARAMS = OnlineParams(bucket_ms=DAY_MS, half_life_days=1, popularity_half_life_days=2, shrink=1, recency=0.5)


def u64(*values):
    return np.array(values, np.uint64)


def counts(pair_rows=(), item_rows=()):
    """Pair rows (a, b, bucket, count), item rows (item, bucket, count)."""
    a, b, pair_bucket, pair_count = zip(*pair_rows, strict=True) if pair_rows else ((), (), (), ())
    item, item_bucket, item_count = zip(*item_rows, strict=True) if item_rows else ((), (), ())
    return Counts(
        u64(*a),
        u64(*b),
        np.array(pair_bucket, np.int32),
        np.array(pair_count, np.uint32),
        u64(*item),
        np.array(item_bucket, np.int32),
        np.array(item_count, np.uint32),
    )


def test_pairs_come_from_the_distinct_items_before():
    assert pairs(u64(0, 0, 3, 2, 1), 9).tolist() == [1, 2, 3]
    assert pairs(u64(1, 2, 1, 3), 9).tolist() == [1, 2, 3]


def test_an_item_is_never_paired_with_itself():
    assert pairs(u64(1, 2, 3), 2).tolist() == [1, 3]


def test_a_pair_reaches_twenty_interactions_back_and_no_further():
    before = np.arange(1, 41, dtype=np.uint64)
    assert PAIR_STEPS == 20
    assert pairs(before, 99).tolist() == list(range(21, 41))
    assert pairs(before, 40).tolist() == list(range(21, 40))


def test_a_first_interaction_gives_no_pair():
    assert pairs(u64(), 1).tolist() == pairs(u64(0, 0), 1).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_many_events_at_once_give_the_pairs_of_each(seed):
    rng = np.random.default_rng(seed)
    before = rng.integers(1, 30, (50, 40)).astype(np.uint64)
    before[np.arange(40)[None] < rng.integers(0, 41, 50)[:, None]] = 0
    new = rng.integers(1, 30, 50).astype(np.uint64)
    row, a = pairs_of(before, new)
    for b in range(50):
        assert a[row == b].tolist() == sorted({int(i) for i in before[b, -PAIR_STEPS:]} - {0, int(new[b])})


def test_a_late_event_is_paired_with_what_is_older_than_it_only():
    log = HistoryLog()
    log.add("u", 10, 1, A)
    log.add("u", 30, 1, B)
    assert pairs(log.items_before("u", 20, 1, C), C).tolist() == [A]


def test_a_bucket_is_the_floor_of_the_time():
    assert bucket_of(np.array([0, 9, 10, -1]), 10).tolist() == [0, 0, 1, -1]


def test_a_step_is_the_share_of_its_interactions_that_the_other_followed():
    scores = OnlineScores.build(CATALOG, counts([(A, B, 5, 2), (A, C, 5, 1)], [(A, 5, 3)]), 5, PARAMS)
    # met 3, shrunk by 1
    np.testing.assert_allclose(scores.related(np.array([[0]], np.int32)), [[0, 2 / 4, 1 / 4, 0]])


def test_a_count_halves_with_each_half_life():
    scores = OnlineScores.build(CATALOG, counts([(A, B, 4, 2)], [(A, 4, 2)]), 5, PARAMS)
    # one day old at a half-life of one day: followed 1, met 1, shrunk by 1
    np.testing.assert_allclose(scores.related(np.array([[0]], np.int32))[0, 1], 1 / 2)
    # two days' half-life for popularity: 2 / sqrt 2, one added for each of four items
    popular = 2 / 2**0.5 + 1
    np.testing.assert_allclose(scores.popularity, np.array([popular, 1, 1, 1]) / (popular + 3), rtol=1e-6)


def test_a_bucket_ahead_of_now_counts_as_now():
    ahead = OnlineScores.build(CATALOG, counts([(A, B, 9, 2)], [(A, 9, 3)]), 5, PARAMS)
    now = OnlineScores.build(CATALOG, counts([(A, B, 5, 2)], [(A, 5, 3)]), 5, PARAMS)
    assert (ahead.steps.toarray() == now.steps.toarray()).all()


def test_counts_of_several_workers_add_up():
    parts = counts([(A, B, 5, 1)], [(A, 5, 1)]) + counts([(A, B, 5, 1)], [(A, 5, 2)])
    whole = counts([(A, B, 5, 2)], [(A, 5, 3)])
    one, two = (OnlineScores.build(CATALOG, c, 5, PARAMS) for c in (parts, whole))
    np.testing.assert_allclose(one.steps.toarray(), two.steps.toarray())
    np.testing.assert_allclose(one.popularity, two.popularity)


def test_newer_items_of_the_window_weigh_more_and_gaps_take_no_place():
    scores = OnlineScores.build(CATALOG, counts([(A, C, 5, 1), (B, D, 5, 1)], [(A, 5, 1), (B, 5, 1)]), 5, PARAMS)
    # recency 1/2: the newest (b) has 2/3 of the weight, the older (a) 1/3; each step is 1 / (1 + 1)
    expected = [[0, 0, 1 / 6, 1 / 3]]
    np.testing.assert_allclose(scores.related(np.array([[0, 1]], np.int32)), expected, rtol=1e-6)
    np.testing.assert_allclose(scores.related(np.array([[-1, 0, -1, 1]], np.int32)), expected, rtol=1e-6)


def test_contributions_add_up_to_what_is_related():
    rng = np.random.default_rng(0)
    hashes = u64(A, B, C, D)
    rows = [(int(rng.choice(hashes)), int(rng.choice(hashes)), 5, 1) for _ in range(30)]
    scores = OnlineScores.build(CATALOG, counts(rows, [(int(h), 5, 4) for h in hashes]), 5, PARAMS)
    window, asked = np.array([-1, 2, 0, 2], np.int32), np.array([3, 1], np.int32)
    parts = scores.contribution(window[None], asked[None])[0]
    assert parts.shape == (4, 2)
    np.testing.assert_allclose(parts.sum(0), scores.related(window[None])[0, asked], rtol=1e-6)


def test_items_outside_the_catalogue_are_left_out():
    scores = OnlineScores.build(CATALOG, counts([(77, B, 5, 3), (A, 77, 5, 3)], [(77, 5, 9)]), 5, PARAMS)
    assert scores.steps.nnz == 0
    np.testing.assert_allclose(scores.popularity, 1 / 4)


def test_before_any_event_nothing_is_related_and_all_are_equally_popular():
    scores = OnlineScores.empty(CATALOG)
    assert scores.related(np.array([[0, 1], [-1, -1]], np.int32)).tolist() == [[0] * 4] * 2
    assert scores.contribution(np.array([[-1, 1]], np.int32), np.array([[0]], np.int32)).tolist() == [[[0], [0]]]
    np.testing.assert_allclose(scores.popularity, 1 / 4)


@pytest.mark.parametrize("popular", [1e-6, 0.05, 1.0])
@pytest.mark.parametrize("few", [0, online.FEW])
def test_the_strongest_are_those_of_the_whole_catalogue(
    popular: float, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(online, "FEW", few)
    rng = np.random.default_rng(3)
    shelf = Catalog.build({f"i{n}": Item(f"i{n}", "") for n in range(60)})
    met = shelf.hashes[rng.integers(0, 60, 500)]
    a, b = shelf.hashes[rng.integers(0, 60, (2, 400))]
    none, one = np.zeros(400, np.int32), np.ones(400, np.uint32)
    scores = OnlineScores.build(
        shelf, Counts(a, b, none, one, met, np.zeros(500, np.int32), np.ones(500, np.uint32)), 0
    )
    windows = rng.integers(-1, 60, (8, 5)).astype(np.int32)
    windows[0] = -1
    allowed = rng.random((8, 60)) < 0.7
    allowed[1] = False
    allowed[2, 4:] = False
    dense = (1 - popular) * scores.related(windows) + popular * scores.popularity
    dense[~allowed] = -1
    followers = scores.followers(windows)
    found = scores.strongest(followers, Mix(popular=popular), shown(allowed), 10)
    for got, all_scores in zip(found, dense, strict=True):
        got = got[got >= 0]
        assert len(set(got.tolist())) == len(got)
        want = np.sort(all_scores[all_scores >= 0])[::-1][:10]
        np.testing.assert_allclose(np.sort(all_scores[got])[::-1], want, rtol=1e-5)
    np.testing.assert_allclose(
        followers.at(np.tile(np.arange(60, dtype=np.int32), (8, 1))),
        scores.related(windows),
        rtol=1e-6,
    )


@pytest.mark.parametrize("expanded", [0, 10**6], ids=["looked up", "gone through"])
def test_parts_are_the_same_whichever_way_they_are_found(monkeypatch, expanded):
    rng = np.random.default_rng(0)
    catalog = shelf(40)
    a, b = rng.integers(0, 40, (2, 300))
    pairs = Counts.empty()
    pairs = replace(
        pairs,
        a=catalog.hashes[a],
        b=catalog.hashes[b],
        pair_bucket=np.zeros(300, np.int32),
        pair_count=np.ones(300, np.uint32),
    )
    scores = OnlineScores.build(catalog, pairs, 0)
    windows = rng.integers(-1, 40, (5, 6)).astype(np.int32)
    asked = rng.integers(0, 40, (5, 7)).astype(np.int32)  # some of them twice
    monkeypatch.setattr(online, "EXPANDED", expanded)
    found = scores.contribution(windows, asked).sum(1)
    np.testing.assert_allclose(found, np.take_along_axis(scores.related(windows), asked, 1), atol=1e-6)
