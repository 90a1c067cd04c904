"""TF-IDF and SVD: items as a few dozen numbers made of their words alone, users as the mean of what they met.

The light alternative to BERT: no network is read, and a catalogue takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from model.evaluation.exams import Asked, Method
from model.evaluation.methods.choosing import sweep
from model.evaluation.methods.matrix import decayed, history_matrix
from model.replay import Timeline

WORD = re.compile(r"\w+")
GRID = {"recency": (0.8, 0.9, 0.95, 1.0)}


class TextSvd(Method):
    """Items' texts, one a catalogue row, as unit vectors of at most `dim` numbers."""

    name = "tfidf-svd"

    def __init__(self, texts: Sequence[str], dim: int = 64, recency: float = 0.9) -> None:
        self._vectors = tfidf_svd(texts, dim)
        self._recency = recency

    def learn(self, line: Timeline, end: int) -> None:
        """Texts are all it reads."""

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        wanted = history_matrix(asked.rows, len(self._vectors), decayed(asked.rows, self._recency))
        return (wanted @ self._vectors) @ self._vectors.T

    def settings(self) -> dict[str, object]:
        return {"recency": self._recency}

    def variants(self) -> Sequence[Method]:
        return [self._with(**change) for change in sweep(self.settings(), GRID)]

    def _with(self, recency: float) -> TextSvd:
        other = object.__new__(TextSvd)
        other._vectors, other._recency = self._vectors, recency
        return other


def tfidf_svd(texts: Sequence[str], dim: int) -> NDArray[np.float32]:
    """Unit vectors f32[N,D], D = dim or less where there are fewer items or words; zeros where no word is shared."""
    index: dict[str, int] = {}
    rows: list[int] = []
    words: list[int] = []
    for row, text in enumerate(texts):
        found = [index.setdefault(w, len(index)) for w in WORD.findall(text.lower())]
        words += found
        rows += [row] * len(found)
    shape = (len(texts), max(len(index), 1))
    counts: Any = sparse.csr_array((np.ones(len(rows)), (rows, words)), shape=shape)
    counts.sum_duplicates()
    documents = np.maximum(np.asarray((counts > 0).sum(0)).ravel(), 1)
    weighted = counts.log1p() @ sparse.diags_array(np.log(len(texts) / documents) + 1e-6)
    dim = min(dim, min(shape) - 1)
    if dim < 1:
        return np.ones((len(texts), 1), np.float32)
    left, size, _ = svds(weighted, k=dim, v0=np.ones(min(shape)))
    vectors = left * size
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(norm, 1e-9)).astype(np.float32)
