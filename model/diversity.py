"""Re-ranking for diversity: what is like the items above it gives way. Off unless it is set.

Not a rule (it forbids nothing) and not a change of what an item scores: it says in which order the best of a user's
candidates are taken, before rules fill the places. Names: B users, M candidates, P of them looked at, K taken, D the
length of a vector.

Both methods take one item after the other, the one with the greatest value. Scores are nats, so `strength` is too:

    mmr   value = score - strength x the greatest cosine to an item taken before (Carbonell and Goldstein, 1998);
          their lambda is 1 / (1 + strength)
    dpp   value = score + strength x log d^2, d^2 the squared length of what is left of the item's vector, at length 1,
          without those taken before: the fast greedy MAP of a determinantal point process (Chen, Zhang and Zhou, 2018);
          their theta is 1 / (1 + strength)

A value never rises while items are taken, so those at which items were taken descend: they are utilities in the new
order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

LEAST = 1e-6
"""Of d^2: what is the same as something above it is -14 x strength away, not infinitely."""
APART = 1e-3
"""Nats between the last of the pool and the first beyond it."""


class DiversityConfig(BaseModel):
    """How much a list is to differ in itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["none", "mmr", "dpp"] = "none"
    strength: float = Field(
        default=0.5, ge=0, description="mmr: nats that an item loses which is the same as one above it; dpp: see there"
    )
    pool: int = Field(default=50, ge=1, description="of a user's best candidates so many are looked at")


def reranked(
    rows: NDArray[np.int32],
    scores: NDArray[np.floating],
    items: NDArray[np.float32],
    places: int,
    config: DiversityConfig,
) -> NDArray[np.float32]:
    """Utilities f32[B,M] by whose order lists of so many places are diverse, from scores f[B,M] (nats; -inf = not
    there) of catalogue rows i32[B,M] and item vectors f32[N,D]. Those beyond the pool follow it in their own order.
    """
    size = min(config.pool, rows.shape[1])
    if config.method == "none" or not size:
        return scores.astype(np.float32)
    pool = np.argpartition(-scores, size - 1, axis=1)[:, :size] if size < rows.shape[1] else _all_of(rows)
    # equal values are taken by catalogue row, wherever candidates stand
    pool = np.take_along_axis(pool, np.argsort(np.take_along_axis(rows, pool, 1), axis=1), 1)
    like = _Cosines(items.take(np.take_along_axis(rows, pool, 1), 0))
    taken = np.take_along_axis(scores, pool, 1).astype(np.float32)
    values = (_mmr if config.method == "mmr" else _dpp)(like, taken, min(places, size), config.strength)
    out = scores.astype(np.float32)
    np.put_along_axis(out, pool, -np.inf, 1)
    behind, top = _least(values), out.max(1, initial=-np.inf)
    out -= np.where(np.isfinite(top), np.maximum(top - behind + APART, 0), 0)[:, None].astype(np.float32)
    np.put_along_axis(out, pool, values, 1)
    return out


def _all_of(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.broadcast_to(np.arange(rows.shape[1]), rows.shape)


def _least(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The least finite value of each row, f32[B]; inf where there is none."""
    return np.where(np.isfinite(values), values, np.inf).min(1)


class _Cosines:
    """Of vectors f32[B,P,D] with each other. All products at once: one costs less than one a step, and of a copy less
    than of a view, which numpy takes for a symmetric product and fills in by halves.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        self._products = np.matmul(vectors, np.ascontiguousarray(vectors.transpose(0, 2, 1)))
        self._inverse = 1 / np.maximum(np.sqrt(np.diagonal(self._products, axis1=1, axis2=2)), 1e-9)

    def to(self, users: NDArray[np.int64], one: NDArray[np.int64]) -> NDArray[np.float32]:
        """Of all with one of each user's, f32[B,P]."""
        return self._products[users, one] * self._inverse * self._inverse[users, one][:, None]


def _mmr(like: _Cosines, scores: NDArray[np.float32], places: int, strength: float) -> NDArray[np.float32]:
    """Values f32[B,P] at which items were taken, or of what is left after so many. like: how alike they are."""
    left, out = scores.copy(), scores.copy()
    users, most = np.arange(len(scores)), np.zeros(scores.shape, np.float32)
    for _ in range(places):
        value = left - strength * most
        best = value.argmax(1)
        out[users, best] = _taken(value, out, users, best)
        left[users, best] = -np.inf
        most = np.maximum(most, like.to(users, best))
    return np.where(np.isfinite(left), left - strength * most, out)


def _dpp(like: _Cosines, scores: NDArray[np.float32], places: int, strength: float) -> NDArray[np.float32]:
    """As `_mmr`. In the names of the paper c_BKP and d2_BP grow by one row of Cholesky for each item taken."""
    left, out = scores.copy(), scores.copy()
    users = np.arange(len(scores))
    d2_BP = np.ones(scores.shape, np.float32)
    c_BKP = np.zeros((len(scores), places, scores.shape[1]), np.float32)
    for k in range(places):
        value = left + strength * np.log(d2_BP)
        best = value.argmax(1)
        out[users, best] = _taken(value, out, users, best)
        left[users, best] = -np.inf
        known = np.matmul(c_BKP[users, :k, best][:, None], c_BKP[:, :k])[:, 0]
        c_BKP[:, k] = (like.to(users, best) - known) / np.sqrt(d2_BP[users, best])[:, None]
        d2_BP = np.maximum(d2_BP - c_BKP[:, k] ** 2, LEAST)
    return np.where(np.isfinite(left), left + strength * np.log(d2_BP), out)


def _taken(
    value: NDArray[np.floating], out: NDArray[np.float32], users: NDArray[np.int64], best: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The value of what is taken; where a user has nothing left, column `best` keeps what it has."""
    return np.where(np.isfinite(value[users, best]), value[users, best], out[users, best])
