"""Which index for how many vectors on which device, its build, and what is kept of one for the next start.

The kinds are modules of their own. An index that finds too little is not given out.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from index import base, gpu
from index.base import Ids, Index, IndexFileError, Vectors
from index.config import IndexConfig, Kind
from index.exact import ExactIndex
from index.flat import FlatIndex
from index.gpu import CagraIndex, GpuFlatIndex
from index.graph import GraphIndex
from index.held import FaissIndex
from index.quantised import QuantisedIndex
from index.recall import IndexBuildError, sufficient_recall

log = logging.getLogger(__name__)

GRAPH_FROM = 50_000
"""Vectors from which a CPU is asked to search a graph: below, comparing all of them takes less than 2 ms."""
QUANTISED_FROM = 5_000_000
"""Vectors from which a graph's links and vectors would take more than 4 GB."""
PROBES, MEASURED_K = 64, 50
"""Vectors by which recall is measured, and how many neighbours of each."""
KINDS: dict[str, type[FaissIndex]] = {
    kind.kind: kind for kind in (FlatIndex, GraphIndex, QuantisedIndex, GpuFlatIndex, CagraIndex)
}


class Choice(NamedTuple):
    """A kind, and why it."""

    kind: Kind
    why: str


def choose(n: int, device: str) -> Choice:
    """What `auto` takes for n vectors on "cpu", "cuda" or "cuda:N"."""
    if device != "cpu":
        if gpu.available():
            return Choice("gpu-flat", f"a GPU compares all of {n:,} items")
        return Choice("exact", f"torch compares all of {n:,} items on {device}: FAISS is not built for GPUs here")
    if n < GRAPH_FROM:
        return Choice("flat", f"below {GRAPH_FROM:,} items, comparing all takes a CPU less than 2 ms")
    if n < QUANTISED_FROM:
        return Choice("hnsw", f"{n:,} items are more than a CPU compares in 2 ms")
    return Choice("ivf-pq", f"a graph of {n:,} items would take more than 4 GB")


def build(
    ids: Ids, vectors: Vectors, device: str = "cpu", config: IndexConfig | None = None, before: Index | None = None
) -> Index:
    """An index of vectors f32[N,d] under `ids`, its recall measured.

    before: an index of what was there before, from which this one is made where it is of the same kind. An approximate
    index that finds too little gives way to comparing all.

    Raises:
        IndexBuildError: even that falls short.
        RuntimeError: the kind that is asked for cannot be had here; says what to install.
    """
    config = config or IndexConfig()
    kind, why = choose(len(ids), device) if config.kind == "auto" else (config.kind, "as set")
    try:
        found = _measured(_made(kind, ids, vectors, device, before), ids, vectors, config.recall)
    except IndexBuildError as error:
        if kind in ("flat", "exact"):
            raise
        log.warning("%s is not used: %s; all items are compared", kind, error)
        kind, why = "flat", f"{kind} found too little"
        found = _measured(FlatIndex.of(ids, vectors), ids, vectors, config.recall)
    log.debug("index of %d items: %s, %s", len(ids), kind, why)
    return found


def opened(path: Path) -> Index | None:
    """The index in a file, to go on from; None where there is none, or a damaged one, which is told of."""
    try:
        saved = base.load(path)
    except FileNotFoundError:
        return None
    except IndexFileError as error:
        log.warning("%s", error)
        return None
    kind = KINDS.get(saved.kind)
    return kind.revived(saved) if kind is not None else None


def _made(kind: Kind, ids: Ids, vectors: Vectors, device: str, before: Index | None) -> FaissIndex | ExactIndex:
    if kind == "exact":
        return ExactIndex.of(ids, vectors, device)
    if isinstance(before, FaissIndex) and before.kind == kind and before.dim == vectors.shape[1]:
        return before.updated(ids, vectors)
    on_gpu = {"device": device} if issubclass(KINDS[kind], GpuFlatIndex) and device != "cpu" else {}
    return KINDS[kind].of(ids, vectors, **on_gpu)


def _measured(index: FaissIndex | ExactIndex, ids: Ids, vectors: Vectors, least: float) -> Index:
    """The index, its recall of up to 50 neighbours of some of its own vectors known."""
    probes = vectors[:: max(1, len(vectors) // PROBES)][:PROBES]
    index.recall = sufficient_recall(index, ExactIndex.of(ids, vectors), probes, MEASURED_K, least)
    return index
