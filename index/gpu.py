"""FAISS's structures on a GPU: every vector compared (Johnson, Douze and Jegou, 2017), and CAGRA's graph (Ootomo and
others, 2024).

They need a FAISS that is built for GPUs in place of faiss-cpu: `faiss-gpu` for the first, `faiss-gpu-cuvs` for both. A
structure on a GPU is built anew from vectors in memory whenever it changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from index.base import Ids, Vectors
from index.held import FaissIndex, Snapshot, compared, flat_of
from index.library import faiss

MOST = 2048
"""Neighbours that a structure on a GPU returns at most."""
TEMPORARY = 256 << 20
"""Bytes on a GPU that a structure has for its searches."""
GRAPH_FROM = 1024
"""Vectors that CAGRA needs; fewer are compared."""


def available() -> bool:
    """Whether FAISS can use a GPU here."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class GpuFlatIndex(FaissIndex):
    """Every vector on a GPU compared. device: "cuda" or "cuda:N". Raises RuntimeError where FAISS cannot use one."""

    kind = "gpu-flat"
    package = "faiss-gpu"

    def __init__(self, dim: int, device: str = "cuda") -> None:
        if not available():
            raise RuntimeError(
                f"no FAISS for {device!r}: install {self.package} in place of faiss-cpu, or use device 'cpu'"
            )
        self.device = device
        super().__init__(dim)

    @property
    def _number(self) -> int:
        return int(self.device.partition(":")[2] or 0)

    def _built(self, vectors: Vectors) -> Any:
        return faiss.index_cpu_to_gpu(_resources(), self._number, flat_of(vectors))  # pyright: ignore[reportAttributeAccessIssue]

    def _grown(self, now: Snapshot, vectors: Vectors) -> Any:
        return self._built(np.concatenate([now.vectors, vectors]))

    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        return now.structure.search(query, fetch) if fetch <= MOST else compared(now, query, fetch)


class CagraIndex(GpuFlatIndex):
    """A graph on a GPU, for more vectors than it compares in time."""

    kind = "cagra"
    package = "faiss-gpu-cuvs"

    def __init__(self, dim: int, device: str = "cuda") -> None:
        if not hasattr(faiss, "GpuIndexCagra"):
            raise RuntimeError(f"this FAISS has no CAGRA: install {self.package} in its place, or use kind 'gpu-flat'")
        super().__init__(dim, device)

    def _built(self, vectors: Vectors) -> Any:
        if len(vectors) < GRAPH_FROM:
            return super()._built(vectors)
        config = faiss.GpuIndexCagraConfig()  # pyright: ignore[reportAttributeAccessIssue]
        config.device = self._number
        graph = faiss.GpuIndexCagra(_resources(), vectors.shape[1], faiss.METRIC_INNER_PRODUCT, config)  # pyright: ignore[reportAttributeAccessIssue]
        graph.train(np.ascontiguousarray(vectors))
        return graph


def _resources() -> Any:
    """A structure's own: one is searched while the next is built on another thread, and FAISS has them not shared by
    two. With a part of the memory that they take unless told, since two are alive then.
    """
    resources = faiss.StandardGpuResources()  # pyright: ignore[reportAttributeAccessIssue]
    resources.setTempMemory(TEMPORARY)
    return resources
