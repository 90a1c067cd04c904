"""How far off values are told: on a world where tastes decide, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest

from model.dataset import Events
from model.engine import Engine
from model.evaluation.exams import World
from model.evaluation.methods.registry import make
from model.evaluation.values import engines, told
from tests.model.evaluation.worlds import ring_world, world_of
from tests.model.worlds import text_vectors

ITEMS = 40


def rated_world() -> World:
    """Half of the users like what the first half of the catalogue is like, and watch that; the others the other half;
    now and then each tries something, which they rate low.
    """
    rng = np.random.default_rng(0)
    users = np.tile(np.arange(60), 30)
    own = (users % 2) * (ITEMS // 2) + rng.integers(ITEMS // 2, size=len(users))
    foreign = rng.random(len(users)) < 0.2
    rows = np.where(foreign, (own + ITEMS // 2) % ITEMS, own)
    names = np.array([f"i{r:02}" for r in rows], object)
    values = np.where(foreign, 1.0, 5.0).astype(np.float32)
    people = np.array([f"u{u}" for u in users], object)
    events = Events(people, names, np.full(len(rows), 2, np.uint8), 1000 * np.arange(len(rows)), values)
    texts = text_vectors(2)[np.arange(ITEMS) // (ITEMS // 2)] + 0.1 * text_vectors(ITEMS, seed=1)
    return replace(world_of(events, ITEMS), texts=lambda: texts)


def test_vectors_tell_what_biases_cannot():
    world = rated_world()
    found = told(world, {"fallback": Engine(world.catalog, world.texts())}, 0.7)
    assert found is not None and len(found.users) == 540
    rows = found.rows()
    assert list(rows) == ["mean", "biases", "biases + fallback"]
    assert rows["biases + fallback"]["mae"].mean < 0.5 * rows["biases"]["mae"].mean
    assert rows["biases + fallback"]["biases less this"].low > 0
    assert rows["biases"]["biases less this"].mean == 0


def test_the_mean_by_hand():
    world = rated_world()
    found = told(world, {}, 0.7)
    assert found is not None
    values = world.events.value.astype(float)
    by_hand = np.abs(values[1260:] - values[:1260].mean()).mean()
    assert found.rows()["mean"]["mae"].mean == pytest.approx(by_hand)


def test_events_without_values_are_told_nothing():
    assert told(ring_world(), {}, 0.7) is None


def test_an_engine_behind_several_methods_counts_once():
    world = ring_world()
    assert list(engines(make(["popular", "fallback", "fallback-neural"], world))) == ["fallback"]
