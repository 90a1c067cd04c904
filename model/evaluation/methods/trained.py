"""A model of ours, trained as `eddyline train` does on what an exam lets it learn, then served as a worker does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.evaluation.exams import Asked, Method, World
from model.evaluation.methods.served import Served
from model.replay import Timeline
from model.train import train


class Trained(Method):
    """`short/long/fusion` with one seed. Epochs and the mix are chosen within what it learns, on its last tenth."""

    seeded = True

    def __init__(self, world: World, name: str, seed: int, config: TrainConfig | None = None) -> None:
        self.name, self._world = name, world
        short, long, fusion = name.split("/")
        found = ModelConfig.model_validate({"short_term": short, "long_term": long, "fusion": fusion})
        update = {"seed": seed, "model": found, "action_weights": world.weights}
        self._config = (config or TrainConfig()).model_copy(update=update)

    def learn(self, line: Timeline, end: int) -> None:
        events, texts = events_of(line, end, self._world.catalog), self._world.texts()
        catalog, encode = self._world.catalog, self._world.encode
        model = train(events, catalog, texts, self._config, encode=encode)
        self._served = Served(self._world, Engine(catalog, texts, model, encode=encode), self.name)
        self._served.learn(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self._served.add(line, first, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return self._served.scores(asked)

    def settings(self) -> dict[str, object]:
        return {"seed": self._config.seed}


def events_of(line: Timeline, end: int, catalog: Catalog) -> Events:
    """The first `end` events again as events, items outside the catalogue left out."""
    at = np.flatnonzero(line.rows[:end] >= 0)
    ids = np.array(catalog.ids, object)
    users = np.array([str(u) for u in line.users[at]], object)
    nothing = np.full(len(at), np.nan, np.float32)
    return Events(users, ids[line.rows[at]], line.actions[at], line.times[at], nothing)
