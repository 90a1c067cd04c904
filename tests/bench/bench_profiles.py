"""Profiles: what making one costs, and what it costs to make them seldom.

The last 10% of MovieLens-100K under `temporal`, by a model folder that has not learned it, its profiles made anew when
a worker would find them due (`stream/lists/profile.py`): after so many new interactions, or a day of event time. The
first question of each user finds none and makes one. Beside the whole stands the profile alone, which is where age
must show. Cost is in profiles a CPU-second, by kind, of histories as they are then. The last line is JSON.

    make bench NAME=profiles ARGS="--model models/1"
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model import checkpoint, longterm
from model.catalog import Catalog
from model.datasets import load
from model.encoder import TextEncoder
from model.engine import Engine
from model.evaluation import temporal
from model.evaluation.exams import Asked, Method, World
from model.evaluation.methods.served import Served
from model.evaluation.methods.trained import ProfileOnly
from model.evaluation.running import take
from model.recommender import Recommender
from model.replay import Timeline
from stream.lists.profile import Profile, ProfileConfig, is_due
from stream.settings import load as settings
from tests.bench import common

DUE = {
    "1": ProfileConfig(refresh_events=1),
    "16 or a day": ProfileConfig(),
    "64": ProfileConfig(refresh_events=64, refresh_ms=0),
    "never": ProfileConfig(refresh_events=10**9, refresh_ms=0),
}
"""New interactions after which a profile is made anew."""
KINDS = ("pooled", "counted", "buckets", "document")
MADE = 32
"""Profiles of each kind whose cost is measured, at a time."""
NOTHING = np.zeros((0, 0), np.float32)


class Lagging(Served):
    """A model whose profiles are as old as a worker lets them become."""

    def __init__(self, world: World, engine: Engine, name: str, config: ProfileConfig, alone: bool) -> None:
        super().__init__(world, engine, name, neural_only=alone)
        self._config = config

    def learn(self, line: Timeline, end: int) -> None:
        super().learn(line, end)
        self._kept: dict[int, Profile] = {}
        self.made, self.behind = 0, 0

    def add(self, line: Timeline, first: int, last: int) -> None:
        super().learn(line, last)

    def profiles(self, asked: Asked) -> list[NDArray[np.float32]]:
        h = asked.histories
        count = (h.lengths + np.diff(h.seen_offsets)).tolist()
        newest = (h.times[:, -1] if h.times.shape[1] else np.zeros(len(h), np.int64)).tolist()
        due, from_due = [], np.full(len(asked), -1)
        latest: dict[int, int] = {}
        for b, user in enumerate(asked.users.tolist()):
            kept = self._kept.get(user)
            if kept is None or is_due(self._config, kept, count[b], newest[b]):
                kept = self._kept[user] = Profile(NOTHING, count[b], newest[b], 0.0)
                latest[user] = len(due)
                due.append(b)
            from_due[b] = latest.get(user, -1)
            self.behind += count[b] - kept.interactions
        made = self.engine.profiles(h.take(np.array(due, np.int64))) if due else []
        self.made += len(due)
        found = [
            made[at] if at >= 0 else self._kept[user].vectors
            for at, user in zip(from_due.tolist(), asked.users.tolist(), strict=True)
        ]
        for user, at in latest.items():
            self._kept[user] = self._kept[user]._replace(vectors=made[at])
        return found


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a model folder that has not learned the last 10%%")
    parser.add_argument("--every", type=int, default=1, help="ask every N-th question; nobody asks the others")
    args = parser.parse_args()
    said = settings()
    data = load("movielens-100k", said.cache)
    catalog = Catalog.build(data.items)
    model = checkpoint.load(args.model)
    encoder = TextEncoder(said.encoder.name, "cpu", said.cache).adapted(model.adapter)
    texts = encoder.encode(catalog.texts)
    world = World(data.events, catalog, data.items, lambda: texts, encode=encoder.forgetful().encode)
    methods = _methods(world, texts, model)
    (test,) = temporal.exams(world)[1]
    with common.told(f"{test.questions // args.every:,} questions, {len(methods)} times"):
        table = take(methods, [test.every(args.every)], world, 10)
    hits = {m.name: table.interval(table.metrics(m.name)["hr@10"]) for m in methods}
    asked = len(table.asks)
    rows, result = [], {}
    for name in DUE:
        whole, alone = (next(m for m in methods if m.name == n) for n in (name, f"{name}, alone"))
        assert isinstance(whole, Lagging)
        made, behind = whole.made / asked, whole.behind / asked
        rows.append([name, f"{made:.3f}", f"{behind:.1f}", str(hits[whole.name]), str(hits[alone.name])])
        result[name] = {
            "made": round(made, 4),
            "behind": round(behind, 2),
            "hr": round(hits[whole.name].mean, 4),
            "alone": round(hits[alone.name].mean, 4),
        }
    for kind, rate in _rates(world, texts).items():
        rows.append([kind, f"{rate:,.0f} / CPU-s", "", "", ""])
        result[f"cpu_{kind}"] = round(rate, 1)
    columns = ["made anew after", "made a list", "interactions behind", "HR@10", "profile alone, HR@10"]
    common.report("profiles", columns, rows, {"bench": "profiles", "questions": asked, **result})


def _methods(world: World, texts: NDArray[np.float32], model: Recommender) -> list[Method]:
    """The whole and its profile alone, by each rule of when one is due."""
    alone = ProfileOnly(model.config)
    alone.load_state_dict(model.state_dict())
    made: list[Method] = []
    for name, due in DUE.items():
        for which, only in ((model, False), (alone.eval(), True)):
            engine = Engine(world.catalog, texts, which, encode=world.encode)
            made.append(Lagging(world, engine, f"{name}, alone" if only else name, due, only))
    return made


def _rates(world: World, texts: NDArray[np.float32]) -> dict[str, float]:
    """Profiles a CPU-second, by kind."""
    paper = next(iter(temporal.exams(world)[1][0].papers()))
    h = paper.asked.histories.take(np.arange(min(MADE, len(paper.asked))))
    rows = world.catalog.index_of(h.items)
    found = {}
    for kind in KINDS:
        of = longterm.make(kind, texts, world.catalog.titles, world.encode)
        of.profiles(h.take(np.arange(1)), rows[:1])  # weights are loaded
        began, done = time.process_time(), 0
        while not done or time.process_time() - began < 1:
            of.profiles(h, rows)
            done += len(h)
        found[kind] = done / (time.process_time() - began)
    return found


if __name__ == "__main__":
    main()
