"""What counts say of the items of each user, in tensors: what follows their windows, and what they come back to.

Not where counts come from, and not popularity of all alike; the definitions are those of `online.py`. Names: B users, K
interactions of a window, N items of the catalogue, F numbers in all, -1 = none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.device.arriving import carried
from model.online import OnlineScores
from model.peruser import PerUser


@dataclass(frozen=True, eq=False)
class Numbers:
    """keys i64[F], ascending and distinct, user x N + catalogue row, and a number of each, f32[F]."""

    items: int
    keys: Tensor
    values: Tensor

    @staticmethod
    def of(numbers: PerUser, device: torch.device) -> Numbers:
        """From the host."""
        return Numbers(numbers.items, *carried([numbers.keys, numbers.values], device))

    def at(self, rows: Tensor) -> Tensor:
        """The numbers of catalogue rows i64[B,M], row b user b's, f32[B,M]; 0 where there is none."""
        if not len(self.keys):
            return torch.zeros(rows.shape, device=rows.device)
        wanted = torch.arange(len(rows), device=rows.device)[:, None] * self.items + rows
        place = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == wanted, self.values[place], 0)


@dataclass(frozen=True, eq=False)
class Said:
    """What the counts say beside popularity: `related` and `own` (what is come back to) of the same keys."""

    related: Numbers
    own: Numbers


class Counted:
    """Scores from counts, on a device."""

    def __init__(self, online: OnlineScores, device: torch.device) -> None:
        self.online = online
        steps = online.steps
        columns = [steps.indptr.astype(np.int64), steps.indices.astype(np.int32), steps.data, online.popularity]
        self._ends, self._rows, self._shares, self.popularity = carried(columns, device)

    def said(self, window: Tensor | Numbers, history: Tensor, repeat_recency: float | None) -> Said:
        """Of windows i64[B,K], or what follows them where it is known, and histories i64[B,L], whose own items count
        unless repeat_recency is None; catalogue rows, -1 = none, newest last.
        """
        n = len(self.popularity)
        if isinstance(window, Numbers):
            follows, follow = window.keys, window.values
        else:
            follows, follow = self._followers(window)
        returns, weight = _returning(history, n, repeat_recency)
        keys, which = torch.unique(torch.cat([follows, returns]), return_inverse=True)
        none = torch.zeros(len(keys), device=keys.device)
        related = none.index_add(0, which[: len(follows)], follow)
        own = none.index_add(0, which[len(follows) :], weight)
        return Said(Numbers(n, keys, related), Numbers(n, keys, own))

    def _followers(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and shares of all that followed an item of each window, i64[F] and f32[F]; a key may be there again."""
        n, wide = len(self.popularity), window.shape[1]
        there, at = (window >= 0).flatten(), window.clamp(min=0).flatten()
        first = self._ends[at]
        count = torch.where(there, self._ends[at + 1] - first, 0)
        which = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        place = torch.arange(len(which), device=which.device) - (count.cumsum(0) - count)[which] + first[which]
        share = self._shares[place] * recent(window, self.online.params.recency).flatten()[which]
        return which // wide * n + self._rows[place], share


def _returning(history: Tensor, n: int, recency: float | None) -> tuple[Tensor, Tensor]:
    if recency is None:
        return history.new_zeros(0), torch.zeros(0, device=history.device)
    users = torch.arange(len(history), device=history.device)[:, None]
    there = history >= 0
    return (users * n + history)[there], recent(history, recency)[there]


def recent(rows: Tensor, recency: float) -> Tensor:
    """recency^(places from the newest) over what is there of i64[B,K], f32[B,K], each row summing to 1 (or 0)."""
    there = rows >= 0
    newer = there.long().flip(1).cumsum(1).flip(1) - 1
    weights = torch.where(there, torch.pow(recency, newer.float()), 0)
    return weights / weights.sum(1, keepdim=True).clamp(min=1e-9)
