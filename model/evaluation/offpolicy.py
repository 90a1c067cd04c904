"""What another way to explore would have been worth, from lists that were shown and what came of them.

Not a protocol (nothing is learned or ranked) and not a test of two variants, which needs no weights. Names: L lists, n
places, W columns that could be drawn (`model.arrange.Explored`).

A list is worth the sum of what came of its items. What comes of an item may depend on those above it and not on those
below, so an item's weight is how much likelier the other policy was to show the list down to there: the product of
target / logged propensity over the places up to its own (McInerney et al., 2020; for one place the estimator of Horvitz
and Thompson, 1952). Where a policy would never have shown what was shown the weight is 0; where the logging policy
never shows what the target would, nothing can be told, and `effective` says so.

    ips     the mean of weight x reward: right on average, and wide
    capped  the same with weights of `cap` at most: narrower, and too low
    snips   weight x reward over the sum of weights, place by place (Swaminathan and Joachims, 2015): a little off on
            average, and usually nearest
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.explore import ExploreConfig, chances
from model.metrics import MOST_GROUPS, Interval

CAP = 10.0
CHUNK = 20_000
"""Lists looked at together."""


@dataclass(frozen=True, eq=False)
class Logged:
    """L lists as they were shown: users i64[L]; propensity f64[L,n]; pool i64[L], utilities f32[L,W], new bool[L,W],
    free bool[L,n,W], at i32[L,n] as `Explored` has them; reward f64[L,n]: what came of each item, 0 behind the last.
    """

    users: NDArray[np.int64]
    propensity: NDArray[np.float64]
    pool: NDArray[np.int64]
    utilities: NDArray[np.float32]
    new: NDArray[np.bool_]
    free: NDArray[np.bool_]
    at: NDArray[np.int32]
    reward: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class Value:
    """The worth of a list under a policy. effective: so many lists would tell as much if they were the policy's own
    (Kish, 1965), the fewest of all places.
    """

    ips: Interval
    snips: Interval
    capped: Interval
    effective: float


def values(logged: Logged, policies: Mapping[str, ExploreConfig], cap: float = CAP, seed: int = 0) -> dict[str, Value]:
    """By name: the policies', and `logged`, what was shown as it is."""
    found = {"logged": _value(logged, np.ones(logged.reward.shape), cap, seed)}
    for name, policy in policies.items():
        found[name] = _value(logged, weights(logged, policy), cap, seed)
    return found


def weights(logged: Logged, policy: ExploreConfig) -> NDArray[np.float64]:
    """How much likelier a policy is to show each list down to each place, f64[L,n]. Where nothing was drawn, any policy
    would have shown the same.
    """
    ratio = np.ones(logged.reward.shape)
    column = np.arange(logged.utilities.shape[1])
    for first in range(0, len(logged), CHUNK):
        part = slice(first, first + CHUNK)
        at = logged.at[part]
        lists, place = np.nonzero(at >= 0)
        if not len(lists):
            continue
        free, pool = logged.free[part][lists, place], column < logged.pool[part][lists, None]
        p = chances(logged.utilities[part][lists], free, pool, logged.new[part][lists], policy)
        target = p[np.arange(len(lists)), at[lists, place]]
        ratio[part][lists, place] = target / logged.propensity[part][lists, place]
    return np.cumprod(ratio, axis=1, dtype=np.float64)


def _value(logged: Logged, weight: NDArray[np.float64], cap: float, seed: int) -> Value:
    lists, reward = np.ones_like(weight), logged.reward
    many = weight.sum(0) ** 2 / np.maximum((weight**2).sum(0), 1e-300)
    return Value(
        _interval(logged.users, weight * reward, lists, seed),
        _interval(logged.users, weight * reward, weight, seed),
        _interval(logged.users, np.minimum(weight, cap) * reward, lists, seed),
        float(many.min(initial=len(logged))),
    )


def _interval(
    users: NDArray[np.int64], worth: NDArray[np.float64], of: NDArray[np.float64], seed: int, draws: int = 2000
) -> Interval:
    """Summed over places, the ratio of the sums over lists f64[L,n] each, and its 95% percentile interval, whole users
    resampled: what comes of one user's lists is not independent. At most `MOST_GROUPS` groups of them are drawn.
    """
    rng = np.random.default_rng(seed)
    _, group = np.unique(users, return_inverse=True)
    if len(group) and group.max() >= MOST_GROUPS:
        group = (rng.permutation(group.max() + 1) % MOST_GROUPS)[group]
    groups = int(group.max(initial=-1)) + 1
    summed = [np.stack([np.bincount(group, column, groups) for column in x.T], axis=1) for x in (worth, of)]
    often = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(np.float64)

    def ratio(times: NDArray[np.float64]) -> NDArray[np.float64]:
        top, bottom = times @ summed[0], times @ summed[1]
        return np.where(bottom > 0, top / np.where(bottom > 0, bottom, 1), 0).sum(-1)

    low, high = np.percentile(ratio(often), [2.5, 97.5])
    return Interval(float(ratio(np.ones(groups))), float(low), float(high))
