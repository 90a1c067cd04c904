"""The trained model: item vectors, the short-term encoder over them, and the fusion with the profile.

Not the training loop and not its files (`train.py`, `checkpoint.py`). An item's vector is its text vector,
centred and projected, plus an embedding of its id; an item that was not in the training set has the text part
alone, so it can be found the moment it has a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from model import fusion
from model.baselines import padded
from model.fusion import Fused
from model.history import WINDOW, Histories
from model.longterm import SEGMENTS, Document, Encode, LongTerm, Pooled
from model.mix import Mix
from model.shortterm import GptEncoder


class ModelConfig(BaseModel):
    """What a model is made of; with its weights, all that is needed to load it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_term: Literal["gpt"] = "gpt"
    long_term: Literal["pooled", "document"] = "pooled"
    fusion: Literal["attention", "alpha"] = "attention"
    version: int = Field(default=1, ge=1, description="the number after the @ of its name")
    dim: int = Field(default=96, ge=8, description="length of user and item vectors")
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    window: int = Field(default=WINDOW, ge=1, description="interactions that the short-term encoder reads")
    text_dim: int = Field(default=384, ge=1, description="length of the text vectors it was trained with")
    items: int = Field(default=0, ge=0, description="items it has an id embedding for")
    alpha: float = Field(default=0.7, ge=0, le=1, description="fusion alpha: weight of the window")
    mix: Mix = Mix(neural=1.0)  # the neural score is in nats already: it was trained as a log-probability


class Recommender(nn.Module):
    """A model for one set of items, u64[items] by hash. `dropout` and `id_dropout` matter in training only."""

    hashes: Tensor
    text_mean: Tensor

    def __init__(self, config: ModelConfig, dropout: float = 0.0, id_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.id_dropout = id_dropout
        self.metrics: dict[str, object] = {}
        # torch has no complete u64: the hashes are kept as the i64 of the same bits
        self.register_buffer("hashes", torch.zeros(config.items, dtype=torch.int64))
        self.register_buffer("text_mean", torch.zeros(config.text_dim))
        self.id = nn.Embedding(config.items, config.dim)
        self.text = nn.Linear(config.text_dim, config.dim, bias=False)
        self.short = GptEncoder(config.dim, config.layers, config.heads, dropout, config.window)
        self.long = nn.Linear(config.text_dim, config.dim)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.recency = nn.Parameter(torch.zeros(SEGMENTS))
        nn.init.normal_(self.id.weight, std=0.02)

    @property
    def name(self) -> str:
        c = self.config
        return f"{c.short_term}-{c.fusion}@{c.version}"

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def window(self) -> int:
        return self.config.window

    @property
    def mix(self) -> Mix:
        return self.config.mix

    def set_items(self, hashes: NDArray[np.uint64], text: NDArray[np.float32]) -> None:
        """Before training: the items to have id embeddings, and their text vectors, whose mean is taken off
        from now on.
        """
        self.hashes.copy_(torch.from_numpy(hashes.view(np.int64)))
        if len(text) > 1:  # the mean of one text is that text: taking it off would leave nothing
            self.text_mean.copy_(torch.from_numpy(text.mean(0)))

    def item_vectors(self, hashes: NDArray[np.uint64], text: NDArray[np.float32]) -> Tensor:
        known = {h: row for row, h in enumerate(self.hashes.tolist())}
        row = [known.get(h, -1) for h in hashes.view(np.int64).tolist()]
        device = self.text_mean.device
        text_NP = torch.from_numpy(np.ascontiguousarray(text, np.float32)).to(device)
        return self.embed(text_NP, torch.tensor(row, dtype=torch.int64, device=device))

    def embed(self, text_NP: Tensor, row_N: Tensor) -> Tensor:
        """Item vectors f32[N,D] from raw text vectors f32[N,P] and rows of the id embedding i64[N] (-1 =
        none).
        """
        keep_N1 = (row_N >= 0)[:, None].float()
        if self.training and self.id_dropout:
            keep_N1 = keep_N1 * (torch.rand_like(keep_N1) >= self.id_dropout)
        return self.text(normalize(text_NP - self.text_mean, dim=-1)) + self.id(row_N.clamp(min=0)) * keep_N1

    def long_term(self, text: NDArray[np.float32], titles: Sequence[str], encode: Encode | None) -> LongTerm:
        if self.config.long_term == "pooled":
            return Pooled(text)
        if encode is None:
            raise ValueError(f"{self.name} reads histories as documents: give the engine a text encoder")
        return Document(titles, encode, self.config.text_dim)

    def encode(
        self, window: Histories, rows: NDArray[np.int32], items: Tensor, profiles: list[NDArray[np.float32]]
    ) -> Fused:
        device = items.device
        if not rows.shape[1]:
            rows, window = np.full((len(rows), 1), -1, np.int32), Histories.empty(len(rows), 1)
        rows_BK = torch.from_numpy(rows.astype(np.int64)).to(device)
        there_BK = rows_BK >= 0
        short_BD = self.short(
            items[rows_BK.clamp(min=0)] * there_BK[..., None],
            torch.from_numpy(window.actions.astype(np.int64)).to(device),
            torch.from_numpy(window.times).to(device),
            there_BK,
            last=True,
        )
        return self.fuse(short_BD, *padded(profiles, self.config.text_dim, device))

    def fuse(self, short_BD: Tensor, profile_BSP: Tensor, mask_BS: Tensor) -> Fused:
        """Window vectors with profiles f32[B,S,P], newest segment last, S up to 8."""
        return self.fuse_projected(short_BD, self.project(profile_BSP), mask_BS)

    def project(self, profile_BSP: Tensor) -> Tensor:
        """Segments in the space of the window vectors: f32[B,S,D]."""
        return self.long(profile_BSP - self.text_mean)

    def fuse_projected(self, short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor) -> Fused:
        """`fuse` for segments that are projected already."""
        if self.config.fusion == "alpha":
            return fusion.alpha(short_BD, long_BSD, mask_BS, self.config.alpha)
        recency_S = self.recency[-long_BSD.shape[1] :]
        return fusion.attention(short_BD, long_BSD, mask_BS, self.scale, recency_S)
