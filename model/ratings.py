"""What value (a rating, a number of stars) a user will give an item: biases, and a small head on vectors beside them.

Not part of a list, and not the head that is trained beside a recommender (`heads.py`): any engine's item vectors will
do. All of it runs with the events: what is said of a value knows what came before it and nothing else, in what is
learned as in what is asked.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

SHRINK = (1.0, 3.0, 10.0, 30.0)
"""So many events must agree before a bias counts by half: tried for items and for users."""
TASTE_SHRINK = (3.0, 10.0, 30.0, 100.0)
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

    def off(strengths: tuple[float, float]) -> float:
        return float(
            np.abs(running(users[:learned], items[:learned], values[:learned], *strengths)[late] - values[late]).mean()
        )

    return running(users, items, values, *min(product(SHRINK, SHRINK), key=off))


def tastes(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    left: NDArray[np.float64],
    vectors: NDArray[np.floating],
    shrink: float,
) -> NDArray[np.float64]:
    """What each user's taste says of each item, f64[n]: the product of the item's vector with the mean of those that
    the user valued before, each times what biases had `left` of its value, as if `shrink` more had left nothing.
    vectors f[N,D] by item.
    """
    said = np.zeros(len(left))
    sums: dict[int, tuple[NDArray[np.float64], int]] = {}
    nothing = np.zeros(vectors.shape[1])
    for n, (u, i, r) in enumerate(zip(users.tolist(), items.tolist(), left.tolist(), strict=True)):
        total, count = sums.get(u, (nothing, 0))
        said[n] = total @ vectors[i] / (shrink + count)
        sums[u] = total + r * vectors[i], count + 1
    return said


def head(
    users: NDArray[np.integer],
    items: NDArray[np.integer],
    left: NDArray[np.float64],
    vectors: NDArray[np.floating],
    learned: int,
) -> NDArray[np.float64]:
    """What is to be added to the biases of each value, f64[n]: `tastes` times a weight, by least squares over the first
    `learned` of them; of the strengths the one that is off by least on the last of these.
    """
    unit = centred(vectors)
    split = int(learned * (1 - TO_CHOOSE))
    best, found = np.inf, np.zeros(len(left))
    for shrink in TASTE_SHRINK:
        said = tastes(users, items, left, unit, shrink)
        off = float(np.abs(left - weight_of(said[:split], left[:split]) * said)[split:learned].mean())
        if off < best:
            best, found = off, weight_of(said[:learned], left[:learned]) * said
    return found


def weight_of(said: NDArray[np.float64], left: NDArray[np.float64]) -> float:
    """By how much `said` is to be multiplied to come nearest to `left`, in squares."""
    return float(said @ left / max(said @ said, 1e-12))


def centred(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    """Item vectors without their mean, each brought to length 1."""
    moved = vectors.astype(np.float64) - vectors.mean(0)
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)
