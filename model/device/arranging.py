"""From scored candidates to lists, in tensors: the order, what is like what is above it, and the places one by one.

The same as `diversity.py` and `arrange.py` where nothing is drawn, and the reasons for it are told there. A step for
each place and none for each user; whoever a step does not concern is masked, so that nothing waits for the device.
Names: B users, M candidates, P of them looked at, n places, Q quotas, D the length of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from model.diversity import APART, LEAST, DiversityConfig


class Limits(NamedTuple):
    """`Terms` as tensors, and bounds on exposure among the quotas: places i64[B], pinned i64[B,n], member bool[Q,N],
    least and most i64[Q,B], one_of i64[N] where variants share a place; wanting: whether any least is above 0, pins:
    whether anything is pinned, both of which the host knows.
    """

    places: Tensor
    pinned: Tensor
    member: Tensor
    least: Tensor
    most: Tensor
    one_of: Tensor | None
    wanting: bool
    pins: bool


def best_first(rows: Tensor, scores: Tensor) -> Tensor:
    """Columns by scores f32[B,M], best first, ties by catalogue row i64[B,M]: i64[B,M]. See `peruser.best_first`."""
    bits = (0 - scores).view(torch.int32)
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    return ((rising << 32) + rows).argsort(1)


def reranked(rows: Tensor, scores: Tensor, items: Tensor, places: int, config: DiversityConfig) -> Tensor:
    """`diversity.reranked`: utilities f32[B,M] from scores f32[B,M] of catalogue rows i64[B,M] and vectors f32[N,D]."""
    size = min(config.pool, rows.shape[1])
    if config.method == "none" or not size:
        return scores
    pool = best_first(rows, scores)[:, :size]
    pool = pool.gather(1, rows.gather(1, pool).argsort(1))  # equal values are taken by catalogue row
    vectors = items[rows.gather(1, pool).clamp(min=0)]
    like = vectors @ vectors.mT
    inverse = 1 / like.diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-9)
    like = like * inverse[:, :, None] * inverse[:, None]
    taking = _mmr if config.method == "mmr" else _dpp
    values = taking(like, scores.gather(1, pool), min(places, size), config.strength)
    out = scores.scatter(1, pool, -torch.inf)
    behind = torch.where(values.isfinite(), values, torch.inf).amin(1)
    top = out.amax(1)
    above = torch.where(top.isfinite(), (top - behind + APART).clamp(min=0), 0)
    return (out - above[:, None]).scatter(1, pool, values)


def _mmr(like: Tensor, scores: Tensor, places: int, strength: float) -> Tensor:
    """Values f32[B,P] at which items were taken, or of what is left after so many; like f32[B,P,P]: cosines."""
    left, out, most = scores.clone(), scores.clone(), torch.zeros_like(scores)
    for _ in range(places):
        best = _take(left - strength * most, left, out)
        most = torch.maximum(most, _of(like, best))
    return torch.where(left.isfinite(), left - strength * most, out)


def _dpp(like: Tensor, scores: Tensor, places: int, strength: float) -> Tensor:
    """As `_mmr`."""
    left, out, d2_BP = scores.clone(), scores.clone(), torch.ones_like(scores)
    c_BKP = scores.new_zeros(len(scores), places, scores.shape[1])
    for k in range(places):
        best = _take(left + strength * d2_BP.log(), left, out)
        c_BK = c_BKP[:, :k].gather(2, best[:, None].expand(-1, k, -1))
        known = (c_BK * c_BKP[:, :k]).sum(1)
        c_BKP[:, k] = (_of(like, best) - known) / d2_BP.gather(1, best).sqrt()
        d2_BP = (d2_BP - c_BKP[:, k] ** 2).clamp(min=LEAST)
    return torch.where(left.isfinite(), left + strength * d2_BP.log(), out)


def _take(value: Tensor, left: Tensor, out: Tensor) -> Tensor:
    """Takes the best by value f32[B,P] from what is `left` into `out`, where there is one; its column, i64[B,1]."""
    most, best = value.max(1, keepdim=True)
    out.scatter_(1, best, torch.where(most.isfinite(), most, out.gather(1, best)))
    left.scatter_(1, best, -torch.inf)
    return best


def _of(like: Tensor, one: Tensor) -> Tensor:
    """The rows of like f32[B,P,P] for one of each user's, i64[B,1]: f32[B,P]."""
    return like.gather(1, one[:, :, None].expand(-1, -1, like.shape[2]))[:, 0]


