"""Candidates of a list, in numpy: how items are compared, what is found in several ways put together, and more of what
a list is to have.

Not where they are found (`near.py`, `online.py`), and not their order. Names: B users, N items of the catalogue, M
candidates, D the length of a vector, -1 = none.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from model.mix import Mix
from model.near import Compare, best_of
from model.online import OnlineScores
from model.peruser import Shown
from model.rules import SPARE, wanted
from model.terms import Terms

COMPARED = 1 << 16
"""Items whose vectors are gathered at a time where many are compared."""


def comparing(vectors: torch.Tensor, items: torch.Tensor, in_memory: NDArray[np.float32]) -> Compare:
    """Inner products of users, by their number in vectors f32[B,D], with items f32[N,D], by catalogue row; in_memory:
    the items as numpy has them.
    """

    def compare(users: NDArray[np.int64], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        out = np.empty((len(users), len(rows)), np.float32)
        mine = vectors[torch.from_numpy(users).to(vectors.device)]
        for at in range(0, len(rows), COMPARED):
            part = rows[at : at + COMPARED]
            if items.is_cpu:
                np.matmul(mine.numpy(), in_memory[part].T, out=out[:, at : at + COMPARED])
            else:
                theirs = items[torch.from_numpy(part).to(items.device)]
                out[:, at : at + COMPARED] = (mine @ theirs.T).cpu().numpy()
        return out

    return compare


def more_of_groups(
    terms: Terms, found: NDArray[np.integer], shown: Shown, compare: Compare, online: OnlineScores, mix: Mix
) -> list[NDArray[np.int64]]:
    """More candidates, i64[B,K] each, for users among whose candidates i[B,M] there are too few of a group that
    their list is to have: the best by vector and popularity.
    """
    more = []

    def compared(users: NDArray[np.int64], rows: NDArray[np.int32]) -> NDArray[np.float32]:
        said = (mix.online * np.log(mix.popular * online.popularity[rows])).astype(np.float32)
        return np.float32(mix.neural) * compare(users, rows) + said

    for group, least in wanted(terms):
        if not least.any():
            continue
        have = (group.has(found) & (found >= 0)).sum(1)
        short = (least > 0) & (have < least + SPARE)
        if not short.any():
            continue
        member = group.has(slice(None))
        k = int(least[short].max()) + SPARE
        best = np.full((len(found), k), -1, np.int64)
        for mask, users in shown.groups():
            rows = np.flatnonzero(mask & member).astype(np.int32)
            if len(users := users[short[users]]):
                best[users] = best_of(compared, rows, shown, users, k, terms.one_of)
        more.append(best)
    return more


def distinct(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Each row's distinct values without -1, descending, padded with -1 to the longest."""
    ranked = -np.sort(-rows, axis=1)
    ranked[:, 1:][ranked[:, 1:] == ranked[:, :-1]] = -1
    ranked = -np.sort(-ranked, axis=1)
    return ranked[:, : int((ranked >= 0).sum(1).max(initial=0))]
