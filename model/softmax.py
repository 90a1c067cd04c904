"""Cross-entropy over all items, a few targets at a time.

Not a loss of anything else: it is `F.cross_entropy` of users @ items.T with some items hidden, and its gradient. The
scores of all targets against all items are the greatest thing in a training by far (2,300 x 3,900 of them in a step on
MovieLens-1M, written and read some ten times). Here those of a few targets are made, turned into their gradient while
they are in the processor's cache, and forgotten.

Names: X targets, N items, D the length of a vector.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NEVER = -1e9
AT_ONCE = 1 << 18
"""Scores in work at a time on a CPU: 1 MB, what its cache holds."""
AT_ONCE_GPU = 1 << 26
"""And on a GPU: 256 MB, enough to keep it busy."""


def ranking_loss(users_XD: Tensor, items_ND: Tensor, target_X: Tensor, met_XN: Tensor) -> Tensor:
    """The mean over X of the cross-entropy of each target i64[X] among the items that are not met (bool[X,N])."""
    device = users_XD.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        users_XD, items_ND = users_XD.to(dtype), items_ND.to(dtype)
    loss = _Ranking.apply(users_XD, items_ND, target_X, met_XN)
    assert isinstance(loss, Tensor)
    return loss


class _Ranking(torch.autograd.Function):
    """Makes the gradient on the way, for a loss that is always minimised: nothing of X x N is kept."""

    @staticmethod
    def forward(ctx: Any, users_XD: Tensor, items_ND: Tensor, target_X: Tensor, met_XN: Tensor) -> Tensor:
        with torch.autocast(users_XD.device.type, enabled=False):
            count = len(users_XD)
            by_user_XD = torch.empty_like(users_XD)
            by_item_ND = torch.zeros_like(items_ND, dtype=torch.float32)
            total = torch.zeros((), device=users_XD.device)
            most = AT_ONCE if users_XD.device.type == "cpu" else AT_ONCE_GPU
            some = max(most // max(len(items_ND), 1), 1)
            for first in range(0, count, some):
                at = slice(first, first + some)
                score_CN = (users_XD[at] @ items_ND.T).float().masked_fill_(met_XN[at], NEVER)
                target_C1 = target_X[at, None]
                own_C1 = score_CN.gather(1, target_C1)
                top_C1 = score_CN.amax(1, keepdim=True)
                share_CN = score_CN.sub_(top_C1).exp_()
                sum_C1 = share_CN.sum(1, keepdim=True)
                total += (sum_C1.log() + top_C1 - own_C1).sum()
                share_CN.div_(sum_C1 * count).scatter_add_(1, target_C1, torch.full_like(own_C1, -1 / count))
                share_CN = share_CN.to(items_ND.dtype)
                by_user_XD[at] = share_CN @ items_ND
                by_item_ND += share_CN.T @ users_XD[at]
        ctx.save_for_backward(by_user_XD, by_item_ND.to(items_ND.dtype))
        return total / max(count, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        by_user_XD, by_item_ND = ctx.saved_tensors
        return grads[0] * by_user_XD, grads[0] * by_item_ND, None, None
