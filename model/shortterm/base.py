"""What every short-term encoder is: item vectors with their actions and times in, one vector a position out.

Not aware of catalogues or profiles. The rules, held by one contract test over all encoders:

- windows are left-padded, newest last; padding changes nothing, and an empty window is zero
- a position sees itself and what is older, so that training may read every position at once
- `last` gives the newest position alone, and costs no more than it must

Names: B rows, K positions, D the length of a vector.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_BUCKETS = 26
ACTIONS = 16
NEWEST = 5
"""Interactions that a window is read without, one at a time, where it is to be said what each of them gives."""


def time_bucket(ms: Tensor) -> Tensor:
    """floor(log2(1 + seconds)) of a time span in ms, 0..25 (25 is a year and more); spans below zero count as
    zero.
    """
    return torch.log2(ms.clamp(min=0).float() / 1000 + 1).floor().long().clamp(max=TIME_BUCKETS - 1)


class ShortTerm(nn.Module):
    """The frame: action and time-gap embeddings on the way in, a projection on the way out, `read` between.

    timed: whether it reads spans of time; without, all of them are none.
    """

    timed = True

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.action = nn.Embedding(ACTIONS, dim)
        self.gap = nn.Embedding(TIME_BUCKETS, dim)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(dropout)
        for table in (self.action, self.gap):
            nn.init.normal_(table.weight, std=0.02)

    def forward(
        self, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor, there_BK: Tensor, last: bool = False
    ) -> Tensor:
        """f32[B,K,D], or f32[B,D] of the newest position where `last`; K at least 1. actions i64, times i64 (ms),
        there bool: False only on the left. Rows and positions without an interaction are zero.
        """
        x_BQD = self.read(self.entered(items_BKD, actions_BK, times_BK, there_BK), times_BK, there_BK, last)
        h_BQD = self.out(self.norm(x_BQD)) * there_BK[:, -x_BQD.shape[1] :, None]
        return h_BQD[:, -1] if last else h_BQD

    def entered(
        self, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor, there_BK: Tensor, back: int = 1
    ) -> Tensor:
        """What is read, f32[B,K,D]: items with their actions, and with the time since the one so many places before."""
        gaps_BK = F.pad((times_BK[:, back:] - times_BK[:, :-back]) * there_BK[:, :-back], (back, 0))
        x_BKD = items_BKD + self.action(actions_BK) + self.gap(self.bucket(gaps_BK))
        return self.drop(x_BKD) * there_BK[..., None]

    def bucket(self, ms: Tensor) -> Tensor:
        """`time_bucket` of spans, as far as they are read."""
        return time_bucket(ms) if self.timed else torch.zeros_like(ms)

    def followed(
        self, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor, there_BK: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """`forward` of the newest position, f32[B,D], and the same of the windows without each of their newest
        interactions, oldest first, f32[B,NEWEST,D]: where there was none to leave out, what it says means nothing. None
        where to read them again is no shorter than from the beginning.
        """
        return self(items_BKD, actions_BK, times_BK, there_BK, last=True), None

    def read(self, x_BKD: Tensor, times_BK: Tensor, there_BK: Tensor, last: bool) -> Tensor:
        """The sequence, read: f32[B,K,D], or f32[B,1,D] of the newest position where `last`."""
        raise NotImplementedError


class Look(nn.Module):
    """Attention of each state over itself and the older ones (Luong et al. 2015): state and context become one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.join = nn.Linear(2 * dim, dim)

    def forward(self, states_BKD: Tensor, there_BK: Tensor, queries: int) -> Tensor:
        """f32[B,queries,D] for the newest `queries` positions."""
        return self.at(states_BKD[:, -queries:], states_BKD, hidden(there_BK, queries))

    def at(self, looking_BQD: Tensor, states_BKD: Tensor, hidden_BQK: Tensor) -> Tensor:
        """f32[B,Q,D] for Q states that look at K, but for those that are hidden from them."""
        weights_BQK = self.query(looking_BQD) @ states_BKD.transpose(1, 2) / math.sqrt(states_BKD.shape[-1])
        context_BQD = weights_BQK.masked_fill(hidden_BQK, -torch.inf).softmax(-1) @ states_BKD
        return torch.tanh(self.join(torch.cat([looking_BQD, context_BQD], -1)))


def hidden(there_BK: Tensor, queries: int) -> Tensor:
    """bool[B,queries,K]: what each of the newest positions must not see. Itself it always sees: padding has no
    empty softmax.
    """
    place = torch.arange(there_BK.shape[1], device=there_BK.device)
    back_QK = place[-queries:, None] - place[None]
    return ((back_QK < 0) | ~there_BK[:, None]) & (back_QK != 0)
