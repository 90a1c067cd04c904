"""An index of ours, or plain FAISS of the same kind and parameters, for `bench_index`: see `peers/seat.py`.

System (`ours`, `faiss`), kind and threads are the arguments.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil

from index.choose import KINDS
from index.graph import BUILD, LINKS, GraphIndex
from index.held import FaissIndex, use_threads
from index.quantised import BITS, LEAST_RESCORED, PROBES, codes_for, lists_for, rescored_of
from tests.bench.peers.seat import K, serve


class Ours:
    """An index as a worker has it."""

    def __init__(self, kind: str) -> None:
        self._kind = KINDS[kind]
        self._index: FaissIndex | None = None
        self._bare: Any = None

    @property
    def index(self) -> FaissIndex:
        assert self._index is not None, "build comes first"
        return self._index

    def build(self, vectors: np.ndarray) -> None:
        self._index = self._kind.of(np.arange(len(vectors)), vectors)

    def search(self, queries: np.ndarray, exclude: list[np.ndarray] | None = None) -> np.ndarray:
        if self._bare is not None:
            return self.index.structure.search(queries, K, params=self._bare)[1]
        return self.index.search(queries, K, exclude)[1]

    def widen(self, search: int) -> None:
        assert isinstance(self.index, GraphIndex)
        self.index.search_width = search

    def more(self, told: dict[str, Any]) -> dict[str, Any]:
        """What the others cannot be told."""
        if told["do"] == "keep":
            return self.kept(Path(told["path"]))
        if told["do"] == "bare":  # FAISS's graph alone, as it lies in this process
            self._bare = faiss.SearchParametersHNSW(efSearch=told["search"]) if told["search"] else None  # pyright: ignore[reportAttributeAccessIssue]
            return {}
        faiss.write_index(self.index.structure, told["path"])
        return {}

    def kept(self, path: Path) -> dict[str, float]:
        """Seconds to write it and to read it again."""
        began = time.perf_counter()
        self.index.save(path)
        saved = time.perf_counter()
        self._index = None
        self._index = self._kind.load(path)
        read = time.perf_counter()
        return {"save_s": saved - began, "load_s": read - saved, "file_mb": path.stat().st_size / 2**20}


class Plain:
    """FAISS as its documentation has it."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._index: Any = None

    def build(self, vectors: np.ndarray) -> None:
        n, dim = vectors.shape
        if self._kind == "flat":
            self._index = faiss.IndexFlatIP(dim)
        elif self._kind == "hnsw":
            self._index = faiss.IndexHNSWFlat(dim, LINKS, faiss.METRIC_INNER_PRODUCT)
            self._index.hnsw.efConstruction = BUILD
        else:
            lists = lists_for(n)
            factory = f"IVF{lists},PQ{codes_for(dim)}x{BITS}fs,RFlat"
            self._index = faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)
            self._index.k_factor = max(rescored_of(n), LEAST_RESCORED / K)
            faiss.extract_index_ivf(self._index).nprobe = round(PROBES * lists)
            self._index.train(vectors)
        self._index.add(vectors)

    def search(self, queries: np.ndarray, exclude: list[np.ndarray] | None = None) -> np.ndarray:
        return self._index.search(queries, K)[1]

    def widen(self, search: int) -> None:
        self._index.hnsw.efSearch = search

    def more(self, told: dict[str, Any]) -> dict[str, Any]:
        """Takes a structure as FAISS has written it in place of building one."""
        before = psutil.Process().memory_info().rss
        self._index = faiss.read_index(told["path"])
        return {"memory_mb": (psutil.Process().memory_info().rss - before) / 2**20}


def main() -> None:
    """Serve one."""
    system, kind = sys.argv[1:3]
    use_threads(int(sys.argv[3]))
    if system == "faiss":
        plain = Plain(kind)
        serve(plain, plain.more)
        return
    ours = Ours(kind)
    serve(ours, ours.more)


if __name__ == "__main__":
    main()
