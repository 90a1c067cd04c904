"""Vectors in a few bits each, in lists by their nearest centre: IVF-PQ (Jegou, Douze and Schmid, 2011) with codes of
four bits that a CPU's registers look up (Andre, Kermarrec and Le Scouarnec, Cache Locality Is Not Enough, 2015), as
FAISS has it; the best of what it finds is compared exactly.

Where a CPU has many vectors. A graph follows links from one place in memory to another, some five thousand for a
query; this reads a few lists from end to end. The vectors themselves are kept beside it, as the caller has them: the
structure adds a quarter of a byte to each dimension. How many lists are searched is the structure's own `nprobe`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from index import base
from index.base import Bytes, Ids, Vectors
from index.held import FaissIndex, Snapshot, compared, flat_of, for_size
from index.library import faiss

DIMENSIONS_A_CODE, BITS = 2, 4
RESCORED, LEAST_RESCORED = {0: 4, 500_000: 8}, 256
"""Candidates that are compared exactly: so many times what is asked for, of so many vectors or more; and at least."""
PROBES, MOST_PROBES = 0.02, 0.4
"""Share of the lists that is searched at first, and where that finds too little, at most."""
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

    def wider(self) -> bool:
        structure = self._now.structure
        if not _quantised(structure) or structure.nprobe >= MOST_PROBES * structure.nlist:
            return False
        structure.nprobe *= 2
        return True

    def _built(self, vectors: Vectors) -> Any:
        n, dim = vectors.shape
        if n < TRAINED_FROM:
            return flat_of(vectors)
        lists = lists_for(n)
        centres: Any = faiss.IndexFlatIP(dim)
        structure = faiss.IndexIVFPQFastScan(centres, dim, lists, codes_for(dim), BITS, faiss.METRIC_INNER_PRODUCT)
        structure.own_fields = True
        centres.this.disown()
        sample = np.random.default_rng(SEED).choice(n, min(n, SAMPLE * lists), replace=False)
        structure.train(np.ascontiguousarray(vectors[np.sort(sample)]))  # pyright: ignore[reportCallIssue]
        structure.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
        structure.nprobe = max(1, round(self._probes * lists))
        return structure

    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        structure = now.structure
        if not _quantised(structure):
            return compared(now, query, fetch)
        wide = min(max(rescored_of(len(now.ids)) * fetch, LEAST_RESCORED), len(now.ids))
        # Lists that hold ten times the candidates, where that is more: behind many that are masked.
        least = round(min(1.0, 10 * wide / len(now.ids)) * structure.nlist)
        at = structure.search(query, wide, params=_probing(max(structure.nprobe, least)))[1]
        scores = _products(query, now.vectors, at)
        rows, best = np.arange(len(query))[:, None], np.argsort(-scores, 1, kind="stable")[:, :fetch]
        return scores[rows, best], at[rows, best]

    def _structure_bytes(self, now: Snapshot) -> Bytes | None:
        return faiss.serialize_index(now.structure) if _quantised(now.structure) else None

    def _revived(self, saved: base.Saved, structure: Bytes) -> Snapshot:
        return Snapshot(saved.ids, saved.vectors, faiss.deserialize_index(structure))


@lru_cache
def _probing(lists: int) -> Any:
    """A search of so many lists."""
    return faiss.SearchParametersIVF(nprobe=lists)  # pyright: ignore[reportCallIssue]


def _quantised(structure: Any) -> bool:
    return isinstance(structure, faiss.IndexIVFPQFastScan)


def _products(query: Vectors, vectors: Vectors, at: Ids) -> Vectors:
    """Inner products f32[B,k] of queries f32[B,d] and the vectors at i64[B,k], without gathering them; -inf: none."""
    vectors, rows = np.ascontiguousarray(vectors), np.maximum(at, 0)
    out = np.empty(at.shape, np.float32)
    pointers = map(faiss.swig_ptr, (out, query, vectors, rows))
    faiss.fvec_inner_products_by_idx(*pointers, vectors.shape[1], *at.shape)  # pyright: ignore[reportAttributeAccessIssue]
    out[at < 0] = -np.inf
    return out


def rescored_of(n: int) -> int:
    """How many times what is asked for is compared exactly, of n vectors."""
    return for_size(RESCORED, n)


def lists_for(n: int) -> int:
    """How many lists n vectors are in."""
    return int(2 * n**0.5)


def codes_for(dim: int) -> int:
    """How many codes stand for a vector: each for as many dimensions as the others."""
    most = max(1, dim // DIMENSIONS_A_CODE)
    return max(codes for codes in range(1, most + 1) if dim % codes == 0)
