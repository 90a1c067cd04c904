"""Windows read again without one of their newest interactions, from where reading the whole had come.

Not an encoder: the parts of one that reads from the oldest on. What is older than what is left out was read already, so
a window of 32 is read again for a few of its positions and not for 31. Rows stay at the right, where their newest
interactions stand in one column; a recurrent network passes over padding without a state of its own (`read_on`).

Names as in `base.py`; W positions at the end, P those before; V ways to leave one of the W out, the oldest first, of
which each keeps S = W - 1 positions; X = B * V rows.
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

AT_ONCE = ((NEWEST, NEWEST),)
IN_TURN = ((5, 2), (3, 2), (1, 1))
"""Of how many positions at the end how many ways leave one out: all in few operations, each reading four positions; or
in more operations that read two thirds as much, for many users."""
MANY = 32
SHUT = -1e4
"""Of a gate: its sigmoid is 0."""
State = tuple[Tensor, Tensor]
"""Of an LSTM, f32[1,B,D] each."""


def read_on(net: nn.LSTM, x_BKD: Tensor, there_BK: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """The states of one LSTM layer over left-padded rows, f32[B,K,D], and the last. Padding does not move them from
    zero: one more input shuts the gate that lets anything in.
    """
    into, *others = (getattr(net, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    wide = into.new_zeros(4 * net.hidden_size, 1)
    wide[: net.hidden_size] = SHUT
    weights = [torch.cat([into, wide], 1), *others]
    shut_BK1 = (~there_BK)[..., None].to(x_BKD.dtype)
    zero = x_BKD.new_zeros(1, len(x_BKD), net.hidden_size)
    given = (zero, zero) if state is None else state
    out, h, c = torch.lstm(torch.cat([x_BKD, shut_BK1], 2), given, weights, True, 1, 0.0, False, False, True)
    return out, (h, c)


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """Ends of windows, and the ways to leave one of their positions out. state: after what is older; kept i64[V,S]:
    what each way keeps, by place in the end.
    """

    newest: int
    state: State
    there_BK: Tensor
    kept_VS: Tensor
    there_BVS: Tensor

    @staticmethod
    def of(newest: int, ways: int, state: State, there_BK: Tensor) -> Ends:
        places = torch.arange(newest, device=there_BK.device)
        kept_VS = torch.combinations(places, newest - 1).flip(0)[:ways]
        return Ends(newest, state, there_BK, kept_VS, there_BK[:, -newest:][:, kept_VS])

    @property
    def there_XS(self) -> Tensor:
        return self.there_BVS.flatten(0, 1)

    def entered(self, encoder: ShortTerm, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor) -> Tensor:
        """`ShortTerm.entered` of what is kept, f32[X,S,D]: after the one that is left out comes a longer time."""
        before_VS = torch.cat([torch.full_like(self.kept_VS[:, :1], -1), self.kept_VS[:, :-1]], 1)
        times_BW1, there_BW1 = times_BK[:, -self.newest - 1 :], self.there_BK[:, -self.newest - 1 :]
        gaps_BVS = (times_BW1[:, self.kept_VS + 1] - times_BW1[:, before_VS + 1]) * there_BW1[:, before_VS + 1]
        x_BWD = items_BKD[:, -self.newest :] + encoder.action(actions_BK[:, -self.newest :])
        x_BVSD = (x_BWD[:, self.kept_VS] + encoder.gap(time_bucket(gaps_BVS))) * self.there_BVS[..., None]
        return x_BVSD.flatten(0, 1)

    def context(self, x_BKD: Tensor, wide: int) -> Tensor:
        """What stands before the ends, so many positions of it, for each way: f32[X,wide,D]."""
        missing = max(wide - x_BKD.shape[1] + self.newest, 0)
        before_BPD = x_BKD[:, : -self.newest][:, -wide:]
        before_BPD = F.pad(before_BPD, (0, 0, missing, 0)) if missing else before_BPD
        return before_BPD.repeat_interleave(len(self.kept_VS), 0)

    def read(self, net: nn.LSTM, x_XSD: Tensor) -> Tensor:
        """The states of what is kept, f32[B,V,S,D]."""
        ways = len(self.kept_VS)
        h, c = (part.repeat_interleave(ways, 1) for part in self.state)
        return read_on(net, x_XSD, self.there_XS, (h, c))[0].unflatten(0, (-1, ways))


def looked(
    look: Look, states_BKD: Tensor, there_BK: Tensor, ends: list[Ends], new: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The newest state of each way with what it looks back at, f32[B,NEWEST,D], and whether there is anything, bool.
    new: f32[B,V,S,D] of each end.
    """
    there = [end.there_BVS for end in ends]
    if sum(part.shape[1] for part in new) < NEWEST:  # without the newest, nothing was to be read: it ends one before
        new, there = [*new, states_BKD[:, None, -2:-1]], [*there, there_BK[:, None, -2:-1]]
    most = max(part.shape[2] for part in new)
    new_BVSD = torch.cat([F.pad(part, (0, 0, most - part.shape[2], 0)) for part in new], 1)
    new_BVS = torch.cat([F.pad(part, (most - part.shape[2], 0)) for part in there], 1)
    first = [there_BK.shape[1] - end.newest for end in ends for _ in end.kept_VS]
    first_V = torch.tensor([*first, *[there_BK.shape[1] - 2] * (NEWEST - len(first))], device=there_BK.device)
    old_VK = torch.arange(there_BK.shape[1], device=there_BK.device) < first_V[:, None]
    found_BVD = look.of(states_BKD, there_BK[:, None] & old_VK, new_BVSD, new_BVS)
    return found_BVD, new_BVS[..., -1:]
