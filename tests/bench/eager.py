"""Lists as one would write them first: eager PyTorch and FAISS for a batch, and then one user after the other.

What `bench_serve` holds ours against: the same steps with the same settings, in plain Python, numpy and torch. What is
easily done for all users at once is: windows are encoded together, those without one interaction too, and the index is
searched once. Nothing of `model` makes lists here but the trained modules; catalogue, counts and settings are read as
they are. Names: B users, M candidates, n places.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from model.history import ACTION_CODE, Histories
from tests.bench.shop import RULES, Shop

PLACES, SOUGHT, SPARE, POOL, STRENGTH, NEWEST, REASONS = 10, 100, 25, 50, 0.5, 5, 3
LEAST_SHARE, FLOOR = 0.05, 1e-3


@dataclass
class Listed:
    """One list: catalogue rows, shares of the candidates, and reasons (kind, share, item) for each."""

    items: list[int]
    scores: list[float]
    reasons: list[list[tuple[str, float, int]]]


class Eager:
    """See the module. index: what searches, FAISS's own."""

    def __init__(self, shop: Shop, index: Any, params: Any) -> None:
        catalog, self._online, self._model = shop.catalog, shop.online, shop.model
        self._index, self._params = index, params
        self._items = torch.from_numpy(shop.engine.item_vectors)
        self._row = {h: row for row, h in enumerate(catalog.hashes.tolist())}
        self._open = catalog.in_stock & (catalog.price <= RULES["price"]["max"])
        self._group = catalog.group.tolist()
        limits = RULES["most"]
        self._limited = [[c for c in names if c in limits] for names in catalog.categories]
        self._kinds = catalog.categories
        self._most = limits
        self._popular = np.argsort(-shop.online.popularity, kind="stable")[: 20 * SOUGHT].tolist()
        self._met = {ACTION_CODE[name] for name in ACTION_CODE} - {ACTION_CODE["view"]}

    @torch.inference_mode()
    def lists(self, h: Histories, profiles: list[NDArray[np.float32]]) -> list[Listed]:
        """Lists of B users."""
        window = h.window(self._model.window)
        rows = np.array([[self._row.get(item, -1) for item in items] for items in window.items.tolist()], np.int32)
        fused = self._model.encode(window, rows, self._items, profiles)
        _, near = self._index.search(fused.vectors.numpy(), SOUGHT + SPARE, params=self._params)
        lost = self._without(window, rows)
        made = []
        for b in range(len(h)):
            user = fused.vectors[b], fused.short[b], fused.long[b]
            made.append(self._one(h, b, rows[b], user, near[b].tolist(), lost[b]))
        return made

    def _without(self, window: Histories, rows: NDArray[np.int32]) -> list[Tensor]:
        """Window vectors f32[J,D] of each user without each of the newest J of their interactions, newest first."""
        shorter, fewer, counts = [], [], []
        for b in range(len(rows)):
            places = [k for k in range(rows.shape[1] - 1, rows.shape[1] - 1 - NEWEST, -1) if rows[b, k] >= 0]
            counts.append(len(places))
            for k in places:
                shorter.append([np.concatenate([c[b, :1] * 0, np.delete(c[b], k)]) for c in _columns(window)])
                fewer.append(np.concatenate([[-1], np.delete(rows[b], k)]))
        items, actions, times, weights = (np.stack(c) for c in zip(*shorter, strict=True))
        n = len(fewer)
        windows = Histories(
            items, actions, times, weights, (items != 0).sum(1), np.zeros(0, np.uint32), np.zeros(n + 1, np.int64)
        )
        none = [np.zeros((0, 0), np.float32)] * n
        vectors = self._model.encode(windows, np.stack(fewer).astype(np.int32), self._items, none).vectors
        return list(vectors.split(counts))

    def _one(
        self,
        h: Histories,
        b: int,
        rows: NDArray[np.int32],
        user: tuple[Tensor, Tensor, Tensor],
        near: list[int],
        without: Tensor,
    ) -> Listed:
        """The list of one user."""
        vector, short, long = user
        window = [int(row) for row in rows if row >= 0]
        follows = self._follows(window)
        related = Counter[int]()
        for of_item in follows:
            related.update(of_item)
        met = zip(h.items[b].tolist(), h.actions[b].tolist(), strict=True)
        away = {self._row.get(item, -1) for item, action in met if item and action in self._met}
        candidates = self._candidates(near, related, away)
        at = torch.tensor(candidates)
        mix, found = self._model.mix, self._items[at]
        counted = torch.tensor([mix.related * related[row] for row in candidates])
        popular = mix.popular * torch.from_numpy(self._online.popularity[candidates])
        neural, taste = found @ vector, found @ long
        scores = mix.neural * neural + mix.online * (counted + popular).log()
        order = self._diverse(candidates, scores, found)
        chosen = self._filled(candidates, order)
        shares = scores.softmax(0)[chosen].tolist()
        lost = found[chosen] @ ((vector - long) - short * without).T
        tastes = (taste - taste.mean())[chosen].clamp(min=0) * mix.neural
        listed = [candidates[c] for c in chosen]
        reasons = [
            self._reasons(row, window, follows, lost[i].tolist(), float(tastes[i]), float(popular[c]))
            for i, (c, row) in enumerate(zip(chosen, listed, strict=True))
        ]
        return Listed(listed, shares, reasons)

    def _follows(self, window: list[int]) -> list[dict[int, float]]:
        """What follows each item of a window, and how much, oldest first."""
        steps, recency = self._online.steps, self._online.params.recency
        weights = recency ** np.arange(len(window) - 1, -1, -1)
        weights = weights / max(weights.sum(), 1e-9)
        out = []
        for row, weight in zip(window, weights.tolist(), strict=True):
            part = slice(steps.indptr[row], steps.indptr[row + 1])
            out.append(dict(zip(steps.indices[part].tolist(), (weight * steps.data[part]).tolist(), strict=True)))
        return out

    def _candidates(self, near: list[int], related: Counter[int], away: set[int]) -> list[int]:
        """The nearest, of a group only the first, and those of which the counts say most."""
        found, groups = [], set()
        for row in near:
            group = self._group[row]
            if len(found) < SOUGHT and self._open[row] and row not in away and (group < 0 or group not in groups):
                found.append(row)
                groups.add(group)
        mix, popularity = self._model.mix, self._online.popularity
        said = {
            row: mix.related * share + mix.popular * popularity[row]
            for row, share in related.items()
            if self._open[row] and row not in away
        }
        often = 0
        for row in self._popular:
            if often == SOUGHT:
                break
            if self._open[row] and row not in away and row not in related:
                said[row] = mix.popular * popularity[row]
                often += 1
        strongest = sorted(said, key=lambda row: -said[row])[:SOUGHT]
        return sorted({*found, *strongest})

    def _diverse(self, rows: list[int], scores: Tensor, found: Tensor) -> list[int]:
        """Columns in the order of maximal marginal relevance; those beyond the pool behind it."""
        ranked = scores.argsort(descending=True, stable=True).tolist()
        pool, rest = sorted(ranked[:POOL], key=lambda c: rows[c]), ranked[POOL:]
        vectors = normalize(found[pool], dim=1)
        left, most, taken = scores[pool].clone(), torch.zeros(len(pool)), []
        for _ in range(min(PLACES, len(pool))):
            best = int((left - STRENGTH * most).argmax())
            taken.append(pool[best])
            left[best] = -torch.inf
            most = torch.maximum(most, vectors @ vectors[best])
        behind = (left - STRENGTH * most).argsort(descending=True, stable=True).tolist()
        return taken + [pool[c] for c in behind if pool[c] not in taken] + rest

    def _filled(self, rows: list[int], order: list[int]) -> list[int]:
        """Columns of the list: one of each group, and no more of a category than it may have."""
        chosen, groups, counts = [], set(), Counter[str]()
        for column in order:
            row = rows[column]
            if self._group[row] in groups or any(counts[c] >= self._most[c] for c in self._limited[row]):
                continue
            chosen.append(column)
            counts.update(self._limited[row])
            if self._group[row] >= 0:
                groups.add(self._group[row])
            if len(chosen) == PLACES:
                break
        return chosen

    def _reasons(
        self, row: int, window: list[int], follows: list[dict[int, float]], lost: list[float], taste: float, pop: float
    ) -> list[tuple[str, float, int]]:
        """The strongest, as shares of the positive evidence."""
        mix = self._model.mix
        parts = [mix.related * part.get(row, 0.0) for part in follows]
        p = max(sum(parts) + pop, 1e-30)
        evidence: dict[int, float] = {}
        for k, (item, part) in enumerate(zip(window, parts, strict=True)):
            back = len(window) - 1 - k
            neural = mix.neural * lost[back] if back < len(lost) else 0.0
            evidence[item] = evidence.get(item, 0.0) + max(mix.online * _drop(part / p) + neural, 0.0)
        said = [("interaction", nats, item) for item, nats in evidence.items()]
        said += [("taste", taste, -1), ("popular", max(mix.online * _drop(pop / p), 0.0), -1)]
        total = max(sum(nats for _, nats, _ in said), 1e-9)
        said.sort(key=lambda reason: -reason[1])
        named = [(kind, nats / total, item) for kind, nats, item in said[:REASONS]]
        return [reason for i, reason in enumerate(named) if reason[1] >= LEAST_SHARE or (i == 0 and reason[1] > 0)]


def _drop(share: float) -> float:
    return -float(np.log(max(1 - share, FLOOR)))


def _columns(window: Histories) -> tuple[NDArray[Any], ...]:
    return window.items, window.actions, window.times, window.weights
