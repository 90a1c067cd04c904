"""Search with FAISS (Johnson, Douze and Jegou, 2017): Flat on a CPU, or on a GPU where faiss-gpu and a device
are there, and HNSW (Malkov and Yashunin, 2016) where a CPU has many vectors to compare.

Flat compares every vector, faster than torch on a CPU. GPU indexes and HNSW ignore id selectors or cannot
remove, so nothing here relies on either: a change builds a new index aside and swaps it in; `exclude`
over-fetches and masks; `allow` compares the allowed vectors alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from index import base
from index.base import Ids, Vectors
from index.exact import ExactIndex
from index.recall import IndexBuildError, sufficient_recall

GPU_MAX_K = 2048
PROBES = 64
HNSW_FROM = 50_000
"""Vectors from which a CPU is asked to search a graph: below, comparing all of them takes less than 2 ms."""
HNSW_LINKS, HNSW_BUILD, HNSW_SEARCH = 32, 80, 128
"""Neighbours a vector is linked to; how many candidates are kept when it is put in, and at least when one is sought."""


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """A FAISS index and the ids and vectors it was built from; replaced as a whole."""

    ids: Ids
    vectors: Vectors
    faiss: Any


class FaissIndex:
    """FAISS by inner product. device: "cpu", or "cuda" / "cuda:N", which needs a FAISS built for GPUs and is always
    Flat. graph: search an HNSW graph instead of comparing all.
    """

    def __init__(self, dim: int, device: str = "cpu", graph: bool = False) -> None:
        self._device = device
        self._graph = graph
        self._resources = _gpu_resources(device)
        self.recall: float | None = None
        self._now = self._snapshot(np.zeros(0, np.int64), np.zeros((0, dim), np.float32))

    @property
    def dim(self) -> int:
        return self._now.vectors.shape[1]

    def __len__(self) -> int:
        return len(self._now.ids)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        ids, vectors = base.check(ids, vectors, self.dim)
        self._now = self._snapshot(*base.merged(self._now.ids, self._now.vectors, ids, vectors))

    def remove(self, ids: Ids) -> int:
        keep = ~np.isin(self._now.ids, ids)
        self._now = self._snapshot(self._now.ids[keep], self._now.vectors[keep])
        return int((~keep).sum())

    def search(
        self, vectors: Vectors, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        now = self._now
        if allow is not None:
            keep = np.isin(now.ids, allow)
            now = self._flat(now.ids[keep], now.vectors[keep])
        excluded = list(exclude or ())
        fetch = min(k + max(map(len, excluded), default=0), len(now.ids))
        query = np.ascontiguousarray(vectors, np.float32)
        if fetch == 0 or not len(query):
            return np.full((len(query), k), -np.inf, np.float32), np.full((len(query), k), -1, np.int64)
        if self._resources is not None and fetch > GPU_MAX_K:
            now = self._flat(now.ids, now.vectors)  # a GPU index returns at most 2,048 neighbours
        if isinstance(now.faiss, faiss.IndexHNSW):
            wide = faiss.SearchParametersHNSW(efSearch=max(HNSW_SEARCH, fetch))  # pyright: ignore[reportAttributeAccessIssue]
            scores, at = now.faiss.search(query, fetch, params=wide)
        else:
            scores, at = now.faiss.search(query, fetch)
        if fetch == k and not excluded and (at >= 0).all():
            return scores, now.ids[at]
        ids = np.where(at >= 0, now.ids[at], -1)  # a graph may find fewer
        for row, hidden in enumerate(excluded):
            ids[row, np.isin(ids[row], hidden)] = -1
        return _nearest(scores, ids, k)

    def save(self, path: Path) -> None:
        base.save(path, self._now.ids, self._now.vectors)

    @classmethod
    def load(cls, path: Path) -> Self:
        ids, vectors = base.load(path)
        index = cls(vectors.shape[1])
        index.add(ids, vectors)
        return index

    def stats(self) -> dict[str, Any]:
        kind = "faiss-hnsw" if self._graph else "faiss-flat" if self._resources is None else "faiss-flat-gpu"
        return {
            "kind": kind,
            "device": self._device,
            "size": len(self),
            "dim": self.dim,
            "recall": self.recall,
        }

    def _snapshot(self, ids: Ids, vectors: Vectors) -> _Snapshot:
        if self._graph and len(vectors):
            graph = faiss.IndexHNSWFlat(vectors.shape[1], HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = HNSW_BUILD
            graph.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
            return _Snapshot(ids, vectors, graph)
        flat = self._flat(ids, vectors)
        if self._resources is None:
            return flat
        number = int(self._device.partition(":")[2] or 0)
        return _Snapshot(ids, vectors, faiss.index_cpu_to_gpu(self._resources, number, flat.faiss))

    def _flat(self, ids: Ids, vectors: Vectors) -> _Snapshot:
        flat = faiss.IndexFlatIP(vectors.shape[1])
        if len(vectors):
            flat.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
        return _Snapshot(ids, vectors, flat)


def build(vectors: Vectors, device: str = "cpu", k: int = 10) -> FaissIndex:
    """An index of vectors f32[N,d] under the ids 0..N-1, its recall@k measured with up to 64 of them as queries.

    On a CPU a graph from 50,000 vectors on, unless it finds too little of them: then all are compared.
    Raises IndexBuildError where even that falls short.
    """
    if device == "cpu" and len(vectors) >= HNSW_FROM:
        with suppress(IndexBuildError):
            return _measured(FaissIndex(vectors.shape[1], graph=True), vectors, k)
    return _measured(FaissIndex(vectors.shape[1], device), vectors, k)


def _measured(index: FaissIndex, vectors: Vectors, k: int) -> FaissIndex:
    ids = np.arange(len(vectors), dtype=np.int64)
    index.add(ids, vectors)
    reference = ExactIndex(vectors.shape[1])
    reference.add(ids, vectors)
    probes = vectors[:: max(1, len(vectors) // PROBES)][:PROBES]
    index.recall = sufficient_recall(index, reference, probes, k)
    return index


def _gpu_resources(device: str) -> Any:
    """FAISS's handle on a GPU, one for each index; None for the CPU. Raises RuntimeError where the GPU cannot
    be used.
    """
    if device == "cpu":
        return None
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        raise RuntimeError(
            f"no FAISS for {device!r}: install a faiss-gpu package in place of faiss-cpu, or use device 'cpu'"
        )
    return faiss.StandardGpuResources()


def _nearest(scores: Vectors, ids: Ids, k: int) -> tuple[Vectors, Ids]:
    """Moves masked entries (-1) behind the others, keeping order, and cuts or pads to k."""
    order = np.argsort(ids == -1, axis=1, kind="stable")[:, :k]
    ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    scores = np.where(ids == -1, np.float32(-np.inf), scores)
    pad = ((0, 0), (0, k - ids.shape[1]))
    return np.pad(scores, pad, constant_values=-np.inf), np.pad(ids, pad, constant_values=-1)
