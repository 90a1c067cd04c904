"""The trained model: item vectors, the short-term encoder over them, and the fusion with the profile.

Not the training loop and not its files (`train.py`, `checkpoint.py`). An item's vector is its text vector,
centred and projected, plus an embedding of its id; where items bring vectors of their own (images, sounds), these
stand beside the text's and are projected with them. An item that was not in the training set has no id embedding,
so it can be found the moment it has a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from model import fusion, heads, longterm, shortterm
from model.adapter import Adapter
from model.baselines import Reading, joined
from model.catalog import Catalog
from model.config import ModelConfig
from model.fusion import Fused
from model.habits import Habits
from model.history import Histories
from model.leaning import Leanings
from model.longterm import SEGMENTS, Encode, LongTerm
from model.mix import Mix
from model.tfidf import Lexicon


class Recommender(nn.Module):
    """A model for one set of items, u64[items] by hash. `dropout` and `id_dropout` matter in training only."""

    hashes: Tensor
    text_mean: Tensor

    def __init__(self, config: ModelConfig, dropout: float = 0.0, id_dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.id_dropout = id_dropout
        self.metrics: dict[str, object] = {}
        self.record: dict[str, object] = {}
        self.leanings: Leanings | None = None
        self.adapter: Adapter | None = None
        self.habits: Habits | None = None
        # torch has no complete u64: the hashes are kept as the i64 of the same bits
        self.register_buffer("hashes", torch.zeros(config.items, dtype=torch.int64))
        self.register_buffer("text_mean", torch.zeros(config.text_dim))
        self.id = nn.Embedding(config.items, config.dim)
        self.lexicon = Lexicon() if config.texts == "tfidf" else None
        self.text = nn.Linear(config.text_dim, config.dim, bias=False)
        self.short = shortterm.make(config, dropout)
        self.long = nn.Linear(config.text_dim, config.dim)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.recency = nn.Parameter(torch.zeros(SEGMENTS))
        self.gate = fusion.Gate(config.dim) if config.fusion == "gate" else None
        self.next_action = heads.NextAction(config.dim) if config.action_head else None
        self.rating = heads.Rating(config.dim) if config.rating_head else None
        nn.init.normal_(self.id.weight, std=0.02)

    @property
    def kind(self) -> str:
        """The parts it is made of, in a word."""
        return f"{self.config.short_term}-{self.config.fusion}"

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.config.version}"

    @property
    def dim(self) -> int:
        return self.config.dim

    @property
    def window(self) -> int:
        return self.config.window

    @property
    def mix(self) -> Mix:
        return self.config.mix

    @property
    def known(self) -> NDArray[np.uint64]:
        """The hashes of the items that it has id embeddings for, u64[items]."""
        return self.hashes.cpu().numpy().view(np.uint64)

    def contents(self, catalog: Catalog, text: NDArray[np.float32]) -> NDArray[np.float32]:
        read = text if self.lexicon is None else self.lexicon.encode(catalog.texts)
        return catalog.contents(read, self.config.own_dim)

    def set_items(self, hashes: NDArray[np.uint64], text: NDArray[np.float32], id_from_text: bool = False) -> None:
        """Before training: the items to have id embeddings, and their text vectors, whose mean is taken off
        from now on. id_from_text: begin with the texts' principal components, in place of noise.
        """
        self.hashes.copy_(torch.from_numpy(hashes.view(np.int64)))
        if len(text) > 1:  # the mean of one text is that text: taking it off would leave nothing
            self.text_mean.copy_(torch.from_numpy(text.mean(0)))
        if id_from_text:
            parts = np.linalg.svd(text - text.mean(0), full_matrices=False)
            start = (parts[0] * parts[1])[:, : self.dim]
            with torch.no_grad():
                self.id.weight[:, : start.shape[1]] = torch.from_numpy(0.05 * start / max(start.std(), 1e-9))

    def begin_from(self, other: Recommender) -> None:
        """Before training, after `set_items`: every weight of a trained model, and the id embeddings of the items
        that both know. Raises ValueError where it is made of other parts.
        """
        mine, its = self.state_dict(), other.state_dict()
        kept = ("hashes", "id.weight", "text_mean")
        shapes = ({n: t.shape for n, t in state.items() if n not in kept} for state in (mine, its))
        if next(shapes) != next(shapes):
            raise ValueError(f"{other.name} is made of other parts than {self.name}: train with its settings")
        known = {h: row for row, h in enumerate(other.hashes.tolist())}
        pairs = [(row, known[h]) for row, h in enumerate(self.hashes.tolist()) if h in known]
        if pairs:
            to, source = torch.tensor(pairs).T
            mine["id.weight"][to] = its["id.weight"][source]
        self.load_state_dict(its | {n: mine[n] for n in ("hashes", "id.weight")})

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
        return self.embed_text(text_NP) + self.id(row_N.clamp(min=0)) * keep_N1

    def embed_text(self, text_NP: Tensor) -> Tensor:
        """The texts' part of item vectors, f32[N,D]."""
        return self.text(self.direction(text_NP))

    def direction(self, text_NP: Tensor) -> Tensor:
        """Text vectors without their mean, at length 1: what a model reads of a text, f32[N,P]."""
        return normalize(text_NP - self.text_mean, dim=-1)

    def long_term(self, text: NDArray[np.float32], titles: Sequence[str], encode: Encode | None) -> LongTerm:
        read = encode if self.lexicon is None else self.lexicon.encode
        return longterm.make(self.config.long_term, text, titles, read)

    def encode(
        self,
        window: Histories,
        rows: NDArray[np.int32],
        items: Tensor,
        profiles: list[NDArray[np.float32]],
        explained: bool = False,
    ) -> Fused:
        device = items.device
        if not rows.shape[1]:
            rows, window = np.full((len(rows), 1), -1, np.int32), Histories.empty(len(rows), 1)
        flat, there, mask = joined(profiles, self.config.text_dim)
        windows = rows.astype(np.int64), window.actions.astype(np.int64), window.times, window.weights
        columns = *windows, flat, np.flatnonzero(there), mask
        return self.read(items, Reading(*(torch.from_numpy(column).to(device) for column in columns)), explained)

    def read(self, items: Tensor, reading: Reading, explained: bool = False) -> Fused:
        rows_BK, actions_BK, times_BK, _, flat_XP, at_X, mask_BS = reading
        there_BK = rows_BK >= 0
        # what is not there reads row 0, and is zero as soon as it has entered (`ShortTerm.entered`)
        items_BKD = items.index_select(0, rows_BK.clamp(min=0).flatten()).view(*rows_BK.shape, -1)
        window = items_BKD, actions_BK, times_BK, there_BK
        short_BD, without = self.short.followed(*window) if explained else (self.short(*window, last=True), None)
        long_BSD = self._projected(flat_XP, at_X, mask_BS)
        facts_B2 = fusion.window_facts(times_BK, there_BK)[:, -1]
        return replace(self.fuse(short_BD, long_BSD, mask_BS, facts_B2), without=without)

    def _projected(self, flat_XP: Tensor, at_X: Tensor, mask_BS: Tensor) -> Tensor:
        """Projected profiles f32[B,S,D], padded on the left. Padding is not projected: most users have far fewer
        vectors than whoever has the most.
        """
        long_XD = self.project(flat_XP)
        return long_XD.new_zeros(mask_BS.numel(), self.dim).index_copy_(0, at_X, long_XD).view(*mask_BS.shape, self.dim)

    def project(self, profile_BSP: Tensor) -> Tensor:
        """The vectors of profiles in the space of the window vectors: f32[B,S,D]."""
        return self.long(profile_BSP - self.text_mean)

    def fuse(self, short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, window_B2: Tensor) -> Fused:
        """Window vectors with projected profiles, newest last, S up to 8; window_B2: `fusion.window_facts`."""
        recency_S = self.recency[-long_BSD.shape[1] :]
        match self.config.fusion:
            case "alpha":
                return fusion.alpha(short_BD, long_BSD, mask_BS, self.config.alpha)
            case "steps":
                return fusion.steps(short_BD, long_BSD, mask_BS)
            case "gate":
                assert self.gate is not None
                return self.gate(short_BD, long_BSD, mask_BS, window_B2, self.scale, recency_S)
        return fusion.attention(short_BD, long_BSD, mask_BS, self.scale, recency_S)
