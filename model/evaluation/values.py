"""How far off the values of later events are told (MAE), where a data set has values: by the mean, by user and item
biases, and by biases with a head on the vectors of each engine. Protocol `temporal`, every event with a value counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.engine import Engine
from model.evaluation.exams import Method, World
from model.evaluation.past import Past
from model.metrics import Interval, bootstrap
from model.ratings import Head, biases, features
from model.replay import Timeline, timeline

LEARNED = 10_000
"""Newest values of what is learned, of which a head is fitted."""
CHUNK = 500


@dataclass(frozen=True, eq=False)
class Values:
    """users i64[T] of the events that are asked; off f64[T] by name: how far off each value was told."""

    users: NDArray[np.int64]
    off: dict[str, NDArray[np.float64]]

    def rows(self) -> dict[str, dict[str, Interval]]:
        """By name the MAE, and by how much it is below that of biases alone, with 95% intervals over users."""
        found = {}
        for name, off in self.off.items():
            mae = bootstrap(self.users, off, seed=0)
            found[name] = {"mae": mae, "biases less this": bootstrap(self.users, self.off["biases"] - off, seed=0)}
        return found


def engines(methods: Sequence[Method]) -> dict[str, Engine]:
    """The engines behind methods that have learned, those with the same vectors once, by the first method's name."""
    found: dict[str, Engine] = {}
    for method in methods:
        engine = getattr(method, "engine", None)
        if isinstance(engine, Engine) and not any(
            np.array_equal(engine.item_vectors, e.item_vectors) for e in found.values()
        ):
            found[method.name] = engine
    return found


def told(world: World, made: dict[str, Engine], begin: float) -> Values | None:
    """What comes of the events after share `begin`; None where too few events have values."""
    line = timeline(world.events, world.catalog, world.weights)
    at = np.flatnonzero(np.isfinite(world.events.value) & (line.rows >= 0))
    learned = int(np.searchsorted(at, round(begin * len(line))))
    if learned < 10 or learned == len(at):
        return None
    users, items, values = line.users[at], line.rows[at], world.events.value[at].astype(np.float64)
    base = biases(users, items, values, learned)
    low, high = values[:learned].min(), values[:learned].max()
    said = {"mean": np.full(len(at), values[:learned].mean()), "biases": base}
    first = max(0, learned - LEARNED)
    for name, made_of in _features(world, line, at[first:], made).items():
        split = learned - first
        head = Head.fit(made_of[:split], (values - base)[first:learned])
        said[f"biases + {name}"] = np.concatenate([base[:first], base[first:] + head(made_of)])
    late = slice(learned, None)
    return Values(users[late], {n: np.abs(np.clip(s[late], low, high) - values[late]) for n, s in said.items()})


def _features(
    world: World, line: Timeline, at: NDArray[np.int64], made: dict[str, Engine]
) -> dict[str, NDArray[np.float64]]:
    """By engine: the features of these events, ascending, each from the history before it."""
    past = Past(line)
    parts: dict[str, list[NDArray[np.float64]]] = {name: [] for name in made}
    for start in range(int(at[0]), int(at[-1]) + 1, CHUNK):
        end = min(start + CHUNK, len(line))
        histories, some = past.before(start, end), at[(at >= start) & (at < end)]
        if not len(some):
            continue
        h = histories.take(some - start)
        for name, engine in made.items():
            users = engine.encode(h, engine.profiles(h)).vectors.cpu().numpy()
            parts[name].append(features(users, engine.item_vectors[line.rows[some]]))
    return {name: np.concatenate(found) for name, found in parts.items()}
