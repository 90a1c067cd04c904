"""`lstm` and `gru`: a recurrent network over the window, with attention over its states.

Padding is on the left, where a recurrent network would start from it: rows are moved to the left edge before they are
read, and back after. With `both_ways` a window is closed at each position and read from both ends (system D's
bidirectional LSTM): every position is then a window of its own to whoever reads from the newest end, which costs K
times as much in training and twice as much in serving.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.shortterm.base import Look, ShortTerm


class RecurrentEncoder(ShortTerm):
    """See the module."""

    def __init__(
        self, kind: Literal["lstm", "gru"], dim: int, layers: int, dropout: float, both_ways: bool = False
    ) -> None:
        super().__init__(dim, dropout)
        make = nn.LSTM if kind == "lstm" else nn.GRU
        self.states = Recurrent(make, dim, layers, dropout if layers > 1 else 0.0)
        self.back = Recurrent(make, dim, layers, dropout if layers > 1 else 0.0) if both_ways else None
        self.both = nn.Linear(2 * dim, dim) if both_ways else None
        self.look = Look(dim)

    def read(self, x_BKD: Tensor, times_BK: Tensor, there_BK: Tensor, last: bool) -> Tensor:
        if self.back is None or self.both is None:
            return self.look(self.states(x_BKD, there_BK), there_BK, 1 if last else x_BKD.shape[1])
        states_BKD = self.states(x_BKD, there_BK)
        closed_XKD, from_left_XKD, there_XK = x_BKD, states_BKD, there_BK
        if not last:  # what is read from the oldest end is the same in all windows that go further
            closed_XKD, there_XK = _prefixes(x_BKD, there_BK)
            from_left_XKD = _prefixes(states_BKD, there_BK)[0]
        from_right_XKD = self.back.from_right(closed_XKD)
        states_XKD = self.both(torch.cat([from_left_XKD, from_right_XKD], -1))
        return self.look(states_XKD, there_XK, 1).view(len(x_BKD), -1, x_BKD.shape[2])


class Recurrent(nn.Module):
    """A recurrent network over left-padded rows f32[B,K,D]."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], dim: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.net = kind(dim, dim, layers, batch_first=True, dropout=dropout)

    def forward(self, x_BKD: Tensor, there_BK: Tensor) -> Tensor:
        """The states, oldest read first."""
        length = x_BKD.shape[1]
        place_K = torch.arange(length, device=x_BKD.device)
        empty_B1 = (~there_BK).sum(1, keepdim=True)
        moved_BKD = _taken(x_BKD, (place_K + empty_B1) % length)
        return _taken(self.net(moved_BKD)[0], (place_K - empty_B1) % length)

    def from_right(self, x_BKD: Tensor) -> Tensor:
        """The states, newest read first: padding comes last, and nothing needs to be moved."""
        return self.net(x_BKD.flip(1))[0].flip(1)


def _taken(x_BKD: Tensor, at_BK: Tensor) -> Tensor:
    return x_BKD.gather(1, at_BK[..., None].expand(-1, -1, x_BKD.shape[2]))


def _prefixes(x_BKD: Tensor, there_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The window that ends at each position, f32[B*K,K,D], and what is there, bool[B*K,K]."""
    length = x_BKD.shape[1]
    place_K = torch.arange(length, device=x_BKD.device)
    at_KK = place_K[None] - (length - 1 - place_K[:, None])  # row k ends with position k
    from_BKK = at_KK.clamp(min=0)
    there_BKK = there_BK[:, from_BKK] & (at_KK >= 0)
    x_BKKD = x_BKD[:, from_BKK] * there_BKK[..., None]
    return x_BKKD.flatten(0, 1), there_BKK.flatten(0, 1)
