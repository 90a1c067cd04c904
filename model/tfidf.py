"""Texts to vectors without BERT: TF-IDF of their words, reduced by an SVD (latent semantic analysis; Deerwester et
al. 1990).

Fitted to the texts of one catalogue and kept with the model, so that a text that comes later is read as those were.
Words are hashed into `WORDS` columns: no vocabulary is stored, and two words may share one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

WORDS = 8192
DIM = 128


class Lexicon(nn.Module):
    """Unit vectors of length 128; zero for a text without a known word."""

    idf: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("idf", torch.ones(WORDS))
        self.register_buffer("basis", torch.zeros(WORDS, DIM))

    def fit(self, texts: Sequence[str]) -> None:
        """Learns how rare each word is, and which occur together."""
        counted = _counts(texts)
        rare = np.log((1 + len(texts)) / (1 + np.bincount(counted.indices, minlength=WORDS))) + 1
        self.idf.copy_(torch.from_numpy(rare.astype(np.float32)))
        if len(texts) > 1 and counted.nnz:
            found = _directions(self._weighed(counted), min(DIM, len(texts) - 1))
            self.basis[:, : len(found)].copy_(torch.from_numpy(found.T.astype(np.float32)))

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """f32[n,128]."""
        vectors = np.asarray(self._weighed(_counts(texts)) @ self.basis.cpu().numpy(), np.float32)
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    def _weighed(self, counted: Any) -> Any:
        weights = counted.copy()
        weights.data = (1 + np.log(weights.data)) * self.idf.cpu().numpy()[weights.indices]
        length = np.sqrt(weights.multiply(weights).sum(1)).reshape(-1)
        return sparse.diags_array(1 / np.maximum(length, 1e-9)) @ weights


def _directions(rows: Any, most: int) -> NDArray[np.floating]:
    """The strongest right singular vectors of a sparse matrix, at most so many, [k,WORDS]; always the same ones
    (randomised, with a fixed seed; Halko et al. 2011).
    """
    read = rows @ np.random.default_rng(0).normal(size=(rows.shape[1], most + 10))
    for _ in range(3):
        read = rows @ (rows.T @ np.linalg.qr(read)[0])
    near = np.linalg.qr(read)[0]
    _, strength, found = np.linalg.svd((rows.T @ near).T, full_matrices=False)
    return found[:most][strength[:most] > 1e-6 * strength[0]]


def _counts(texts: Sequence[str]) -> Any:
    """How often each word is in each text, [n,WORDS], sparse."""
    words = [Counter(crc32(w.encode()) % WORDS for w in re.findall(r"\w+", text.lower())) for text in texts]
    ends = np.cumsum([0, *map(len, words)])
    columns = np.fromiter((c for text in words for c in text), np.int64, ends[-1])
    counts = np.fromiter((n for text in words for n in text.values()), np.float32, ends[-1])
    return sparse.csr_array((counts, columns, ends), shape=(len(texts), WORDS))
