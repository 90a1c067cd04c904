"""What is drawn: probabilities by hand, numbers that follow from seeds, 200,000 lists against their propensities."""

import numpy as np
import pytest
from scipy.stats import chisquare

from model.arrange import arrange
from model.explore import ExploreConfig, chances, drawn, newcomers, uniforms
from model.terms import Quota, Terms

DRAWS = 200_000


def one(config: ExploreConfig, utility, free="1111", new="0000") -> list[float]:
    flags = [np.array([[c == "1" for c in text]]) for text in (free, new)]
    pool = np.arange(len(free)) < config.pool
    return chances(np.array([utility], np.float64), flags[0], pool, flags[1], config)[0].tolist()


UTILITY = [np.log(8), np.log(4), np.log(2), 0.0]


@pytest.mark.parametrize(
    ("config", "free", "new", "expected"),
    [
        (ExploreConfig(method="epsilon", epsilon=0.4), "1111", "0000", [0.7, 0.1, 0.1, 0.1]),
        (ExploreConfig(method="epsilon", epsilon=0.4), "0101", "0000", [0, 0.8, 0, 0.2]),
        (ExploreConfig(method="epsilon", epsilon=0.4, pool=2), "1111", "0000", [0.8, 0.2, 0, 0]),
        (ExploreConfig(method="softmax", temperature=1.0), "1110", "0000", [8 / 14, 4 / 14, 2 / 14, 0]),
        (ExploreConfig(method="softmax", temperature=0.5), "0110", "0000", [0, 0.8, 0.2, 0]),
        (ExploreConfig(new_items=0.2), "1111", "0011", [0.8, 0, 0.1, 0.1]),
        (ExploreConfig(new_items=0.2), "1100", "0011", [1, 0, 0, 0]),
        # the pool is of two; of the new, 3 stands outside it
        (ExploreConfig(method="epsilon", epsilon=0.5, pool=2, new_items=0.2), "1111", "0101", [0.6, 0.3, 0, 0.1]),
    ],
)
def test_chances_by_hand(config: ExploreConfig, free: str, new: str, expected: list[float]):
    np.testing.assert_allclose(one(config, UTILITY, free, new), expected, atol=1e-12)


def test_what_has_no_chance_is_not_drawn_at_either_end():
    p = np.array([[0, 0.5, 0.5, 0]] * 2)
    assert drawn(p, np.array([0.0, 1 - 2**-53])).tolist() == [1, 2]


def test_numbers_follow_from_seeds_and_are_even():
    """The first outputs of SplitMix64 with seed 1234567, as its authors' code gives them."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    found = uniforms(np.array([1234567], np.uint64), 3)[0]
    assert found.tolist() == [(k >> 11) * 2.0**-53 for k in known]
    many = uniforms(np.arange(20_000, dtype=np.uint64), 5)
    for numbers in (*many.T, uniforms(np.arange(20_000, dtype=np.uint64), 1, stream=1)[:, 0]):
        assert chisquare(np.bincount((numbers * 20).astype(int), minlength=20)).pvalue > 1e-4
    assert abs(np.corrcoef(many.T)[np.triu_indices(5, 1)]).max() < 0.03


def test_newcomers_are_drawn_evenly_and_each_once():
    seeds = np.arange(20_000, dtype=np.uint64) * np.uint64(7)
    found = newcomers(np.arange(100, 110, dtype=np.int32), seeds, 4)
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
    assert chisquare(np.bincount(found.ravel() - 100)).pvalue > 1e-4
    few = newcomers(np.array([3, 5], np.int32), seeds[:2], 4)
    assert few.tolist() == [[3, 5, -1, -1]] * 2


def sold(*members: int, least: int = 0, most: int = 9) -> Quota:
    member = np.zeros(8, bool)
    member[list(members)] = True
    return Quota(member, np.full(DRAWS, least, np.int32), np.full(DRAWS, most, np.int32))


def everything() -> Terms:
    pins = np.full((DRAWS, 4), -1, np.int32)
    pins[:, 2] = 7
    groups = np.array([0, 0, -1, 1, -1, 1, -1, -1], np.int32)
    return Terms(np.full(DRAWS, 4, np.int32), pins, (sold(4, 6, least=1), sold(0, 2, most=1)), one_of=groups)


@pytest.mark.parametrize(
    ("explore", "terms"),
    [
        (ExploreConfig(method="epsilon", epsilon=0.3), Terms.plain(DRAWS, 3)),
        (ExploreConfig(method="softmax", temperature=0.7, pool=4), Terms.plain(DRAWS, 3)),
        (ExploreConfig(method="epsilon", epsilon=0.3, pool=3, new_items=0.25), everything()),
        (ExploreConfig(method="softmax", temperature=2.0, new_items=0.1), everything()),
        (ExploreConfig(new_items=0.3), everything()),
    ],
)
def test_lists_are_as_frequent_as_their_propensities_say(explore: ExploreConfig, terms: Terms):
    """A list is as likely as the product of its propensities; seeds as they come, one after the other."""
    rows = np.tile(np.arange(8, dtype=np.int32), (DRAWS, 1))
    utility = np.tile(np.array([3.0, 2.5, 2.0, 1.8, 1.0, 0.9, 0.5, 0.1]), (DRAWS, 1))
    new = np.tile(np.arange(8) >= 5, (DRAWS, 1))
    seeds = np.arange(DRAWS, dtype=np.uint64)
    found = arrange(rows, utility, terms, (), explore, new, seeds)
    likely = found.propensity.astype(np.float64).prod(1)
    lists, first, count = np.unique(found.column, axis=0, return_index=True, return_counts=True)
    p = likely[first]
    assert len(lists) > 5
    # one list has one probability, whoever has it, and all of them together are everything that can happen
    _, which = np.unique(found.column, axis=0, return_inverse=True)
    np.testing.assert_allclose(likely, p[which.ravel()])
    assert p.sum() == pytest.approx(1, abs=1e-3)
    often = p * DRAWS >= 5
    expected, seen = p[often] * DRAWS, count[often].astype(float)
    expected, seen = np.append(expected, DRAWS - expected.sum()), np.append(seen, DRAWS - seen.sum())
    if expected[-1] < 5:
        expected, seen = expected[:-1], seen[:-1]
    assert chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-4


@pytest.mark.parametrize("explore", [ExploreConfig(method="softmax", pool=4, new_items=0.2)])
def test_what_is_told_of_a_draw_gives_its_propensity_again(explore: ExploreConfig):
    rng = np.random.default_rng(1)
    users = 300
    rows = np.tile(np.arange(8, dtype=np.int32), (users, 1))
    pins = np.full((users, 4), -1, np.int32)
    pins[:, 1] = 3
    terms = Terms(np.full(users, 4, np.int32), pins)
    new = rng.random((users, 8)) < 0.3
    found = arrange(rows, rng.normal(size=(users, 8)), terms, (), explore, new, np.arange(users, dtype=np.uint64))
    told = found.explored
    assert told is not None
    user, place = np.nonzero(told.at >= 0)
    pool = np.arange(told.utilities.shape[1]) < told.pool
    again = chances(told.utilities[user], told.free[user, place], pool, told.new[user], explore)
    again = again[np.arange(len(user)), told.at[user, place]]
    np.testing.assert_allclose(again, found.propensity[user, place], rtol=1e-5)
    assert (found.propensity[told.at < 0] == 1).all()
