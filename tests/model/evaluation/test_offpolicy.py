"""Values of policies from what another one showed, against values that are known."""

import numpy as np
import pytest

from model.arrange import arrange
from model.evaluation.offpolicy import Logged, values, weights
from model.explore import ExploreConfig
from model.terms import Quota, Terms

M, PLACES = 10, 3
SHOWING = ExploreConfig(method="epsilon", epsilon=0.4, pool=5, new_items=0.1)
TARGETS = {
    "greedy": ExploreConfig(),
    "epsilon=0.1": ExploreConfig(method="epsilon", epsilon=0.1),
    "softmax=0.5+new=0.2": ExploreConfig(method="softmax", temperature=0.5, new_items=0.2),
}


class Shop:
    """Lists with a pin, a quota and groups, and people who click at some items rather than at others, lower places
    less.
    """

    def __init__(self, seed: int, lists: int) -> None:
        rng = np.random.default_rng(seed)
        self.lists = lists
        self.users = rng.integers(0, lists // 8, lists)
        self.utility = rng.normal(size=(lists, M))
        self.new = np.tile(np.arange(M) >= 7, (lists, 1))
        self.liked = np.linspace(0.05, 0.7, M)[::-1]
        pins = np.full((lists, PLACES), -1, np.int32)
        pins[::4, 1] = 4
        sold = Quota(np.arange(M) % 2 == 0, np.full(lists, 1, np.int32), np.full(lists, 2, np.int32))
        groups = np.array([0, 0, *[-1] * (M - 2)], np.int32)
        self.terms = Terms(np.full(lists, PLACES, np.int32), pins, (sold,), one_of=groups)
        self.rng = rng

    def lists_of(self, policy: ExploreConfig):
        rows = np.tile(np.arange(M, dtype=np.int32), (self.lists, 1))
        seeds = self.rng.integers(0, 2**63, self.lists).astype(np.uint64)
        policy = policy.model_copy(update={"pool": SHOWING.pool})
        return arrange(rows, self.utility, self.terms, (), policy, self.new, seeds)

    def clicked(self, column: np.ndarray) -> np.ndarray:
        """How likely a click is at each place."""
        return np.where(column >= 0, self.liked[column], 0) / (1 + np.arange(PLACES))

    def logged(self) -> Logged:
        shown = self.lists_of(SHOWING)
        p = self.clicked(shown.column)
        reward = (self.rng.random(p.shape) < p).astype(float)
        told = shown.explored
        assert told is not None
        pool = np.full(self.lists, told.pool)
        return Logged(
            self.users, shown.propensity.astype(float), pool, told.utilities, told.new, told.free, told.at, reward
        )

    def truth(self, policy: ExploreConfig, times: int = 5) -> float:
        return float(np.mean([self.clicked(self.lists_of(policy).column).sum(1).mean() for _ in range(times)]))


def test_values_that_are_known_are_within_their_intervals():
    """Nineteen times in twenty, as they say; twenty shops of 2,000 lists."""
    inside: dict[tuple[str, str], int] = {}
    off: dict[tuple[str, str], list[float]] = {}
    for seed in range(20):
        shop = Shop(seed, 2000)
        for name, value in values(shop.logged(), TARGETS).items():
            truth = shop.truth(TARGETS.get(name, SHOWING))
            for kind in ("ips", "snips"):
                found = getattr(value, kind)
                at = name, kind
                inside[at] = inside.get(at, 0) + (found.low <= truth <= found.high)
                off.setdefault(at, []).append(found.mean / truth - 1)
    assert min(inside.values()) >= 16, inside
    for at, errors in off.items():
        assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(len(errors)), at
        assert abs(np.mean(errors)) < 0.02, at


def test_a_policy_is_worth_what_it_showed_itself():
    logged = Shop(0, 500).logged()
    found = values(logged, {"same": SHOWING})
    np.testing.assert_allclose(weights(logged, SHOWING), 1, rtol=1e-5)
    assert found["same"].ips.mean == pytest.approx(found["logged"].ips.mean, rel=1e-5)
    assert found["logged"].ips.mean == pytest.approx(logged.reward.sum(1).mean())
    assert found["logged"].effective == pytest.approx(500)


def test_weights_by_hand():
    """A pool of two, 1 was drawn first with half of epsilon; nothing was left to draw but 0; the last is a pin."""
    logged = Logged(
        users=np.array([0]),
        propensity=np.array([[0.2, 1.0, 1.0]]),
        pool=np.array([2]),
        utilities=np.array([[1.0, 0.0]], np.float32),
        new=np.zeros((1, 2), bool),
        free=np.array([[[True, True], [True, False], [False, False]]]),
        at=np.array([[1, 0, -1]], np.int32),
        reward=np.array([[0.0, 1.0, 0.0]]),
    )
    assert weights(logged, ExploreConfig()).tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(weights(logged, ExploreConfig(method="epsilon", epsilon=0.1)), [[0.25, 0.25, 0.25]])
    uniform = ExploreConfig(method="epsilon", epsilon=1.0)
    np.testing.assert_allclose(weights(logged, uniform), [[2.5, 2.5, 2.5]])
    value = values(logged, {"uniform": uniform}, cap=2.0)["uniform"]
    assert (value.ips.mean, value.snips.mean, value.capped.mean) == pytest.approx((2.5, 1.0, 2.0))
