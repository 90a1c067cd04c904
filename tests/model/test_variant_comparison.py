"""What came of each variant: by hand arithmetic, and on worlds whose answer is known."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from model.evaluation.variants import BOUGHT, CLICKED, SHOWN, UNKNOWN, UNNAMED, Logged, as_dict, compare, likeness
from model.metrics import apart, bootstrap

# user 0 has two lists of a, user 1 one of a, user 2 one of b, user 3 one of b and later, when shares moved, one of a
USERS = np.array([0, 0, 1, 2, 3, 3])
VARIANT = np.array([0, 0, 0, 1, 1, 0])
ITEMS = np.array([[0, 1], [1, 2], [0, -1], [3, 4], [3, 4], [0, 1]], np.int32)
OUTCOMES = [
    (0, SHOWN, 0), (0, SHOWN, 0), (0, CLICKED, 0), (1, SHOWN, 0), (2, SHOWN, 0), (2, BOUGHT, 30),
    (3, SHOWN, 0), (3, SHOWN, 0), (3, CLICKED, 0), (3, CLICKED, 0), (3, BOUGHT, 5), (4, SHOWN, 9), (4, BOUGHT, 8),
    (UNNAMED, CLICKED, 0), (UNNAMED, BOUGHT, 99), (UNKNOWN, CLICKED, 0),
]  # fmt: skip


def logged(**more) -> Logged:
    of, kind, value = (np.array(column) for column in zip(*OUTCOMES, strict=True))
    return Logged(("a", "b"), USERS, VARIANT, ITEMS, of, kind, value.astype(float), **more)


def test_outcomes_belong_to_the_list_they_name():
    found = compare(logged())
    a, b = found.results["a"], found.results["b"]
    assert (a.users, a.lists, b.users, b.lists) == (3, 4, 2, 2)
    assert [a.counts[k] for k in ("shown", "clicked", "bought")] == [4, 1, 1]
    assert [b.counts[k] for k in ("shown", "clicked", "bought")] == [3, 2, 2]
    assert (found.unnamed, found.unknown, found.crossed) == (2, 1, 1)
    means = {name: {rate: i.mean for rate, i in r.rates.items() if i} for name, r in found.results.items()}
    assert means["a"] == pytest.approx(
        {"ctr": 1 / 4, "clicks per user": 1 / 3, "conversions per user": 1 / 3, "value per user": 30 / 3}
    )
    assert means["b"] == pytest.approx(
        {"ctr": 2 / 3, "clicks per user": 2 / 2, "conversions per user": 2 / 2, "value per user": 13 / 2}
    )
    over = {rate: i.mean for rate, i in b.over.items() if i}
    assert over == pytest.approx(
        {"ctr": 2 / 3 - 1 / 4, "clicks per user": 2 / 3, "conversions per user": 2 / 3, "value per user": 6.5 - 10}
    )
    assert not a.over
    assert found.mismatch is None and not found.shadows


def test_what_nobody_was_said_to_be_shown_has_no_rate():
    none = Logged(("a", "b"), USERS, VARIANT, ITEMS, np.array([0]), np.array([CLICKED]), np.zeros(1))
    found = compare(none)
    assert found.results["a"].rates["ctr"] is None and found.results["b"].over["ctr"] is None
    assert as_dict(found)["variants"]["b"]["ctr"] is None
    empty = np.zeros(0, np.int64)
    assert not compare(Logged((), empty, empty, np.zeros((0, 0), np.int32), empty, empty, np.zeros(0))).results


def test_coverage_is_of_as_many_lists_of_each():
    # five items in all; two lists of b have two of them, any two of a at least two and at most three
    found = compare(logged())
    assert found.results["b"].coverage == 2 / 5
    assert found.results["a"].coverage in (2 / 5, 3 / 5)


def test_a_split_that_is_not_what_was_meant_is_told():
    rng = np.random.default_rng(0)

    def mismatch(share: float) -> float:
        variant = (rng.random(4000) >= share).astype(np.int64)
        none = np.zeros(0, np.int64)
        users, items = np.arange(4000), np.zeros((4000, 1), np.int32)
        one = Logged(("a", "b"), users, variant, items, none, none, np.zeros(0))
        found = compare(one, {"a": 0.5, "b": 0.5}).mismatch
        assert found is not None
        return found

    assert mismatch(0.5) > 0.01 and mismatch(0.56) < 1e-6
    # by hand: 3 and 2 users of 5, 2.5 each meant: 2 x 0.5^2 / 2.5 = 0.2, whose p with one degree is .6547
    assert compare(logged(), {"a": 0.5, "b": 0.5}).mismatch == pytest.approx(0.6547, abs=1e-4)
    assert compare(logged(), {"a": 0.5, "b": 0.25, "c": 0.25}).mismatch is not None, "a variant that nobody has"
    assert compare(logged(), {"a": 1.0}).mismatch is None


def test_intervals_hold_what_is_true_about_as_often_as_they_say():
    rng, held, trials = np.random.default_rng(1), np.zeros(2), 100
    for trial in range(trials):
        sides = []
        for chance in (0.1, 0.14):
            users = np.repeat(np.arange(150), 4)
            liking = np.repeat(rng.beta(2, 2 / chance - 2, 150), 4)  # users differ, and each is asked four times
            sides.append((users, (rng.random(600) < liking).astype(float), np.ones(600)))
        difference = apart(sides[1], sides[0], seed=trial, draws=400)
        alone = bootstrap(*sides[0][:2], seed=trial, draws=400)
        held += [difference.low <= 0.04 <= difference.high, alone.low <= 0.1 <= alone.high]
    assert (held >= 87).all(), held


def test_lists_are_alike_by_what_they_have_in_common_and_by_its_order():
    a = np.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [1, 2, -1, -1], [-1] * 4, [1, 2, 3, 4]], np.int32)
    b = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [2, 9, 1, 3], [1, 5, 6, -1], [-1] * 4, [5, 6, 7, 8]], np.int32)
    overlap, tau = likeness(a, b)
    np.testing.assert_allclose(overlap, [1, 1, 3 / 4, 1 / 3, np.nan, 0])
    # the third: 2 1 3 where a has 1 2 3, so of three pairs one is the other way round
    np.testing.assert_allclose(tau, [1, -1, (2 - 1) / 3, np.nan, np.nan, np.nan])
    rng = np.random.default_rng(0)
    one, other = (np.array([rng.permutation(12)[:8] for _ in range(200)], np.int32) for _ in range(2))
    overlap, tau = likeness(one, other)
    for x, y, o, t in zip(one, other, overlap, tau, strict=True):
        both = [i for i in x.tolist() if i in y]
        assert o == len(both) / 8
        known = kendalltau(range(len(both)), [y.tolist().index(i) for i in both]).statistic
        assert t == pytest.approx(known) and len(list(combinations(both, 2))) > 0
    assert [part.shape for part in likeness(np.zeros((0, 3), np.int32), np.zeros((0, 0), np.int32))] == [(0,), (0,)]


def test_shadows_are_held_against_what_was_emitted_to_the_same_event():
    found = compare(
        logged(
            shadows=("s", "t"),
            shadow=np.array([0, 0, 0, 1]),
            beside=np.array([0, 2, 3, 3]),
            shadow_items=np.array([[1, 0], [0, 5], [9, 8], [3, 4]], np.int32),
        )
    ).shadows
    assert list(found) == [("s", "a"), ("s", "b"), ("t", "b")]
    assert found["s", "a"].lists == 2 and found["s", "a"].overlap.mean == pytest.approx((2 / 2 + 1 / 2) / 2)
    assert found["s", "b"].overlap.mean == 0 and found["s", "b"].tau is None
    tau, same = found["s", "a"].tau, found["t", "b"].tau
    assert tau is not None and tau.mean == -1 and same is not None and same.mean == 1
