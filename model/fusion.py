"""Short and long: how the vector of the window and the vectors of the profile become one.

Not an encoder of either. Names: B users, S vectors of a profile (padded, with a mask), D the length of a vector;
h is `short_BD`, h'_1..h'_S are `long_BSD`, the newest last. Always V = w h + (1 - w) h', with one w for a user, and
V = h for a user without a profile: their window is all there is to know. What w and h' are:

    alpha      w fixed                                  h' = the mean of the h'_i
    attention  w = a_S                                  h' = sum_i a_i h'_i
                   a_i = softmax_i(scale x h . h'_i + recency_i), scale and recency learned
    steps      w = exp(h . g_S) / sum_i exp(h . g_i)    h' = g_S
                   g_i = the mean of h'_1..h'_i: the profile as it was after segment i
    gate       w = sigmoid(net(h, h', window))          h' = sum_i a_i h'_i, as in attention
                   window: its length and its age, as `window_facts` has them

`steps` is system B as its article writes it, weight_t = exp(h_t . h'_t) / sum_{i=1..N} exp(h_t . h'_i), with a profile
at each step of the history, a step being a segment; `attention` reads the same formula as attention over the parts of
one profile. In both the window of a user with one segment says all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """Fused users: vectors f32[B,D]; short f32[B], the weight of the window's vector; long f32[B,D], the
    profile's part of `vectors`. without f32[B,NEWEST,D]: the windows' vectors without each of their newest
    interactions, where that was asked for and there is a shorter way than to encode them anew.
    """

    vectors: Tensor
    short: Tensor
    long: Tensor
    without: Tensor | None = None


def attention(
    short_BD: Tensor,
    long_BSD: Tensor,
    mask_BS: Tensor,
    scale: Tensor | float = 1.0,
    recency_S: Tensor | float = 0.0,
) -> Fused:
    """mask_BS is True where a vector exists; the last column must be the newest one, here as below."""
    a_BS, none_B1 = _looked(short_BD, long_BSD, mask_BS, scale, recency_S)
    return _weighed(short_BD, torch.einsum("bs,bsd->bd", a_BS, long_BSD), a_BS[:, -1:], none_B1)


def steps(short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor) -> Fused:
    """System B's form."""
    count_BS1 = mask_BS.cumsum(1)[..., None].clamp(min=1)
    so_far_BSD = (long_BSD * mask_BS[..., None]).cumsum(1) / count_BS1
    a_BS, none_B1 = _looked(short_BD, so_far_BSD, mask_BS, 1.0, 0.0)
    return _weighed(short_BD, so_far_BSD[:, -1], a_BS[:, -1:], none_B1)


def alpha(short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, weight: float | Tensor) -> Fused:
    """weight: for all, or one for each user, f32[B,1]."""
    count_B1 = mask_BS.sum(1, keepdim=True)
    mean_BD = (long_BSD * mask_BS[..., None]).sum(1) / count_B1.clamp(min=1)
    w_B1 = torch.as_tensor(weight, dtype=short_BD.dtype, device=short_BD.device)
    return _weighed(short_BD, mean_BD, w_B1, count_B1 == 0)


class Gate(nn.Module):
    """A small network that weighs the window, from both vectors and two facts of the window f32[B,2]."""

    def __init__(self, dim: int, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 * dim + 2, width), nn.GELU(), nn.Linear(width, 1))

    def forward(
        self,
        short_BD: Tensor,
        long_BSD: Tensor,
        mask_BS: Tensor,
        window_B2: Tensor,
        scale: Tensor | float = 1.0,
        recency_S: Tensor | float = 0.0,
    ) -> Fused:
        a_BS, none_B1 = _looked(short_BD, long_BSD, mask_BS, scale, recency_S)
        long_BD = torch.einsum("bs,bsd->bd", a_BS, long_BSD)
        w_B1 = self.net(torch.cat([short_BD, long_BD, window_B2], 1)).sigmoid()
        return _weighed(short_BD, long_BD, w_B1, none_B1)


def window_facts(times_BK: Tensor, there_BK: Tensor) -> Tensor:
    """f32[B,K,2]: log(1 + n) and log(1 + hours), of the window that ends at each position, n its interactions and
    hours from its oldest to its newest, tenths of each.
    """
    count_BK = there_BK.cumsum(1)
    oldest_B1 = times_BK.masked_fill(~there_BK, torch.iinfo(torch.int64).max).min(1, keepdim=True).values
    hours_BK = (times_BK - oldest_B1).clamp(min=0).float() * there_BK / 3_600_000
    return torch.stack([count_BK.float().log1p(), hours_BK.log1p()], -1) / 10


def _looked(
    short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, scale: Tensor | float, recency_S: Tensor | float
) -> tuple[Tensor, Tensor]:
    """Attention of h over the vectors that are there, f32[B,S], and who has none, bool[B,1]."""
    none_B1 = ~mask_BS.any(1, keepdim=True)
    dots_BS = scale * torch.einsum("bd,bsd->bs", short_BD, long_BSD) + recency_S
    return dots_BS.masked_fill(~(mask_BS | none_B1), -torch.inf).softmax(1), none_B1


def _weighed(short_BD: Tensor, long_BD: Tensor, w_B1: Tensor, none_B1: Tensor) -> Fused:
    """V = w h + (1 - w) h', w = 1 for those who have no profile."""
    w_B1 = torch.where(none_B1, torch.ones_like(short_BD[:, :1]), w_B1)
    part_BD = (1 - w_B1) * long_BD
    return Fused(w_B1 * short_BD + part_BD, w_B1[:, 0], part_BD)
