"""Exact search with torch: one matmul, masks, topk. The reference that others are measured against.

Not the fastest on a CPU, and without any structure that could miss a neighbour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from index import base
from index.base import Ids, Vectors


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """Ids and vectors that belong together; replaced as a whole, so a search on another thread sees one or
    the other.
    """

    ids: Ids
    vectors: torch.Tensor


class ExactIndex:
    """Every vector, compared with every query, on `device`."""

    kind = "exact"

    def __init__(self, dim: int, device: str = "cpu") -> None:
        self._device = device
        self.recall = 1.0
        self._now = _Snapshot(np.zeros(0, np.int64), torch.zeros(0, dim, device=device))

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors, device: str = "cpu") -> Self:
        """An index of these, which are not copied on a CPU. Raises ValueError as `add` does."""
        ids, vectors = base.check(ids, vectors, vectors.shape[1])
        index = cls(vectors.shape[1], device)
        index._now = _Snapshot(ids, torch.from_numpy(vectors).to(device))
        return index

    @property
    def dim(self) -> int:
        return self._now.vectors.shape[1]

    def __len__(self) -> int:
        return len(self._now.ids)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        ids, vectors = base.check(ids, vectors, self.dim)
        now = self._now
        all_ids, all_vectors = base.merged(now.ids, now.vectors.cpu().numpy(), ids, vectors)
        self._now = _Snapshot(all_ids, torch.from_numpy(all_vectors).to(self._device))

    def remove(self, ids: Ids) -> int:
        now = self._now
        keep = ~np.isin(now.ids, ids)
        self._now = _Snapshot(now.ids[keep], now.vectors[torch.from_numpy(keep).to(self._device)])
        return int((~keep).sum())

    def search(
        self, vectors: Vectors, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        now = self._now
        query = torch.from_numpy(np.ascontiguousarray(vectors, np.float32)).to(self._device)
        scores = query @ now.vectors.T
        if allow is not None:
            scores[:, torch.from_numpy(~np.isin(now.ids, allow)).to(self._device)] = -torch.inf
        for row, ids in enumerate(exclude or ()):
            scores[row, torch.from_numpy(np.isin(now.ids, ids)).to(self._device)] = -torch.inf
        top, at = scores.topk(min(k, len(now.ids)), dim=1)
        out_scores = np.full((len(vectors), k), -np.inf, np.float32)
        out_ids = np.full((len(vectors), k), -1, np.int64)
        out_scores[:, : top.shape[1]] = top.cpu().numpy()
        out_ids[:, : top.shape[1]] = now.ids[at.cpu().numpy()]
        out_ids[np.isneginf(out_scores)] = -1
        return out_scores, out_ids

    def save(self, path: Path) -> None:
        base.save(path, base.Saved(self._now.ids, self._now.vectors.cpu().numpy(), self.kind, recall=self.recall))

    @classmethod
    def load(cls, path: Path) -> Self:
        saved = base.load(path)
        alive = saved.ids != -1
        return cls.of(saved.ids[alive], saved.vectors[alive])

    def stats(self) -> dict[str, Any]:
        return {"kind": self.kind, "device": self._device, "size": len(self), "dim": self.dim, "recall": self.recall}
