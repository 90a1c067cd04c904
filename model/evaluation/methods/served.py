"""What a worker serves, in parts: an engine's vectors, the counts, and both as the engine mixes them.

Counts are read by the worker's own code (`model.online`), and mixed by its own (`model.mix`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from model.engine import Engine, popular_to
from model.evaluation.exams import Asked, Method, World
from model.evaluation.methods.choosing import sweep
from model.feedback import moved
from model.leaning import Lean
from model.mix import Mix, combined, counted
from model.online import OnlineParams, OnlineScores, Sums
from model.replay import Timeline

PARAMS = ("recency", "shrink", "half_life_days", "popularity_half_life_days")
GRID: Mapping[str, Sequence[object]] = {
    "popular": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0),
    "repeat": (0.0, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9),
    "repeat_recency": (0.3, 0.5, 0.7, 0.85, 0.93, 0.97, 1.0),
    "recency": (0.3, 0.5, 0.7, 0.85, 0.95, 1.0),
    "shrink": (0.0, 2.0, 5.0, 20.0, 50.0),
    "half_life_days": (15.0, 30.0, 60.0, 120.0, 1000.0),
    "popularity_half_life_days": (3.0, 7.0, 15.0, 30.0, 60.0, 120.0, 1000.0),
}


class Counting:
    """The counts' scores, kept up with a timeline; shared by methods that read the same."""

    def __init__(self, world: World, params: OnlineParams) -> None:
        self.params = params
        self._catalog = world.catalog
        self._line: Timeline | None = None
        self._sums: Sums | None = None
        self._end, self._bucket = 0, 0
        self._online = OnlineScores.empty(world.catalog, params)

    def at(self, line: Timeline, end: int) -> OnlineScores:
        """Scores from the first `end` events, as of the newest of them."""
        bucket = line.as_of(end, self.params)
        if line is not self._line or end < self._end or bucket != self._bucket or self._sums is None:
            self._sums = Sums.of(self._catalog, line.counts(end, self.params), bucket, self.params)
        elif end > self._end:
            new = line.counts(end, self.params, self._end)
            self._sums = self._sums + Sums.of(self._catalog, new, bucket, self.params)
        else:
            return self._online
        self._line, self._end, self._bucket = line, end, bucket
        self._online = self._sums.scores(self.params)
        return self._online


class Shards:
    """`Counting` of each worker that the users of a world are split among: of one, unless the world says otherwise."""

    def __init__(self, world: World, params: OnlineParams) -> None:
        self.params = params
        self._countings = [Counting(world, params) for _ in range(world.shards)]
        self._line: Timeline | None = None
        self._parts: list[Timeline] = []

    def at(self, line: Timeline, end: int) -> list[OnlineScores]:
        """Scores from the first `end` events, of each worker."""
        if line is not self._line:
            many = len(self._countings)
            self._line, self._parts = line, [line.part(s, many) for s in range(many)] if many > 1 else [line]
        return [counting.at(part, end) for counting, part in zip(self._countings, self._parts, strict=True)]


def by_shard(
    asked: Asked, shards: Sequence[OnlineScores], scores: Callable[[Asked, OnlineScores], NDArray[np.floating]]
) -> NDArray[np.floating]:
    """What each question's own worker says, f[B,N]."""
    if len(shards) == 1:
        return scores(asked, shards[0])
    found = np.empty((len(asked), asked.allowed.shape[1]))
    for shard, online in enumerate(shards):
        at = np.flatnonzero(asked.users % len(shards) == shard)
        if len(at):
            found[at] = scores(asked.take(at), online)
    return found