def filled(rows: Tensor, utility: Tensor, limits: Limits) -> Tensor:
    """Columns i64[B,n] of lists from catalogue rows i64[B,M] and utilities f32[B,M], -inf = not there; -1 behind the
    last. Pins must be among the rows.
    """
    order = best_first(rows, utility)
    filling = _Filling.of(rows.gather(1, order), utility.gather(1, order), limits)
    for place in range(limits.pinned.shape[1]):
        filling.fill(place)
    there = filling.column >= 0
    column = torch.where(there, order.gather(1, filling.column.clamp(min=0)), -1)
    return column.gather(1, (~there).to(torch.uint8).argsort(stable=True, dim=1))  # a pin behind the last moves up


@dataclass(slots=True, eq=False)
class _Filling:
    """Lists that are being filled, over candidates that stand best first. alike i64[B,M]: the same where two share a
    place; member bool[Q,B,M]; need, room i64[Q,B]: how many are still wanted, and can be; free, open bool[B,M], [B,n]:
    candidates and places; left i64[B,n]: places that a list has beside its pins from each on; column i64[B,n].
    """

    alike: Tensor
    member: Tensor
    need: Tensor
    room: Tensor
    wanting: bool
    free: Tensor
    left: Tensor
    open: Tensor
    column: Tensor

    @staticmethod
    def of(rows: Tensor, utility: Tensor, limits: Limits) -> _Filling:
        """With the pins at their places."""
        at, alone = rows.clamp(min=0), -1 - torch.arange(rows.shape[1], device=rows.device)
        alike = alone.expand_as(rows)
        if limits.one_of is not None:
            group = limits.one_of[at]
            alike = torch.where(group >= 0, group, alone)
        member = limits.member[:, at]
        free = utility.isfinite() & ~((limits.most <= 0)[..., None] & member).any(0)
        place = torch.arange(limits.pinned.shape[1], device=rows.device)
        inside = place < limits.places[:, None]
        pinned = torch.where(inside, limits.pinned, -1)
        beside = inside & (pinned < 0)
        left = beside.long().flip(1).cumsum(1).flip(1)
        column = torch.full_like(pinned, -1)
        made = _Filling(
            alike, member, limits.least.clone(), limits.most.clone(), limits.wanting, free, left, inside, column
        )
        for number in range(pinned.shape[1] if limits.pins else 0):
            same = (rows == pinned[:, number, None]) & (pinned[:, number, None] >= 0)
            made._put(same, number)
        made.open = inside & (made.column < 0)
        return made

    def fill(self, place: int) -> None:
        """One place of every list that still has one there."""
        free = self._wanted(self.left[:, place]) if self.wanting else self.free
        self._put(free & self.open[:, place, None], place)

    def _put(self, able: Tensor, place: int) -> None:
        """The first that is able to, bool[B,M], stands at a place, where there is one."""
        wide = able.shape[1]
        number, column = torch.where(able, wide - torch.arange(wide, device=able.device), 0).max(1, keepdim=True)
        put = number > 0
        self.column[:, place, None] = torch.where(put, column, self.column[:, place, None])
        self.free &= ~(put & (self.alike == self.alike.gather(1, column)))
        if not len(self.member):
            return
        taken = self.member.gather(2, column.expand(len(self.member), -1, -1))[..., 0] & put[:, 0]
        self.room -= taken.long()
        self.need -= taken.long()
        full = taken & (self.room <= 0)
        self.free &= ~(full[..., None] & self.member).any(0)

    def _wanted(self, left: Tensor) -> Tensor:
        """See `arrange._Filling._wanted`; left i64[B]."""
        free, able = self.free, self.free & self.member
        must = torch.minimum(self.need.clamp(min=0), able.sum(2))
        wanted = (self.member & (must > 0)[..., None]).sum(0)
        so_many = (must.sum(0) - (left - 1)).clamp(min=0)
        most = torch.where(free, wanted, 0).amax(1)
        free = free & (wanted >= torch.minimum(so_many, most)[:, None])
        others = must.sum(0) - must
        tight = ((others > 0) & (self.room <= others)).any(0)
        return torch.where(tight[:, None], self._spared(free, able, must), free)

    def _spared(self, free: Tensor, able: Tensor, must: Tensor) -> Tensor:
        """See `arrange._Filling._spared`."""
        by_user = self.member.transpose(0, 1).float()
        outside = able.transpose(0, 1).float() @ (1 - by_user.mT)
        kept = (must.T[:, :, None] - outside).clamp(min=0)
        kept.diagonal(dim1=1, dim2=2).zero_()
        helps = ((kept > 0).float().mT @ by_user).transpose(0, 1) > 0
        shut = ((self.room <= kept.sum(1).T)[..., None] & self.member & ~helps).any(0)
        spared = free & ~shut
        return torch.where(spared.any(1, keepdim=True), spared, free)
