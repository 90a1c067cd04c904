"""The model that needs no training: a user is the recency-weighted mean of the text vectors of their items.

Not a placeholder: it is what a new deployment serves until `train` has run, and the row that a trained model
must beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from model import fusion
from model.adapter import Adapter
from model.catalog import Catalog
from model.fusion import Fused
from model.habits import Habits
from model.history import WINDOW, Histories
from model.leaning import Leanings
from model.longterm import Encode, LongTerm, Pooled
from model.mix import Mix


class Reading(NamedTuple):
    """What a model reads of B users, as tensors where its items are. Windows [B,K], K at least 1, left-padded: rows i64
    (-1 = none), actions i64, times i64 (ms), weights f32. Profiles: their vectors f32[X,P] one after the other, where
    they stand in [B,S] i64[X], and a mask bool[B,S] of what says anything.
    """

    rows: Tensor
    actions: Tensor
    times: Tensor
    weights: Tensor
    flat: Tensor
    at: Tensor
    mask: Tensor


class UserModel(Protocol):
    """What an engine needs of a model, trained or not. Rows are catalogue rows, i32, -1 = none; N items, D
    the length of a vector.
    """

    @property
    def name(self) -> str:
        """What is written into recommendations: `fallback`, or a name and version."""
        ...

    @property
    def dim(self) -> int:
        """Length of user and item vectors."""
        ...

    @property
    def window(self) -> int:
        """How many interactions it reads."""
        ...

    @property
    def mix(self) -> Mix:
        """How it wants to be mixed with the counts."""
        ...

    @property
    def leanings(self) -> Leanings | None:
        """What groups of users lean to, where that was learned."""
        ...

    @property
    def adapter(self) -> Adapter | None:
        """What the encoder of its texts must be adapted by, where it reads adapted ones."""
        ...

    @property
    def habits(self) -> Habits | None:
        """What users come back to, where that was learned."""
        ...

    def contents(self, catalog: Catalog, text: NDArray[np.float32]) -> NDArray[np.float32]:
        """What it reads of the catalogue's items, f32[N,P']: of their text vectors f32[N,P], or whatever else."""
        ...

    def item_vectors(self, hashes: NDArray[np.uint64], text: NDArray[np.float32]) -> Tensor:
        """f32[N,D] of the catalogue's items, from their hashes u64[N] and contents f32[N,P']."""
        ...

    def long_term(self, text: NDArray[np.float32], titles: Sequence[str], encode: Encode | None) -> LongTerm:
        """How this model wants its profiles made, for a catalogue with these text vectors and titles.
        `encode` is needed by profiles that are documents; without it they raise ValueError.
        """
        ...

    def encode(
        self,
        window: Histories,
        rows: NDArray[np.int32],
        items: Tensor,
        profiles: list[NDArray[np.float32]],
        explained: bool = False,
    ) -> Fused:
        """Fuses windows of B users (rows i32[B,K], left-padded, only known items) with their profiles
        (f32[S,P] each). explained: reasons will be asked for, which may be cheaper to know beforehand.
        """
        ...

    def read(self, items: Tensor, reading: Reading, explained: bool = False) -> Fused:
        """`encode` of what is on the device of the items f32[N,D] already."""
        ...


class Fallback:
    """Window and profile as means of centred text vectors, mixed by a fixed alpha; every vector has length 1.

    The mean over the catalogue is taken off each text vector first: sentence vectors of one domain share a
    large common part that says nothing (Mu and Viswanath, All-but-the-Top, 2018). On MovieLens-100K,
    events 72% to 80% in time order, that lifts HR@10 of text alone from .028 to .051.

    In numpy, wherever the vectors are wanted: to one user it is a few dozen operations on small arrays, each of which
    costs torch several times as much.
    """

    name = "fallback"
    leanings: Leanings | None = None
    adapter: Adapter | None = None
    habits: Habits | None = None
    recency = 0.9

    def __init__(self, dim: int, mix: Mix, window: int = WINDOW) -> None:
        self.dim = dim
        self.mix = mix
        self.window = window
        self._mean = np.zeros(dim, np.float32)
        self._items = np.zeros((1, dim), np.float32)

    def contents(self, catalog: Catalog, text: NDArray[np.float32]) -> NDArray[np.float32]:
        return text

    def item_vectors(self, hashes: NDArray[np.uint64], text: NDArray[np.float32]) -> Tensor:
        vectors = np.ascontiguousarray(text, np.float32)
        self._mean = vectors.mean(0) if len(vectors) > 1 else np.zeros(self.dim, np.float32)
        vectors = _normalized(vectors - self._mean)
        self._items = vectors if len(vectors) else self._items  # a row at least, which nothing weighs
        return torch.from_numpy(vectors)

    def long_term(self, text: NDArray[np.float32], titles: Sequence[str], encode: Encode | None) -> LongTerm:
        return Pooled(text)

    def encode(
        self,
        window: Histories,
        rows: NDArray[np.int32],
        items: Tensor,
        profiles: list[NDArray[np.float32]],
        explained: bool = False,
    ) -> Fused:
        return self.mixed(window, rows, profiles, self.mix.alpha, items.device)

    def read(self, items: Tensor, reading: Reading, explained: bool = False) -> Fused:
        return self.mixed_there(items, reading, self.mix.alpha)

    def mixed_there(self, items: Tensor, reading: Reading, alpha: float | Tensor) -> Fused:
        """`mixed`, in tensors on the device of the items f32[N,D]; alpha: for all or for each user f32[B,1]."""
        there = reading.rows >= 0
        newer = there.long().flip(1).cumsum(1).flip(1) - 1
        weights = torch.where(there, reading.weights.clamp(min=0) * torch.pow(self.recency, newer.float()), 0)
        short_BD = normalize((weights[:, None] @ items[reading.rows.clamp(min=0)])[:, 0], dim=-1)
        vectors_XD = normalize(reading.flat - torch.from_numpy(self._mean).to(items.device), dim=-1)
        long_BSD = items.new_zeros(reading.mask.numel(), self.dim).index_copy_(0, reading.at, vectors_XD)
        long_BSD = long_BSD.view(*reading.mask.shape, -1) * reading.mask[..., None]
        return fusion.alpha(short_BD, long_BSD, reading.mask, alpha)

    def mixed(
        self,
        window: Histories,
        rows: NDArray[np.int32],
        profiles: list[NDArray[np.float32]],
        alpha: float | NDArray[np.float32],
        device: torch.device,
    ) -> Fused:
        """`encode` with the window's weight given, for all or for each user f32[B,1], where there is a profile."""
        there = rows >= 0
        newer = np.cumsum(there[:, ::-1], axis=1)[:, ::-1] - 1
        weights = np.where(there, np.maximum(window.weights, 0) * self.recency**newer, 0).astype(np.float32)
        short_BD = _normalized(np.matmul(weights[:, None], self._items[np.maximum(rows, 0)])[:, 0])
        if not any(map(len, profiles)):
            fused = short_BD, np.ones(len(rows), np.float32), np.zeros_like(short_BD)
        else:
            long_BSD, mask_BS = _padded(profiles, self.dim)
            count_B1 = mask_BS.sum(1, keepdims=True)
            mean_BD = (_normalized(long_BSD - self._mean) * mask_BS[..., None]).sum(1) / np.maximum(count_B1, 1)
            w_B1 = np.where(count_B1 > 0, alpha, 1).astype(np.float32)
            long_BD = ((1 - w_B1) * mean_BD).astype(np.float32)
            fused = w_B1 * short_BD + long_BD, w_B1[:, 0], long_BD
        vectors, short, long = (torch.from_numpy(part).to(device) for part in fused)
        return Fused(vectors, short, long)


