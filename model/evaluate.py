"""The `temporal` protocol: rankers compared on later events, one by one.

Not where anything is chosen: weights, epochs and the mix come from `train.py`, which sees only the events
before the test. All events in time order (ties by the file's order); the first `train` share trains; the rest
are tested one by one: rank the catalogue less the user's seen items, note the rank of the item they took,
then add the event. Histories, windows and the seen policy are the worker's; counts lag by less than `refresh`
events (see `replay.py`). Users unseen in training count; an event whose item its user had met, or that is no
sign of interest, or that is outside the catalogue, does not.

Rows of the table:

    released         neural score and counts, mixed as the model carries it
    neural           its user and item vectors alone
    fallback         the untrained model with counts, as a new deployment serves it
    fallback-neural  its text vectors alone
    counts           co-occurrence and popularity alone
    popular-7d       what was met most often in the seven days before the event
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.baselines import UserModel
from model.catalog import Catalog
from model.dataset import Events
from model.engine import Engine
from model.longterm import Encode
from model.metrics import Interval, bootstrap, coverage, gains, hits, middle_ranks, reciprocal
from model.mix import combined, counted
from model.online import DAY_MS, OnlineParams
from model.replay import Step, Timeline, steps, timeline
from model.tune import rankable, scored

RowScores = dict[str, NDArray[np.floating]]
WEEK_MS = 7 * DAY_MS


class EvaluateConfig(BaseModel):
    """What is tested and how sure the table says it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: float = Field(default=0.8, gt=0, lt=1, description="share of events before the test")
    end: float = Field(default=1.0, gt=0, le=1, description="share of events at which the test ends")
    k: int = Field(default=10, ge=1, description="length of a list")
    refresh: int = Field(default=250, ge=1, description="events between two rebuilds of the counts' scores")
    draws: int = Field(default=2000, ge=1, description="bootstrap samples of users")
    seed: int = 0
    action_weights: dict[str, float] = Field(default={}, description="overrides of the action weights")


@dataclass(frozen=True, eq=False)
class Table:
    """What every ranker reached, event by event: users i64[T], ranks by row f64[T], lists of k by row
    i32[T,k].
    """

    config: EvaluateConfig
    items: int
    users: NDArray[np.int64]
    ranks: dict[str, NDArray[np.float64]] = field(repr=False)
    lists: dict[str, NDArray[np.int32]] = field(repr=False)

    def rows(self) -> dict[str, dict[str, Interval | float]]:
        """By ranker: hr, ndcg and mrr with their 95% intervals over users, and the share of the catalogue
        ever shown.
        """
        return {
            name: {
                f"hr@{self.config.k}": self._interval(hits(ranks, self.config.k)),
                f"ndcg@{self.config.k}": self._interval(gains(ranks, self.config.k)),
                "mrr": self._interval(reciprocal(ranks)),
                "coverage": coverage(self.lists[name], self.items),
            }
            for name, ranks in self.ranks.items()
        }

    def difference(self, better: str, worse: str) -> dict[str, Interval]:
        """Paired differences of hr and ndcg, better less worse: an interval that excludes 0 says that they
        differ.
        """
        k, a, b = self.config.k, self.ranks[better], self.ranks[worse]
        return {
            f"hr@{k}": self._interval(hits(a, k) - hits(b, k)),
            f"ndcg@{k}": self._interval(gains(a, k) - gains(b, k)),
        }

    def _interval(self, values: NDArray[np.float64]) -> Interval:
        return bootstrap(self.users, values, self.config.seed, self.config.draws)


