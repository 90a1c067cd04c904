"""Windows read again without one of their newest interactions, from where reading the whole had come.

Not an encoder: the parts of one that reads from the oldest on. What is older than what is left out was read already, so
a window of 32 is read again for four of its positions and not for 31. Rows stay at the right, where their newest
interactions stand in one column; a recurrent network passes over padding without a state of its own (`read_on`).

Names as in `base.py`; W = NEWEST positions at the end, P those before; V = W ways to leave one out, of which each keeps
S = W - 1 positions; X = B * V rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.base import NEWEST, time_bucket

if TYPE_CHECKING:
    from model.shortterm.base import Look, ShortTerm

SHUT = -1e4
"""Of a gate: its sigmoid is 0."""
State = tuple[Tensor, Tensor]
"""Of an LSTM, f32[1,B,D] each."""


def read_on(net: nn.LSTM, x_BKD: Tensor, there_BK: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """The states of one LSTM layer over left-padded rows, f32[B,K,D], and the last. Padding does not move them from
    zero: one more input shuts the gate that lets anything in.
    """
    wide = net.weight_ih_l0.new_zeros(4 * net.hidden_size, 1)
    wide[: net.hidden_size] = SHUT
    weights = [torch.cat([net.weight_ih_l0, wide], 1), net.weight_hh_l0, net.bias_ih_l0, net.bias_hh_l0]
    shut_BK1 = (~there_BK)[..., None].to(x_BKD.dtype)
    zero = x_BKD.new_zeros(1, len(x_BKD), net.hidden_size)
    given = (zero, zero) if state is None else state
    out, h, c = torch.lstm(torch.cat([x_BKD, shut_BK1], 2), given, weights, True, 1, 0.0, False, False, True)
    return out, (h, c)


@dataclass(frozen=True, slots=True, eq=False)
class Suffix:
    """The ways to leave one of the newest out. kept i64[V,S]: what each keeps, by place among the newest."""

    kept_VS: Tensor
    there_BK: Tensor
    there_BVS: Tensor

    @staticmethod
    def of(there_BK: Tensor) -> Suffix:
        """Of windows of more than NEWEST positions."""
        kept_VS = torch.combinations(torch.arange(NEWEST, device=there_BK.device), NEWEST - 1).flip(0)
        return Suffix(kept_VS, there_BK, there_BK[:, -NEWEST:][:, kept_VS])

    @property
    def there_XS1(self) -> Tensor:
        return self.there_BVS.flatten(0, 1)[..., None]

    def entered(self, encoder: ShortTerm, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor) -> Tensor:
        """`ShortTerm.entered` of what is kept, f32[X,S,D]: after the one that is left out comes a longer time."""
        place_V1 = torch.full_like(self.kept_VS[:, :1], -1)
        before_VS = torch.cat([place_V1, self.kept_VS[:, :-1]], 1)
        times_BW1, there_BW1 = times_BK[:, -NEWEST - 1 :], self.there_BK[:, -NEWEST - 1 :]
        gaps_BVS = (times_BW1[:, self.kept_VS + 1] - times_BW1[:, before_VS + 1]) * there_BW1[:, before_VS + 1]
        x_BWD = items_BKD[:, -NEWEST:] + encoder.action(actions_BK[:, -NEWEST:])
        x_BVSD = (x_BWD[:, self.kept_VS] + encoder.gap(time_bucket(gaps_BVS))) * self.there_BVS[..., None]
        return x_BVSD.flatten(0, 1)

    def context(self, x_BKD: Tensor, wide: int) -> Tensor:
        """What stands before the newest, so many positions of it, for each way: f32[X,wide,D]."""
        before_BPD = F.pad(x_BKD[:, :-NEWEST][:, -wide:], (0, 0, max(wide - x_BKD.shape[1] + NEWEST, 0), 0))
        return before_BPD.repeat_interleave(NEWEST, 0)

    def repeated(self, state: State) -> State:
        """For each way."""
        h, c = (part.repeat_interleave(NEWEST, 1) for part in state)
        return h, c

    def looked(self, look: Look, old_BPD: Tensor, new_XSD: Tensor) -> Tensor:
        """The newest state of each way with what it looks back at, f32[B,V,D]."""
        new_BVSD = new_XSD.unflatten(0, (-1, NEWEST))
        return look.of(old_BPD, new_BVSD, self.there_BK[:, :-NEWEST], self.there_BVS)
