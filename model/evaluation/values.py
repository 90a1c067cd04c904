"""How far off the values of later events are told (MAE), where a data set has values: by the mean, by user and item
biases, and by these with a head on the item vectors of each engine. Under `temporal`; every event with a value counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.engine import Engine
from model.evaluation.exams import Method, World
from model.metrics import Interval, bootstrap
from model.ratings import biases, head
from model.replay import timeline

FEWEST = 10
"""Values to learn from; where there are fewer, none are told."""


@dataclass(frozen=True, eq=False)
class Values:
    """users i64[T] of the events that are asked; off f64[T] by name: how far off each value was told."""

    users: NDArray[np.int64]
    off: Mapping[str, NDArray[np.float64]]

    def rows(self) -> dict[str, dict[str, Interval]]:
        """By name the MAE, and by how much it is below that of biases alone, with 95% intervals over users."""
        found = {}
        for name, off in self.off.items():
            less = bootstrap(self.users, self.off["biases"] - off, seed=0)
            found[name] = {"mae": bootstrap(self.users, off, seed=0), "biases less this": less}
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


def told(world: World, made: Mapping[str, Engine], begin: float) -> Values | None:
    """What comes of the events after share `begin`; None where too few events have values."""
    line = timeline(world.events, world.catalog, world.weights)
    at = np.flatnonzero(np.isfinite(world.events.value) & (line.rows >= 0))
    learned = int(np.searchsorted(at, round(begin * len(line))))
    if learned < FEWEST or learned == len(at):
        return None
    users, items, values = line.users[at], line.rows[at], world.events.value[at].astype(np.float64)
    base = biases(users, items, values, learned)
    said = {"mean": np.full(len(at), values[:learned].mean()), "biases": base}
    for name, engine in made.items():
        said[f"biases + {name}"] = base + head(users, items, values - base, engine.item_vectors, learned)
    low, high = values[:learned].min(), values[:learned].max()
    late = slice(learned, None)
    return Values(users[late], {n: np.abs(np.clip(s, low, high) - values)[late] for n, s in said.items()})