def temporal(
    events: Events,
    catalog: Catalog,
    text_vectors: NDArray[np.float32],
    model: UserModel | None = None,
    config: EvaluateConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
    encode: Encode | None = None,
) -> Table:
    """The table for all `events`, which must be in time order. `model` must have been trained on no event of
    the test.

    `progress(done, total)` counts test events. encode: a text encoder, for models whose profiles are documents.
    """
    c, report = config or EvaluateConfig(), progress or (lambda done, total: None)
    line = timeline(events, catalog, c.action_weights)
    first, last = int(len(line) * c.train), int(len(line) * c.end)
    fallback = Engine(catalog, text_vectors)
    released = Engine(catalog, text_vectors, model, encode=encode) if model is not None else None
    week = _Week(line, len(catalog), first)
    users: list[NDArray] = []
    ranks: dict[str, list[NDArray]] = {}
    lists: dict[str, list[NDArray]] = {}
    for step in steps(line, first, last, catalog, OnlineParams(), c.refresh):
        popular = week.before_each(step.first, step.last)
        picked = rankable(line, step, catalog)
        targets = line.rows[step.first : step.last][picked]
        users.append(line.users[step.first : step.last][picked])
        allowed, scores = _scores(step, picked, fallback, released, popular[picked])
        for name, values in scores.items():
            ranks.setdefault(name, []).append(middle_ranks(values, targets, allowed))
            lists.setdefault(name, []).append(_best(values, allowed, c.k))
        report(step.last - first, last - first)
    return Table(
        c,
        len(catalog),
        np.concatenate([np.zeros(0, np.int64), *users]),
        {name: np.concatenate(parts) for name, parts in ranks.items()},
        {name: np.concatenate(parts) for name, parts in lists.items()},
    )


def _scores(
    step: Step,
    picked: NDArray[np.int64],
    fallback: Engine,
    released: Engine | None,
    popular: NDArray[np.float32],
) -> tuple[NDArray[np.bool_], RowScores]:
    """Which items may be shown, bool[B,N], and every ranker's scores, f[B,N], for the picked events of a
    step.
    """
    h = step.histories.take(picked)
    related = step.online.related(fallback.window_rows(h)[1])
    popularity = np.broadcast_to(step.online.popularity, related.shape)
    scores: RowScores = {}
    allowed = fallback.allowed(h)
    for engine, whole, alone in ((released, "released", "neural"), (fallback, "fallback", "fallback-neural")):
        if engine is not None:
            neural = scored(engine, h, engine.profiles(h))
            scores[whole] = combined(neural, related, popularity, engine.mix)
            scores[alone] = neural
    scores["counts"] = counted(related, popularity, fallback.mix)
    scores["popular-7d"] = popular
    return allowed, scores


def _best(scores: NDArray[np.floating], allowed: NDArray[np.bool_], k: int) -> NDArray[np.int32]:
    """The k best allowed columns of each row, i32[B,k], -1 where there are fewer."""
    k = min(k, scores.shape[1])
    shown = np.where(allowed, scores, -np.inf)
    best = np.argpartition(-shown, k - 1, axis=1)[:, :k]
    return np.where(np.take_along_axis(allowed, best, 1), best, -1).astype(np.int32)


class _Week:
    """How often each item was met in the seven days before an event, moved along with the events."""

    def __init__(self, line: Timeline, items: int, first: int) -> None:
        self._line = line
        self._oldest = int(np.searchsorted(line.times, line.times[first] - WEEK_MS)) if len(line) else 0
        rows = line.rows[self._oldest : first]
        self._count = np.bincount(rows[rows >= 0], minlength=items).astype(np.float32)

    def before_each(self, first: int, last: int) -> NDArray[np.float32]:
        """f32[last-first, N]: the counts before each of these events, which must follow on the last ones
        asked for.
        """
        out = np.empty((last - first, len(self._count)), np.float32)
        rows, times = self._line.rows, self._line.times
        for e in range(first, last):
            while times[self._oldest] < times[e] - WEEK_MS:
                self._count[rows[self._oldest]] -= rows[self._oldest] >= 0
                self._oldest += 1
            out[e - first] = self._count
            self._count[rows[e]] += rows[e] >= 0
        return out
