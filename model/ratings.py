"""What value (a rating, a number of stars) a user will give an item: biases, and a small head on vectors over them.

Not part of a list, and not the head that is trained beside a recommender (`heads.py`): any engine's vectors will do.
Biases run with the events, so a prediction knows what came before it and nothing else, in what is learned as in what
is asked. The head is a ridge regression of what biases leave on the product of user and item vector and on the item's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

SHRINK = (1.0, 3.0, 10.0, 30.0)
"""So many events must agree before a bias counts by half: tried for items and for users."""
RIDGE = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
TO_CHOOSE = 0.2
"""Share of what is learned, the last, by which a strength is chosen."""


def running(
    users: NDArray[np.integer], items: NDArray[np.integer], values: NDArray[np.floating], of_item: float, of_user: float
) -> NDArray[np.float64]:
    """What mean and biases say of each value from those before it, f64[n]; the first is said to be what it is.

    An item's bias is the mean of how far its values were from the mean of all at the time, a user's of how far theirs
    were from that and the item's bias; both as if `of_item` (`of_user`) values more were just average.
    """
    said = np.empty(len(values))
    total, mean = 0.0, float(values[0]) if len(values) else 0.0
    by_item: dict[int, tuple[float, int]] = {}
    by_user: dict[int, tuple[float, int]] = {}
    for n, (u, i, r) in enumerate(zip(users.tolist(), items.tolist(), values.tolist(), strict=True)):
        item_sum, item_count = by_item.get(i, (0.0, 0))
        user_sum, user_count = by_user.get(u, (0.0, 0))
        expected = mean + item_sum / (of_item + item_count)
        said[n] = expected + user_sum / (of_user + user_count)
        by_item[i] = item_sum + r - mean, item_count + 1
        by_user[u] = user_sum + r - expected, user_count + 1
        total += r
        mean = total / (n + 1)
    return said


def biases(
    users: NDArray[np.integer], items: NDArray[np.integer], values: NDArray[np.floating], learned: int
) -> NDArray[np.float64]:
    """`running` with the strengths that are off by least on the last of the first `learned` values."""
    late = slice(int(learned * (1 - TO_CHOOSE)), learned)
    first = tuple(column[:learned] for column in (users, items, values))

    def off(strengths: tuple[float, float]) -> float:
        return float(np.abs(running(*first, *strengths)[late] - values[late]).mean())

    return running(users, items, values, *min(product(SHRINK, SHRINK), key=off))


@dataclass(frozen=True, eq=False)
class Head:
    """Weights f64[2D+1] of `features`."""

    weights: NDArray[np.float64]

    def __call__(self, made: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is to be added to the biases, f64[n]."""
        return made @ self.weights

    @staticmethod
    def fit(made: NDArray[np.float64], left: NDArray[np.float64], ridge: Sequence[float] = RIDGE) -> Head:
        """From features f64[n,F] in time order and what biases left of each value; of the ridges the one that is off by
        least on the last of them.
        """
        split = int(len(made) * (1 - TO_CHOOSE))

        def off(strength: float) -> float:
            weights = _solved(made[:split], left[:split], strength)
            return float(np.abs(made[split:] @ weights - left[split:]).mean())

        return Head(_solved(made, left, min(ridge, key=off)))


def features(users: NDArray[np.floating], items: NDArray[np.floating]) -> NDArray[np.float64]:
    """User and item vectors f[n,D], each brought to length 1, as f64[n,2D+1]: their product, the item's, and 1."""
    u, v = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9) for x in (users, items))
    return np.concatenate([u * v, v, np.ones((len(u), 1))], axis=1).astype(np.float64)


def _solved(made: NDArray[np.float64], left: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    return np.linalg.solve(made.T @ made + ridge * np.eye(made.shape[1]), made.T @ left)
