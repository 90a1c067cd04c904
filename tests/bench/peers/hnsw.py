"""hnswlib: HNSW by the authors of the method, with the same M, efConstruction and efSearch.

Links, construction and threads are the arguments.
"""

from __future__ import annotations

import sys

import hnswlib
import numpy as np
from seat import K, serve


class Hnswlib:
    """See `seat.Seat`."""

    def __init__(self, links: int, construction: int, threads: int) -> None:
        self._links, self._construction, self._threads = links, construction, threads

    def build(self, vectors: np.ndarray) -> None:
        self._index = hnswlib.Index("ip", vectors.shape[1])
        self._index.init_index(len(vectors), M=self._links, ef_construction=self._construction)
        self._index.set_num_threads(self._threads)
        self._index.add_items(vectors)

    def search(self, queries: np.ndarray, exclude: list[np.ndarray] | None = None) -> np.ndarray:
        return self._index.knn_query(queries, K)[0].astype(np.int64)

    def widen(self, search: int) -> None:
        self._index.set_ef(search)


if __name__ == "__main__":
    serve(Hnswlib(*map(int, sys.argv[1:4])))
