"""A graph of neighbours, searched from node to node: HNSW (Malkov and Yashunin, 2016), as FAISS has it.

It looks at a few thousand of a million, and is exact to a few in a thousand where queries are like the vectors. Lists
of codes (`quantised.py`) are searched faster by what is made here of it, and built in a tenth of the time.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from index import base
from index.base import Bytes, Ids, Vectors
from index.held import FaissIndex, Snapshot, compared, flat_of, for_size, stored
from index.library import faiss

LINKS, BUILD = 32, 80
"""Neighbours a vector is linked to, and how many candidates are kept when it is put in."""
SEARCH, MOST = {0: 128, 500_000: 192}, 1024
"""How many candidates are kept at least when one is sought, from so many vectors on; and at most, where that finds too
little."""
COMPARE_FROM = 8
"""A graph that is asked for more than an eighth of what it has is slower than comparing all."""


class GraphIndex(FaissIndex):
    """HNSW on the CPU. links, build, search: FAISS's M, efConstruction and efSearch, the last by the number of vectors
    where it is not given.
    """

    kind = "hnsw"

    def __init__(self, dim: int, links: int = LINKS, build: int = BUILD, search: int | None = None) -> None:
        self._links, self._build, self.search_width = links, build, search
        super().__init__(dim)

    def wider(self) -> bool:
        width = self._looked_at(len(self._now.ids))
        self.search_width = min(2 * width, MOST)
        return self.search_width > width

    def _looked_at(self, n: int) -> int:
        return self.search_width or width_for(n)

    def _built(self, vectors: Vectors) -> Any:
        graph = faiss.IndexHNSWFlat(vectors.shape[1], self._links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self._build
        if len(vectors):
            graph.add(np.ascontiguousarray(vectors))  # pyright: ignore[reportCallIssue]
        return graph

    def _held(self, structure: Any) -> Vectors | None:
        return stored(faiss.downcast_index(structure.storage))

    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        least = self._looked_at(len(now.ids))
        if fetch * COMPARE_FROM > len(now.ids) and fetch > least:
            return compared(now, query, fetch)
        return now.structure.search(query, fetch, params=_wide(max(least, fetch)))

    def _structure_bytes(self, now: Snapshot) -> Bytes:
        now.structure.hnsw.efSearch = self._looked_at(len(now.ids))  # read again by `_revived`, and by nobody else
        writer = faiss.VectorIOWriter()  # pyright: ignore[reportAttributeAccessIssue]
        faiss.write_index(now.structure, writer, faiss.IO_FLAG_SKIP_STORAGE)  # pyright: ignore[reportAttributeAccessIssue]
        return faiss.vector_to_array(writer.data)  # pyright: ignore[reportAttributeAccessIssue]

    def _revived(self, saved: base.Saved, structure: Bytes) -> Snapshot:
        reader = faiss.VectorIOReader()  # pyright: ignore[reportAttributeAccessIssue]
        faiss.copy_array_to_vector(structure, reader.data)  # pyright: ignore[reportAttributeAccessIssue]
        graph: Any = faiss.read_index(reader, faiss.IO_FLAG_SKIP_STORAGE)  # pyright: ignore[reportAttributeAccessIssue]
        flat = flat_of(saved.vectors)
        graph.storage, graph.own_fields = flat, True
        if graph.hnsw.efSearch > width_for(len(saved.ids)):
            self.search_width = graph.hnsw.efSearch
        flat.this.disown()
        held = stored(flat)
        return Snapshot(saved.ids, saved.vectors if held is None else held, graph)


def width_for(n: int) -> int:
    """efSearch for n vectors."""
    return for_size(SEARCH, n)


@lru_cache
def _wide(search: int) -> Any:
    """A search that keeps so many candidates."""
    return faiss.SearchParametersHNSW(efSearch=search)  # pyright: ignore[reportAttributeAccessIssue]
