"""Vectors in a few bytes each, in lists by their nearest centre: IVF-PQ (Jegou, Douze and Schmid, 2011), as FAISS has
it, with the best of what it finds compared exactly.

For more vectors than a graph of them has room for. The vectors themselves are kept beside it, as the caller has them:
the structure adds a quarter of a byte to each dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index import base
from index.base import Bytes, Ids, Vectors
from index.held import FaissIndex, Snapshot, compared, flat_of
from index.library import faiss

DIMENSIONS_A_BYTE = 4
RESCORED, LEAST_RESCORED = 8, 512
"""Candidates that are compared exactly: so many times what is asked for, and at least so many."""
PROBES = 0.05
"""Share of the lists that is searched."""
TRAINED_FROM = 10_000
"""Vectors below which there is nothing to quantise: all are compared."""
SAMPLE = 64
"""Vectors a list that its centre is learned from."""
SEED = 1


class QuantisedIndex(FaissIndex):
    """IVF-PQ with exact re-scoring on the CPU. probes: share of the lists that is searched."""

    kind = "ivf-pq"

    def __init__(self, dim: int, probes: float = PROBES) -> None:
        self._probes = probes
        super().__init__(dim)

    def _built(self, vectors: Vectors) -> Any:
        n, dim = vectors.shape
        if n < TRAINED_FROM:
            return flat_of(vectors)
        lists = lists_for(n)
        parts = max(part for part in range(1, dim // DIMENSIONS_A_BYTE + 1) if dim % part == 0) if dim >= 4 else 1
        centres: Any = faiss.IndexFlatIP(dim)
        structure = faiss.IndexIVFPQ(centres, dim, lists, parts, 8, faiss.METRIC_INNER_PRODUCT)
        structure.own_fields = True
        centres.this.disown()
        sample = np.random.default_rng(SEED).choice(n, min(n, SAMPLE * lists), replace=False)
        structure.train(np.ascontiguousarray(vectors[np.sort(sample)]))  # pyright: ignore[reportCallIssue]
        structure.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
        return structure

    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        if not isinstance(now.structure, faiss.IndexIVFPQ):
            return compared(now, query, fetch)
        wide = min(max(RESCORED * fetch, LEAST_RESCORED), len(now.ids))
        # Lists that hold ten times the candidates, where that is more than the share: behind many that are masked.
        share = min(1.0, max(self._probes, 10 * wide / len(now.ids)))
        probes = faiss.SearchParametersIVF(nprobe=max(1, round(share * now.structure.nlist)))  # pyright: ignore[reportCallIssue]
        at = now.structure.search(query, wide, params=probes)[1]
        scores = np.matmul(now.vectors[np.maximum(at, 0)], query[:, :, None])[:, :, 0]
        scores[at < 0] = -np.inf
        best = np.argpartition(-scores, fetch - 1, 1)[:, :fetch] if fetch < wide else np.argsort(-scores, 1)
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), 1, kind="stable"), 1)
        return np.take_along_axis(scores, best, 1), np.take_along_axis(at, best, 1)

    def _structure_bytes(self, now: Snapshot) -> Bytes | None:
        return faiss.serialize_index(now.structure) if isinstance(now.structure, faiss.IndexIVFPQ) else None

    def _revived(self, saved: base.Saved, structure: Bytes) -> Snapshot:
        return Snapshot(saved.ids, saved.vectors, faiss.deserialize_index(structure))


def lists_for(n: int) -> int:
    """How many lists n vectors are in."""
    return int(2 * n**0.5)
