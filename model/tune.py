"""Choosing on held-out events: how good a model is on its own, how much the counts should weigh beside it, and what
users' habits say over both.

Not the test of a model: whatever is chosen here is measured on later events by `evaluate.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.choice import fitted
from model.config import Seen
from model.engine import Engine
from model.habits import PRIOR, Habits
from model.history import Histories
from model.metrics import gains, hits, middle_ranks
from model.mix import Mix, combined
from model.online import OnlineParams, OnlineScores
from model.replay import Step, Timeline, steps

ONLINE = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
POPULAR = (0.03, 0.1, 0.3)
NEURAL = (0.25, 0.5, 1.0)
TEXT = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Weights of the trained vectors, and of the texts' similarity, which is a cosine; tried together."""
REPEAT = (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7)
REPEAT_RECENCY = (0.7, 0.85, 0.95, 1.0)
"""Share of the user's own history, and how fast it fades; tried together, where what was met may be shown again."""
BY_WINDOW = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Weights of the vectors to users with few, some or many interactions in their window; tried one after the other."""
REFRESH = 1000
K = 10
RIVALS = 300
"""Items among which a held-out one was chosen, where habits are fitted: what its user has met, and the best others."""


@dataclass(frozen=True, eq=False)
class Validation:
    """Held-out events in parts, each with the counts' scores of its time: the history before each event; and
    for all of them together the target's catalogue row i64[T].
    """

    histories: list[Histories]
    online: list[OnlineScores]
    targets: NDArray[np.int64]
    _profiles: list[list[NDArray[np.float32]]] = field(default_factory=list)

    def profiles(self, engine: Engine) -> list[list[NDArray[np.float32]]]:
        """The profiles of every part, made once: all engines that are shown the same events must make them
        alike.
        """
        if not self._profiles:
            self._profiles.extend(engine.profiles(h) for h in self.histories)
        return self._profiles

    def neural(self, engine: Engine) -> tuple[float, float]:
        """(HR@10, NDCG@10) of the engine's vectors alone, without counts."""
        parts = zip(self.histories, self.profiles(engine), strict=True)
        scores = np.concatenate([scored(engine, h, p) for h, p in parts])
        ranks = middle_ranks(scores, self.targets, np.concatenate([engine.allowed(h) for h in self.histories]))
        return float(hits(ranks, K).mean()), float(gains(ranks, K).mean())


