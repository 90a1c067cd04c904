"""The index of each model that is served: made from the one before it, kept on disk for the next start.

Vectors are known to an index by item hash, which lasts; what a list needs is catalogue rows, which do not
(`ItemIndex`). Which index is searched and how is `index`'s.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.base import Index
from index.choose import build, opened
from index.config import IndexConfig
from model.catalog import Catalog

log = logging.getLogger(__name__)

KEPT = frozenset({"hnsw", "ivf-pq"})
"""Kinds whose structure takes longer to build than to read."""
KEEP_EVERY_S = 600.0
"""At most how often one is written: what has changed since is put in again at a start."""


@dataclass(frozen=True, slots=True)
class ItemIndex:
    """An index over the items of one catalogue snapshot."""

    index: Index
    catalog: Catalog

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores f32[B, k] and catalogue rows i64[B, k] of the nearest items; -inf and -1 where there are none."""
        scores, hashes = self.index.search(vectors, k)
        return scores, self.catalog.index_of(hashes.view(np.uint64)).astype(np.int64)


class Indexes:
    """Makes an index whenever a catalogue or model is new, on the builder thread.

    Args:
        folder: where they are kept; files are named by model and kind.
    """

    def __init__(self, config: IndexConfig, device: str, folder: Path, clock: Callable[[], float] = time.monotonic):
        self._config = config
        self._device = device
        self._folder = folder
        self._clock = clock
        self._before: dict[str, Index] = {}
        self._kept_at: dict[str, float] = {}

    def of(self, name: str, catalog: Catalog, vectors: np.ndarray) -> ItemIndex:
        """The index of a model's item vectors f32[N, D], a row of the catalogue each.

        Raises:
            IndexBuildError: it finds too little.
            RuntimeError: the kind that is set cannot be had here.
        """
        before = self._before.get(name) or (opened(self._file(name)) if self._config.keep else None)
        index = build(catalog.hashes.view(np.int64), vectors, self._device, self._config, before)
        self._before[name] = index
        self._keep(name, index)
        return ItemIndex(index, catalog)

    def forget_all_but(self, names: set[str]) -> None:
        """Indexes of models that are not served any more."""
        self._before = {name: index for name, index in self._before.items() if name in names}

    def _keep(self, name: str, index: Index) -> None:
        now = self._clock()
        if not self._config.keep or index.stats()["kind"] not in KEPT:
            return
        if now - self._kept_at.get(name, -KEEP_EVERY_S) < KEEP_EVERY_S:
            return
        try:
            index.save(self._file(name))
        except OSError as error:
            log.warning("the index of %s is not kept in %s: %s; a start will build it anew", name, self._folder, error)
        else:
            self._kept_at[name] = now

    def _file(self, name: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9._@-]', '_', name)}.index"