def padded(profiles: list[NDArray[np.float32]], dim: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Profiles f32[S,P] of B users as f32[B,S,P], left-padded, and a mask bool[B,S] of the rows that say
    anything; S is at least 1.
    """
    vectors, mask = _padded(profiles, dim)
    return torch.from_numpy(vectors).to(device), torch.from_numpy(mask).to(device)


def _padded(profiles: list[NDArray[np.float32]], dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    flat, there, mask = joined(profiles, dim)
    vectors = np.zeros((*there.shape, dim), np.float32)
    vectors[there] = flat
    return vectors, mask


def joined(
    profiles: list[NDArray[np.float32]], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
    """The vectors of B users' profiles one after the other, f32[X,dim]; where they stand when padded on the left,
    bool[B,S], S at least 1; and which of these places say anything, bool[B,S].
    """
    counts = np.fromiter(map(len, profiles), np.int64, len(profiles))
    most = int(counts.max(initial=1))
    there = np.arange(most) >= most - counts[:, None]
    if not counts.any():
        return np.zeros((0, dim), np.float32), there, there
    flat = np.concatenate(profiles if counts.all() else [profiles[b] for b in np.flatnonzero(counts).tolist()])
    mask = there.copy()
    mask[there] = flat.any(1)
    return flat, there, mask


def _normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each of length 1 along the last axis; zeros stay zeros."""
    length = np.sqrt(np.einsum("...d,...d->...", vectors, vectors))[..., None]
    return vectors / np.maximum(length, 1e-12)