def validation_set(
    line: Timeline,
    first: int,
    catalog: Catalog,
    params: OnlineParams,
    most: int,
    seen: Seen = "exclude",
    baskets: bool = False,
) -> Validation:
    """At most `most` of the events from `first` on, evenly spread: those that a ranker could get right.

    Left out are items outside the catalogue, signs of no interest, and items that their user had met, unless these
    may be shown again. baskets: what a user does at one time is asked from what was before that time only.
    """
    made = list(steps(line, first, len(line), catalog, params, REFRESH))
    able = [rankable(line, step, catalog, seen) for step in made]
    total = sum(map(len, able))
    stride = max(1, -(-total // most))
    picked, passed = [], 0
    for events in able:
        picked.append(events[(-passed) % stride :: stride])
        passed += len(events)
    parts = [(s, p) for s, p in zip(made, picked, strict=True) if len(p)]
    targets = [line.rows[s.first : s.last][p].astype(np.int64) for s, p in parts]
    histories = [s.histories.take(p) for s, p in parts]
    if baskets:
        now = [line.times[s.first : s.last][p][:, None] for s, p in parts]
        histories = [h.only((h.items != 0) & (h.times < at)) for h, at in zip(histories, now, strict=True)]
    return Validation(
        histories,
        [s.online for s, _ in parts],
        np.concatenate([np.zeros(0, np.int64), *targets]),
    )


def rankable(line: Timeline, step: Step, catalog: Catalog, seen: Seen = "exclude") -> NDArray[np.int64]:
    """Events of a step, counted from its first, whose item is known, wanted and, unless it may be shown again, new to
    its user.
    """
    rows, weights = line.rows[step.first : step.last], line.weights[step.first : step.last]
    able = (rows >= 0) & (weights > 0)
    if seen == "exclude":
        met = [catalog.seen32[r] in step.histories.seen_by(b) for b, r in enumerate(rows)]
        able &= ~np.array(met, bool)
    return np.flatnonzero(able)


def scored(engine: Engine, h: Histories, profiles: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Inner products of each user with every item, f32[B,N]."""
    return engine.encode(h, profiles).vectors.cpu().numpy() @ engine.item_vectors.T


def fit_mix(engine: Engine, blended: Engine, valid: Validation) -> tuple[Mix, dict[str, float]]:
    """The weights with the best NDCG@10 on the held-out events, and what they reach.

    engine: of the trained vectors; blended: the same with texts beside them at weight 1. First the counts are
    weighed beside the trained vectors, then what users come back to (where it may be shown), then trained vectors and
    texts beside the counts, then both by the length of the window.
    """
    best, ranks = engine.mix, _ranks([engine.mix.model_copy(update={"online": 0.0})], engine, blended, valid)[0]
    alone = ranks
    for grid in _grids(engine.seen):
        options = [best.model_copy(update=change) for change in grid(best)]
        found = _ranks(options, engine, blended, valid)
        top = int(np.argmax([gains(r, K).mean() for r in found]))
        if gains(found[top], K).mean() > gains(ranks, K).mean():
            best, ranks = options[top], found[top]
    figures = {
        "hr@10": float(hits(ranks, K).mean()),
        "ndcg@10": float(gains(ranks, K).mean()),
        "neural_hr@10": float(hits(alone, K).mean()),
        "neural_ndcg@10": float(gains(alone, K).mean()),
        "events": len(alone),
    }
    return best, figures


def fit_habits(engine: Engine, habits: Habits, valid: Validation) -> tuple[Habits, dict[str, float]]:
    """The weights under which what was met on the held-out events is the likeliest choice (conditional logit), over the
    engine's own score, and what that reaches. habits: learned from what is before these events.
    """
    over = habits.over(engine.catalog)
    features: list[NDArray[np.float32]] = []
    chosen: list[NDArray[np.int64]] = []
    passed = 0
    for h, online, said in _said(engine, valid):
        targets = valid.targets[passed : passed + len(h), None]
        passed += len(h)
        term = over.of(h, engine.catalog.index_of(h.items), online)
        rival = np.where(engine.allowed(h), said, -np.inf)
        rival[term.met.user, term.met.row] += said.max() - said.min()
        cols = np.argpartition(-rival, min(RIVALS, rival.shape[1]) - 1, axis=1)[:, :RIVALS]
        hit = cols == targets
        there = hit.any(1)
        features.append(term.features(np.take_along_axis(said, cols, 1), cols)[there])
        chosen.append(hit[there].argmax(1))
    found = replace(habits, weights=fitted(np.concatenate(features), np.concatenate(chosen), PRIOR))
    return found, _with_habits(engine, found, valid)


def _with_habits(engine: Engine, habits: Habits, valid: Validation) -> dict[str, float]:
    over, ranks, passed = habits.over(engine.catalog), [np.zeros(0)], 0
    for h, online, said in _said(engine, valid):
        every = np.broadcast_to(np.arange(said.shape[1]), said.shape)
        scores = over.of(h, engine.catalog.index_of(h.items), online).over(said, every)
        ranks.append(middle_ranks(scores, valid.targets[passed : passed + len(h)], engine.allowed(h)))
        passed += len(h)
    found = np.concatenate(ranks)
    return {"hr@10": float(hits(found, K).mean()), "ndcg@10": float(gains(found, K).mean())}


def _said(engine: Engine, valid: Validation) -> Iterator[tuple[Histories, OnlineScores, NDArray[np.float32]]]:
    """Each part with its histories' scores of every item by the engine's own mix, f32[B,N]."""
    for h, online, profiles in zip(valid.histories, valid.online, valid.profiles(engine), strict=True):
        rows, mix = engine.window_rows(h)[1], engine.mix
        own = online.returned(engine.catalog.index_of(h.items), mix) if mix.repeat else None
        said = combined(scored(engine, h, profiles), online.related(rows), online.popularity, mix, own)
        yield h, online, said.astype(np.float32)


def _grids(seen: Seen) -> list[Callable[[Mix], list[dict[str, Any]]]]:
    """What is tried one after the other: changes to the best mix so far."""

    def windows(k: int) -> Callable[[Mix], list[dict[str, Any]]]:
        return lambda mix: [{"by_window": (*mix.by_window[:k], w, *mix.by_window[k + 1 :])} for w in BY_WINDOW]

    repeats = [{"repeat": r, "repeat_recency": d} for r in REPEAT for d in REPEAT_RECENCY]
    return [
        lambda mix: [{"online": o, "popular": p} for o in ONLINE for p in POPULAR],
        *([lambda mix: repeats] if seen == "allow" else []),
        lambda mix: [{"neural": n, "text": t / n} for n in NEURAL for t in TEXT],
        *map(windows, range(3)),
    ]


def _ranks(options: list[Mix], engine: Engine, blended: Engine, valid: Validation) -> list[NDArray[np.float64]]:
    """The targets' ranks under each option."""
    ranks: list[list[NDArray[np.float64]]] = [[] for _ in options]
    passed = 0
    for h, online, profiles in zip(valid.histories, valid.online, valid.profiles(engine), strict=True):
        neural, allowed = scored(engine, h, profiles), engine.allowed(h)
        text = scored(blended, h, profiles) - neural
        window, rows = engine.window_rows(h)
        related = online.related(rows)
        met = engine.catalog.index_of(h.items)
        returned = {r: online.returned(met, m) for r, m in {m.repeat_recency: m for m in options if m.repeat}.items()}
        popularity = np.broadcast_to(online.popularity, related.shape)
        targets = valid.targets[passed : passed + len(h)]
        passed += len(h)
        for found, mix in zip(ranks, options, strict=True):
            weight = (mix.window_weight(window.lengths) / engine.mix.window_weight(window.lengths))[:, None]
            own = returned[mix.repeat_recency] if mix.repeat else None
            scores = combined(weight * (neural + mix.text * text), related, popularity, mix, own)
            found.append(middle_ranks(scores, targets, allowed))
    return [np.concatenate(found) for found in ranks]
