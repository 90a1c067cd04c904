"""How much of exact search another index finds. Only the measure: what to do about a poor one is the caller's
to say.
"""

from __future__ import annotations

import numpy as np

from index.base import Index, Vectors

TIE = 1e-5


class IndexBuildError(RuntimeError):
    """A built index finds too little of what exact search finds: the one in use is to be kept."""


def recall_at_k(index: Index, reference: Index, queries: Vectors, k: int) -> float:
    """The share of the k nearest, over all queries f32[Q,d], that `index` returns; 1.0 where there are none.

    A neighbour counts by its score: it must reach the reference's k-th (up to 1e-5 of it), so items with
    equal vectors may stand for each other.
    """
    wanted_scores, wanted = reference.search(queries, k)
    scores, found = index.search(queries, k)
    kth = np.where(wanted >= 0, wanted_scores, np.finfo(np.float32).max).min(axis=1, keepdims=True)
    hits = ((found >= 0) & (scores >= kth - TIE * np.abs(kth))).sum()
    total = (wanted >= 0).sum()
    return float(min(hits / total, 1.0)) if total else 1.0


def sufficient_recall(index: Index, reference: Index, queries: Vectors, k: int, least: float) -> float:
    """`recall_at_k`. Raises IndexBuildError where it is below `least`."""
    recall = recall_at_k(index, reference, queries, k)
    if recall < least:
        raise IndexBuildError(f"recall@{k} is {recall:.3f}, below {least}")
    return recall
