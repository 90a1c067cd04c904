"""Metrics against arithmetic done by hand."""

import numpy as np
import pytest

from model.metrics import (
    Interval,
    bootstrap,
    coverage,
    diversity,
    f1,
    gains,
    hits,
    middle_ranks,
    novelty,
    precision,
    reciprocal,
)

ALL = np.ones((1, 4), bool)


def test_a_rank_counts_the_better_items():
    assert middle_ranks(np.array([[0.1, 0.9, 0.5, 0.3]]), np.array([2]), ALL).tolist() == [2.0]


def test_tied_items_share_the_middle_of_their_ranks():
    scores = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert middle_ranks(scores, np.array([0]), ALL).tolist() == [2.0]
    assert middle_ranks(scores[:, :2], np.array([0]), ALL[:, :2]).tolist() == [1.5]


def test_items_that_are_not_allowed_take_no_rank():
    allowed = np.array([[True, False, True, True]])
    scores = np.array([[0.1, 0.9, 0.5, 0.3]])
    assert middle_ranks(scores, np.array([2]), allowed).tolist() == [1.0]
    assert middle_ranks(scores, np.array([1]), allowed).tolist() == [np.inf]


def test_hits_gains_and_reciprocal_ranks():
    ranks = np.array([1.0, 3.0, 11.0, np.inf])
    assert hits(ranks, 10).tolist() == [1, 1, 0, 0]
    np.testing.assert_allclose(gains(ranks, 10), [1, 1 / 2, 0, 0])
    np.testing.assert_allclose(reciprocal(ranks), [1, 1 / 3, 1 / 11, 0])


def test_coverage_is_the_share_of_items_ever_shown():
    assert coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5


def test_an_interval_resamples_users_not_events():
    # one user always right and one always wrong: whole users are drawn, so the mean of a draw is 0, 1/2 or 1
    users, values = np.repeat([0, 1], 500), np.repeat([1.0, 0.0], 500)
    assert bootstrap(users, values, seed=0) == Interval(0.5, 0.0, 1.0)


def test_a_difference_that_is_the_same_for_every_user_is_certain():
    assert bootstrap(np.arange(9), np.full(9, 0.25), seed=0) == Interval(0.25, 0.25, 0.25)


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(0)
    users, values = rng.integers(20, size=200), rng.random(200)
    assert bootstrap(users, values, seed=3) == bootstrap(users, values, seed=3)
    assert bootstrap(users, values, seed=3) != bootstrap(users, values, seed=4)


def test_an_interval_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no events"):
        bootstrap(np.zeros(0, int), np.zeros(0), seed=0)


def test_precision_and_f1_of_one_relevant_item():
    ranks = np.array([1.0, 11.0])
    np.testing.assert_allclose(precision(ranks, 10), [0.1, 0])
    np.testing.assert_allclose(f1(ranks, 10), [2 * 0.1 * 1 / 1.1, 0])


def test_novelty_is_the_surprise_of_what_is_shown():
    # with one added to each, the shares are 1/2, 1/4, 1/4
    assert novelty(np.array([[0, 1], [0, -1]]), np.array([3, 1, 1])) == pytest.approx((1 + 2 + 1) / 3)


def test_diversity_is_how_far_items_of_a_list_are_apart():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert diversity(np.array([[0, 1]]), vectors) == pytest.approx(1)
    # cosines 0, .6 and .8; a list of one has no pair
    assert diversity(np.array([[0, 1, 2], [0, -1, -1]]), vectors) == pytest.approx(1 - (0 + 0.6 + 0.8) / 3)


def test_a_mean_can_be_weighted():
    users, values = np.arange(3), np.array([1.0, 0.0, 0.0])
    assert bootstrap(users, values, seed=0, weights=np.array([2.0, 1.0, 1.0])).mean == 0.5


def test_many_users_are_drawn_in_groups_and_the_interval_is_as_wide():
    rng = np.random.default_rng(0)
    values = rng.random(30_000)
    found = bootstrap(np.arange(30_000), values, seed=0)
    # of a uniform variable: 1.96 x 0.2887 / sqrt(30,000) on each side
    assert (found.high - found.low) / 2 == pytest.approx(0.003267, rel=0.15)


def test_one_row_of_what_is_allowed_is_for_all():
    scores = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert middle_ranks(scores, np.array([1, 0]), np.array([[True, True, False]])).tolist() == [1.0, 1.0]
