"""The index of each model that is served: made from the one before it, kept on disk for the next start.

Vectors are known to an index by item hash, which lasts; what a list needs is catalogue rows, which do not
(`ItemIndex`). Which index is searched and how is `index`'s.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from weakref import ref

import numpy as np

from index.base import Index
from index.choose import build, opened
from index.config import IndexConfig
from model.catalog import Catalog

log = logging.getLogger(__name__)

SUFFIX = ".index"
KEPT = frozenset({"hnsw", "ivf-pq"})
"""Kinds whose structure takes longer to build than to read."""
KEEP_EVERY_S = 600.0
"""At most how often one is written: what has changed since is put in again at a start."""
DROP_AFTER_S = 86_400.0
"""How long one is kept that is not used: another worker may serve its model still, or a release be rolled back."""


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
        folder: where they are kept, a file for each model; when it was last used is the file's time.
    """

    def __init__(self, config: IndexConfig, device: str, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._config = config
        self._device = device
        self._folder = folder
        self._clock = clock
        self._before: dict[str, Index] = {}
        self._kept_at: dict[str, float] = {}
        self._in_file: dict[str, ref[Index]] = {}  # not held: two of a million items would be in memory

    @property
    def by_tensors(self) -> bool:
        """See `IndexConfig.by_tensors`."""
        return self._config.by_tensors

    def of(self, name: str, catalog: Catalog, vectors: np.ndarray) -> ItemIndex:
        """The index of a model's item vectors f32[N, D], a row of the catalogue each.

        Raises:
            IndexBuildError: it finds too little.
            RuntimeError: the kind that is set cannot be had here.
        """
        before = self._before.get(name) or self._kept(name)
        index = build(catalog.hashes.view(np.int64), vectors, self._device, self._config, before)
        self._before[name] = index
        self._keep(name, index)
        return ItemIndex(index, catalog)

    def forget_all_but(self, names: set[str]) -> None:
        """Indexes of models that are not served any more; files go a day after they were last used."""
        for held in (self._before, self._in_file):
            for name in held.keys() - names:
                del held[name]
        if not self._config.keep:
            return
        mine, since = {self._file(name) for name in names}, self._clock() - DROP_AFTER_S
        for file in self._folder.glob(f"*{SUFFIX}*"):  # and what a worker that was killed has left half written
            with suppress(OSError):
                if file not in mine and file.stat().st_mtime < since:
                    file.unlink()
                    log.info("removed %s, which was not used for a day", file)

    def _kept(self, name: str) -> Index | None:
        if not self._config.keep:
            return None
        file = self._file(name)
        index = opened(file)
        if index is not None:
            self._in_file[name] = ref(index)
            with suppress(OSError):
                os.utime(file, (self._clock(), self._clock()))
        return index

    def _keep(self, name: str, index: Index) -> None:
        if not self._config.keep:
            return
        now, file = self._clock(), self._file(name)
        if index.stats()["kind"] not in KEPT:
            with suppress(OSError):
                file.unlink(missing_ok=True)  # of another kind: only read at a start, for nothing
            return
        known = self._in_file.get(name)
        if known is not None and known() is index:
            return
        if now - self._kept_at.get(name, now - KEEP_EVERY_S) < KEEP_EVERY_S:
            return
        try:
            index.save(file)
        except OSError as error:
            log.warning("the index of %s is not kept in %s: %s; a start will build it anew", name, self._folder, error)
        else:
            self._kept_at[name], self._in_file[name] = now, ref(index)

    def _file(self, name: str) -> Path:
        return self._folder / f"{re.sub(r'[^A-Za-z0-9._@-]', '_', name)}{SUFFIX}"
