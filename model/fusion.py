"""Short and long: how the vector of the window and the vectors of the profile become one.

Not an encoder of either. Names: B users, S segments (padded, with a mask), D the length of a vector;
`short_BD` is h, `long_BSD` is h'_1..h'_S with the newest segment last.

`attention` follows sources.md row B, w_t = exp(h . h'_t) / sum_i exp(h . h'_i) and V = w h + (1 - w) h'.
Where that leaves open which t and which h' are meant, this is computed:

    a_i = softmax_i(scale x h . h'_i + recency_i)     over the segments of the profile, i = 1..S
    w   = a_S                              the weight of the newest segment: how like what came last h is
    h'  = sum_i a_i h'_i                   the profile as seen from h
    V   = w h + (1 - w) h'

so a user with one segment or none gets V = h: their window is all there is to know.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Fused:
    """Fused users: vectors f32[B,D]; short f32[B], the weight of the window's vector; long f32[B,D], the
    profile's part of `vectors`.
    """

    vectors: Tensor
    short: Tensor
    long: Tensor


def attention(
    short_BD: Tensor,
    long_BSD: Tensor,
    mask_BS: Tensor,
    scale: Tensor | float = 1.0,
    recency_S: Tensor | float = 0.0,
) -> Fused:
    """The fusion above. mask_BS is True where a segment exists; the last column must be the newest one."""
    none_B1 = ~mask_BS.any(1, keepdim=True)
    dots_BS = scale * torch.einsum("bd,bsd->bs", short_BD, long_BSD) + recency_S
    a_BS = dots_BS.masked_fill(~(mask_BS | none_B1), -torch.inf).softmax(1)
    w_B1 = torch.where(none_B1, torch.ones_like(dots_BS[:, :1]), a_BS[:, -1:])
    long_BD = (1 - w_B1) * torch.einsum("bs,bsd->bd", a_BS, long_BSD)
    return Fused(w_B1 * short_BD + long_BD, w_B1[:, 0], long_BD)


def alpha(short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, weight: float | Tensor) -> Fused:
    """V = weight x h + (1 - weight) x h', h' the mean over the segments; V = h where there is no segment.

    weight: for all, or one for each user, f32[B,1].
    """
    count_B1 = mask_BS.sum(1, keepdim=True)
    mean_BD = (long_BSD * mask_BS[..., None]).sum(1) / count_B1.clamp(min=1)
    w_B1 = torch.where(count_B1 > 0, torch.as_tensor(weight, dtype=short_BD.dtype, device=short_BD.device), 1.0)
    long_BD = (1 - w_B1) * mean_BD
    return Fused(w_B1 * short_BD + long_BD, w_B1[:, 0], long_BD)
