"""Ranks, what they are worth, and how sure one may be of the difference between two rankers.

Not a protocol: which events are ranked, and against what, is `evaluate.py`'s business. Every metric comes
first per event, so that it can be averaged and resampled by user.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def middle_ranks(
    scores: NDArray[np.floating], targets: NDArray[np.integer], allowed: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The rank, from 1, of each target [B] among the allowed columns of its row, scores [B,N] and allowed
    bool[B,N], or bool[1,N] for all of them.

    Tied scores take the middle of the ranks they share. A target that is not allowed has no rank: inf.
    """
    rows = np.arange(len(scores))
    own = scores[rows, targets][:, None]
    above = ((scores > own) & allowed).sum(1)
    level = ((scores == own) & allowed).sum(1)
    may = allowed[0, targets] if len(allowed) == 1 else allowed[rows, targets]
    return np.where(may, above + (level + 1) / 2, np.inf)


def hits(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """HR@k per event: 1 where the one relevant item is among the first k, else 0. With one relevant item this
    is also recall@k.
    """
    return (ranks <= k).astype(np.float64)


def gains(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """NDCG@k per event: 1 / log2(rank + 1) among the first k, else 0 (one relevant item, so the ideal gain is
    1).
    """
    return np.where(ranks <= k, 1 / np.log2(ranks + 1), 0.0)


def reciprocal(ranks: NDArray[np.float64]) -> NDArray[np.float64]:
    """MRR per event: 1 / rank."""
    return 1 / ranks


def coverage(lists: NDArray[np.integer], items: int) -> float:
    """The share of `items` catalogue rows that occur in any of the lists (-1 = none)."""
    return len(np.unique(lists[lists >= 0])) / items if items else 0.0


def novelty(lists: NDArray[np.integer], counts: NDArray[np.integer]) -> float:
    """The mean of -log2 p over all that is shown, p the share of an item among `counts` i64[N], one added to each."""
    share = (counts + 1) / (counts.sum() + len(counts))
    shown = lists[lists >= 0]
    return float(-np.log2(share[shown]).mean()) if len(shown) else 0.0


def diversity(lists: NDArray[np.integer], vectors: NDArray[np.floating]) -> float:
    """Intra-list diversity: the mean, over lists of two and more, of 1 - cosine between two different items of one
    list. vectors f[N,D], of length 1 or 0.
    """
    there = lists >= 0
    shown = vectors[np.maximum(lists, 0)] * there[..., None]
    n = there.sum(1)
    whole = (shown.sum(1) ** 2).sum(1) - (shown**2).sum((1, 2))
    some = n > 1
    return float((1 - whole[some] / (n[some] * (n[some] - 1))).mean()) if some.any() else 0.0


def precision(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """Precision@k per event: of k shown, the share that is the one relevant item."""
    return hits(ranks, k) / k


def f1(ranks: NDArray[np.float64], k: int) -> NDArray[np.float64]:
    """F1@k per event: the harmonic mean of precision and recall, 2 / (k + 1) on a hit."""
    return 2 * hits(ranks, k) / (k + 1)


MOST_GROUPS = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and the bounds of its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def bootstrap(
    users: NDArray[np.integer],
    values: NDArray[np.float64],
    seed: int,
    draws: int = 2000,
    confidence: float = 0.95,
    weights: NDArray[np.float64] | None = None,
) -> Interval:
    """Percentile interval of the mean over events, resampling whole users: events of one user are not
    independent.

    For two rankers on the same events pass their difference: that is the paired bootstrap, and an interval
    that excludes 0 says that they differ. weights: of each event in the mean, 1 each unless given. More than
    `MOST_GROUPS` users are drawn as that many groups, each of users thrown together at random.
    """
    if not len(values):
        raise ValueError("no events to resample")
    weights = np.ones(len(values)) if weights is None else weights
    means = _means(users, values, weights, np.random.default_rng(seed), draws)
    return _percentiles(float(np.average(values, weights=weights)), means, confidence)


Weighed = tuple[NDArray[np.integer], NDArray[np.float64], NDArray[np.float64]]
"""Users, values and weights of events."""


def apart(these: Weighed, those: Weighed, seed: int, draws: int = 2000, confidence: float = 0.95) -> Interval:
    """Percentile interval of the difference of two means over different users, each resampled for itself."""
    rng = np.random.default_rng(seed)
    mean, other = (float(np.average(values, weights=weights)) for _, values, weights in (these, those))
    means = _means(*these, rng, draws) - _means(*those, rng, draws)
    return _percentiles(mean - other, means, confidence)


def _means(
    users: NDArray[np.integer],
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
    rng: np.random.Generator,
    draws: int,
) -> NDArray[np.float64]:
    """The mean over events, f64[draws], of users drawn with replacement."""
    _, group = np.unique(users, return_inverse=True)
    if group.max() >= MOST_GROUPS:
        group = (rng.permutation(group.max() + 1) % MOST_GROUPS)[group]
    total, count = np.bincount(group, weights * values), np.bincount(group, weights)
    drawn = rng.integers(len(total), size=(draws, len(total)))
    return total[drawn].sum(1) / count[drawn].sum(1)


def _percentiles(mean: float, means: NDArray[np.float64], confidence: float) -> Interval:
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(means, [tail, 100 - tail])
    return Interval(mean, float(low), float(high))
