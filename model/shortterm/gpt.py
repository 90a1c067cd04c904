"""`gpt`: a causal transformer over the window.

Blocks are pre-norm self-attention (SASRec, Kang and McAuley 2018) with a learned gate on each residual (LiGR,
LinkedIn 2025) and with learned biases on relative position and on the time between two interactions (T5,
Raffel et al. 2020; HSTU, Zhai et al. 2024), so a window needs no absolute positions.

Names as in `base.py`, and H heads.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.base import TIME_BUCKETS, ShortTerm, hidden


class GptEncoder(ShortTerm):
    """See the module. K may be anything up to `window`."""

    def __init__(self, dim: int, layers: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(dim, dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, dropout, window) for _ in range(layers))

    def read(self, x_BKD: Tensor, times_BK: Tensor, there_BK: Tensor, last: bool) -> Tensor:
        length = x_BKD.shape[1]
        place = torch.arange(length, device=x_BKD.device)
        back_KK = (place[:, None] - place[None]).clamp(min=0)
        span_BKK = self.bucket(times_BK[:, :, None] - times_BK[:, None])
        hidden_BKK = hidden(there_BK, length)
        for i, block in enumerate(self.blocks):
            queries = 1 if last and i == len(self.blocks) - 1 else length
            x_BKD = block(x_BKD, back_KK, span_BKK, hidden_BKK, queries)
        return x_BKD


class Block(nn.Module):
    """Attention and a feed-forward layer, each behind a gated residual."""

    def __init__(self, dim: int, heads: int, dropout: float, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_a, self.norm_f = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.keyvalue = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.join = nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.gate_a, self.gate_f = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.position = nn.Parameter(torch.zeros(window, heads))
        self.span = nn.Parameter(torch.zeros(TIME_BUCKETS, heads))
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BKD: Tensor, back_KK: Tensor, span_BKK: Tensor, hidden_BKK: Tensor, queries: int) -> Tensor:
        """The newest `queries` positions after this block, f32[B,queries,D]."""
        n_BKD = self.norm_a(x_BKD)
        x_BQD = x_BKD[:, -queries:]
        bias_BQKH = self.position[back_KK[-queries:]] + self.span[span_BKK[:, -queries:]]
        a_BQD = self._attend(n_BKD, bias_BQKH.permute(0, 3, 1, 2), hidden_BKK[:, None, -queries:])
        x_BQD = x_BQD + self.drop(a_BQD) * self.gate_a(n_BKD[:, -queries:]).sigmoid()
        n_BQD = self.norm_f(x_BQD)
        f_BQD = self.down(F.gelu(self.up(n_BQD)))
        return x_BQD + self.drop(f_BQD) * self.gate_f(n_BQD).sigmoid()

    def _attend(self, x_BKD: Tensor, bias_BHQK: Tensor, hidden_B1QK: Tensor) -> Tensor:
        batch, length, dim = x_BKD.shape
        queries, width = bias_BHQK.shape[2], dim // self.heads
        q_BHQW = self.query(x_BKD[:, -queries:]).view(batch, queries, self.heads, width).transpose(1, 2)
        k_BHKW, v_BHKW = self.keyvalue(x_BKD).view(batch, length, 2, self.heads, width).permute(2, 0, 3, 1, 4)
        weights = q_BHQW @ k_BHKW.transpose(-1, -2) / math.sqrt(width) + bias_BHQK
        weights = weights.masked_fill(hidden_B1QK, -torch.inf).softmax(-1)
        return self.join((weights @ v_BHKW).transpose(1, 2).reshape(batch, queries, dim))
