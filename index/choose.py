"""Which index for how many vectors on which device, its build, and what is kept of one for the next start.

The kinds are modules of their own. An index that finds too little is not given out.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from index import base
from index.base import Ids, Index, IndexFileError, Vectors
from index.config import NEEDS_MORE, IndexConfig, Kind
from index.exact import ExactIndex
from index.flat import FlatIndex
from index.gpu import CagraIndex, GpuFlatIndex
from index.graph import GraphIndex
from index.held import FaissIndex
from index.quantised import QuantisedIndex
from index.recall import IndexBuildError, sufficient_recall

log = logging.getLogger(__name__)

QUANTISED_FROM = 20_000
"""Vectors from which a CPU does not compare all: below, that takes it less than 2 ms."""
PROBES, MIXED, MEASURED_K = 64, 3, 50
"""Queries by which recall is measured, of how many vectors each second one is the mean, and neighbours of each."""
KINDS: dict[str, type[FaissIndex]] = {
    kind.kind: kind for kind in (FlatIndex, GraphIndex, QuantisedIndex, GpuFlatIndex, CagraIndex)
}
Made = TypeVar("Made", bound=FaissIndex | ExactIndex)


class Choice(NamedTuple):
    """A kind, and why it."""

    kind: Kind
    why: str


def choose(n: int, device: str) -> Choice:
    """What `auto` takes for n vectors on "cpu", "cuda" or "cuda:N"."""
    if device != "cpu":
        return Choice("exact", f"torch compares all items on {device}, where lists are made: FAISS masks nothing there")
    if n < QUANTISED_FROM:
        return Choice("flat", f"below {QUANTISED_FROM:,} items, comparing all takes a CPU less than 2 ms")
    return Choice("ivf-pq", f"{QUANTISED_FROM:,} items or more are more than a CPU compares in 2 ms")


def check(config: IndexConfig) -> None:
    """Raises RuntimeError where the kind that is set cannot be had here; says what to install."""
    if config.kind in NEEDS_MORE:
        KINDS[config.kind](1)


def build(
    ids: Ids, vectors: Vectors, device: str = "cpu", config: IndexConfig | None = None, before: Index | None = None
) -> Index:
    """An index of vectors f32[N,d] under `ids`, its recall measured. What is chosen is told, with the reason, where it
    is not what was chosen for `before`.

    before: an index of what was there before, from which this one is made where it is of the same kind; it is the same
    where nothing has changed. One that has become too poor by changes is built anew; an approximate index that finds
    too little all the same gives way to comparing all.

    Raises:
        IndexBuildError: even that falls short.
        RuntimeError: the kind that is asked for cannot be had here; says what to install.
    """
    config = config or IndexConfig()
    kind, why = choose(len(ids), device) if config.kind == "auto" else (config.kind, "as set")
    grown = _grown(kind, ids, vectors, before, config.recall)
    try:
        found = grown or _measured(_made(kind, ids, vectors, device), ids, vectors, config.recall)
    except IndexBuildError as error:
        if kind in ("flat", "exact"):
            raise
        log.warning("%s is not used: %s; all items are compared", kind, error)
        kind, why = "flat", f"{kind} found too little"
        found = _measured(FlatIndex.of(ids, vectors), ids, vectors, config.recall)
    found.why = why
    if before is None or before.stats().get("why") != why:
        log.info("%d items are indexed by %s: %s", len(ids), kind, why)
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


def _grown(kind: Kind, ids: Ids, vectors: Vectors, before: Index | None, least: float) -> FaissIndex | None:
    """The index made from the one before it; None where there is none of its kind, or it then finds too little."""
    if not (isinstance(before, FaissIndex) and before.kind == kind and before.dim == vectors.shape[1]):
        return None
    grown = before.updated(ids, vectors)
    if grown is before and (before.recall or 0) >= least:
        return grown
    try:
        return _measured(grown, ids, vectors, least)
    except IndexBuildError as error:
        log.info("%s is built anew, not from what was before: %s", kind, error)
        return None


def _made(kind: Kind, ids: Ids, vectors: Vectors, device: str) -> FaissIndex | ExactIndex:
    if kind == "exact":
        return ExactIndex.of(ids, vectors, device)
    on_gpu = {"device": device} if kind in NEEDS_MORE and device != "cpu" else {}
    return KINDS[kind].of(ids, vectors, **on_gpu)


def _measured(index: Made, ids: Ids, vectors: Vectors, least: float) -> Made:
    """The index, its recall known, searched as widely as that wants. Raises IndexBuildError."""
    if isinstance(index, ExactIndex):  # the reference
        return index
    queries, reference = like_users(vectors), ExactIndex.of(ids, vectors)
    while True:
        try:
            index.recall = sufficient_recall(index, reference, queries, MEASURED_K, least)
            return index
        except IndexBuildError:
            if not index.wider():
                raise


def like_users(vectors: Vectors) -> Vectors:
    """Queries f32[Q,d], up to 64, as users of these items are: some are like one item, some between three, which are
    harder to find the neighbours of.
    """
    if not len(vectors):
        return vectors
    queries = vectors[:: max(1, len(vectors) // PROBES)][:PROBES].copy()
    others = np.random.default_rng(len(vectors)).integers(0, len(vectors), (len(queries), MIXED - 1))
    queries[::2] = (queries + vectors[others].sum(1))[::2] / MIXED
    return queries