class Counts(Method):
    """Co-occurrence, popularity and, with `repeat`, what users come back to; no vectors."""

    def __init__(self, world: World, mix: Mix, params: OnlineParams | None = None, repeat: bool = False) -> None:
        self.name = "counts+repeat" if repeat else "counts"
        self._world, self._mix, self._repeat = world, mix, repeat
        self._counting = Shards(world, params or OnlineParams())

    def learn(self, line: Timeline, end: int) -> None:
        self._online = self._counting.at(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self._online = self._counting.at(line, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return by_shard(asked, self._online, self._scores)

    def _scores(self, asked: Asked, online: OnlineScores) -> NDArray[np.floating]:
        mix = self._mix
        own = online.returned(asked.rows, mix) if mix.repeat else None
        return counted(online.related(asked.window()), online.popularity[None], mix, own)

    def settings(self) -> dict[str, object]:
        mix = ("popular", "repeat", "repeat_recency") if self._repeat else ("popular",)
        return {k: getattr(self._mix, k) for k in mix} | {k: getattr(self._counting.params, k) for k in PARAMS}

    def variants(self) -> Sequence[Method]:
        return [
            self._with(change)
            for change in sweep(self.settings(), {k: v for k, v in GRID.items() if k in self.settings()})
        ]

    def _with(self, change: Mapping[str, object]) -> Counts:
        params = self._counting.params.model_copy(update={k: v for k, v in change.items() if k in PARAMS})
        mix = self._mix.model_copy(update={k: v for k, v in change.items() if k not in PARAMS})
        other = Counts(self._world, mix, params, self._repeat)
        if params == self._counting.params:
            other._counting = self._counting
        return other


class Served(Method):
    """An engine's vectors (`neural`), or these and the counts as its mix says; `people`: shaped by what is known of
    users beside what they did.
    """

    def __init__(
        self,
        world: World,
        engine: Engine,
        name: str,
        neural_only: bool = False,
        mix: Mix | None = None,
        people: bool = True,
    ) -> None:
        self.name, self._world, self.engine, self._alone = name, world, engine, neural_only
        self._mix, self._people = mix or engine.mix, people
        self._online = [OnlineScores.empty(world.catalog)] * world.shards
        self._counting = Shards(world, OnlineParams())

    @property
    def lister(self) -> Engine | None:
        """What makes its lists; None where its vectors are asked alone, of which no worker makes lists."""
        return None if self._alone else self.engine

    def learn(self, line: Timeline, end: int) -> None:
        if not self._alone:
            self._online = self._counting.at(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self.learn(line, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return by_shard(asked, self._online, self._scores)

    def _scores(self, asked: Asked, online: OnlineScores) -> NDArray[np.floating]:
        h, engine = asked.histories, self.engine
        lean = self._lean(asked, online)
        fused, items = engine.encode(h, self.profiles(asked), lean), engine.item_vectors
        fused = moved(fused, h, None, asked.now, engine.catalog, items, self._world.feedback)
        neural = fused.vectors.cpu().numpy() @ items.T
        if self._alone:
            return neural
        rows = engine.window_rows(h)[1]
        own = online.returned(asked.rows, self._mix) if self._mix.repeat else None
        popular = np.atleast_2d(popular_to(lean, online))
        scores = combined(neural, online.related(rows), popular, self._mix, own)
        if engine.habits is not None:
            every = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
            scores = engine.habits.of(h, asked.rows, online).over(scores, every)
        arranged = engine.bounds.any or engine.arranger.diversity.method != "none"
        return self._arranged(scores, asked, online) if arranged else scores

    def profiles(self, asked: Asked) -> list[NDArray[np.float32]]:
        """The profile of each question's user: of now, where nothing lags."""
        return self.engine.profiles(asked.histories)

    def _arranged(self, scores: NDArray[np.floating], asked: Asked, online: OnlineScores) -> NDArray[np.floating]:
        """The utilities by which a worker's list would be filled; -inf for what the bounds on exposure leave out."""
        shown = np.where(asked.allowed, scores, -np.inf)
        rows = np.broadcast_to(np.arange(scores.shape[1], dtype=np.int32), scores.shape)
        utilities = self.engine.arranger.utilities(rows, shown, self._world.places)
        if not self.engine.bounds.any:
            return utilities
        kept = self.engine.bounds.kept(rows, utilities, online, self._world.places)
        return np.where(kept, utilities, -np.inf)

    def _lean(self, asked: Asked, online: OnlineScores) -> Lean | None:
        """What is known of those who ask beside their histories."""
        if not self._people or not len(self._world.people):
            return None
        about = self._world.people.about.take(self._world.described[asked.users])
        return self.engine.lean(asked.histories, about, online)
