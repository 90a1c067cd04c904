"""Every vector compared with every query, by FAISS on a CPU, where it is faster than torch."""

from __future__ import annotations

from typing import Any

from index.base import Ids, Vectors
from index.held import FaissIndex, Snapshot, flat_of, stored


class FlatIndex(FaissIndex):
    """All compared."""

    kind = "flat"

    def _built(self, vectors: Vectors) -> Any:
        return flat_of(vectors)

    def _held(self, structure: Any) -> Vectors | None:
        return stored(structure)

    def _found(self, now: Snapshot, query: Vectors, fetch: int) -> tuple[Vectors, Ids]:
        return now.structure.search(query, fetch)
