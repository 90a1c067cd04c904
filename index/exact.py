"""Exact search with torch: one matmul, masks, topk. The reference that others are measured against.

Not the fastest on a CPU, and without any structure that could miss a neighbour. What must not be found is masked on the
device, before the nearest are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from index import base
from index.base import Ids, Vectors

MOST_SCORES = 2**26
"""Scores that are in memory at a time: 256 MB."""


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """Ids and vectors that belong together; replaced as a whole, so a search on another thread sees one or
    the other.
    """

    ids: Ids
    vectors: Vectors
    device: str

    @cached_property
    def there(self) -> torch.Tensor:
        """The vectors on the device, from the first search on: where others compare them there, nobody asks."""
        return torch.from_numpy(self.vectors).to(self.device)

    @cached_property
    def _order(self) -> Ids:
        return np.argsort(self.ids, kind="stable")

    def places(self, wanted: Ids) -> Ids:
        """Where the wanted ids stand, i64[m], -1 where they do not."""
        return base.places(self.ids, np.asarray(wanted, np.int64), self._order)

    def sent(self, places: Ids) -> torch.Tensor:
        """Numbers on the device."""
        return torch.from_numpy(places).to(self.device)


class ExactIndex:
    """Every vector, compared with every query, on `device`."""

    kind = "exact"

    def __init__(self, dim: int, device: str = "cpu") -> None:
        self._device = device
        self.recall = 1.0
        self.why = ""
        self._now = _Snapshot(np.zeros(0, np.int64), np.zeros((0, dim), np.float32), device)

    @classmethod
    def of(cls, ids: Ids, vectors: Vectors, device: str = "cpu") -> Self:
        """An index of these, which are not copied on a CPU. Raises ValueError as `add` does."""
        ids, vectors = base.check(ids, vectors, vectors.shape[1])
        index = cls(vectors.shape[1], device)
        index._now = _Snapshot(ids, vectors, device)
        return index

    @property
    def dim(self) -> int:
        return self._now.vectors.shape[1]

    def __len__(self) -> int:
        return len(self._now.ids)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        ids, vectors = base.check(ids, vectors, self.dim)
        now = self._now
        self._now = _Snapshot(*base.merged(now.ids, now.vectors, ids, vectors), self._device)

    def remove(self, ids: Ids) -> int:
        now = self._now
        keep = ~np.isin(now.ids, ids)
        self._now = _Snapshot(now.ids[keep], now.vectors[keep], self._device)
        return int((~keep).sum())

    def search(
        self, vectors: Vectors, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        now, query = self._now, np.ascontiguousarray(vectors, np.float32)
        out_scores = np.full((len(query), k), -np.inf, np.float32)
        out_ids = np.full((len(query), k), -1, np.int64)
        forbidden = None
        if allow is not None:
            forbidden = torch.ones(len(now.ids), dtype=torch.bool, device=self._device)
            at = now.places(allow)
            forbidden[now.sent(at[at >= 0])] = False
        step = max(1, MOST_SCORES // max(len(now.ids), 1))
        for first in range(0, len(query), step):
            part = slice(first, first + step)
            scores = torch.from_numpy(query[part]).to(self._device) @ now.there.T
            if forbidden is not None:
                scores.masked_fill_(forbidden, -torch.inf)
            if exclude:
                whose = np.repeat(np.arange(len(exclude[part])), [len(ids) for ids in exclude[part]])
                hidden = now.places(np.concatenate(exclude[part]))
                scores[now.sent(whose[hidden >= 0]), now.sent(hidden[hidden >= 0])] = -torch.inf
            top, at = scores.topk(min(k, len(now.ids)), dim=1)
            out_scores[part, : top.shape[1]] = top.cpu().numpy()
            out_ids[part, : top.shape[1]] = now.ids[at.cpu().numpy()]
        out_ids[np.isneginf(out_scores)] = -1
        return out_scores, out_ids

    def save(self, path: Path) -> None:
        base.save(path, base.Saved(self._now.ids, self._now.vectors, self.kind, recall=self.recall))

    @classmethod
    def load(cls, path: Path) -> Self:
        saved = base.load(path)
        alive = saved.ids != -1
        return cls.of(saved.ids[alive], saved.vectors[alive])

    def stats(self) -> dict[str, Any]:
        known = {"kind": self.kind, "device": self._device, "size": len(self), "dim": self.dim}
        return {**known, "recall": self.recall, "why": self.why}
