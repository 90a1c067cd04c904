"""Every encoder, profile, fusion and head trains, evaluates, saves, loads and serves; and each described system."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from model import checkpoint
from model.catalog import Catalog, Item
from model.config import ModelConfig, TrainConfig
from model.engine import Engine
from model.evaluation.exams import World
from model.evaluation.methods.served import Served
from model.evaluation.protocols import evaluate
from model.online import Counts, OnlineParams, OnlineScores
from model.train import train
from tests.model.worlds import met, ring_walks, text_vectors

RING = 20
TEXT = text_vectors(RING)
EVENTS, CATALOG = ring_walks(users=24, steps=19, ring=RING)
SYSTEMS = {
    "A": {"short_term": "gru", "action_head": True},
    "B": {"short_term": "gpt", "long_term": "document", "fusion": "steps"},
    "C": {"short_term": "gpt", "long_term": "counted", "fusion": "alpha"},
    "D": {"short_term": "lstm", "both_ways": True, "long_term": "buckets", "fusion": "alpha"},
    "E": {"short_term": "cnn-lstm-attention", "rating_head": True},
    "the rest": {"short_term": "cnn", "fusion": "gate", "texts": "tfidf"},
}


def encode(texts):
    return text_vectors(len(texts))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**model) -> TrainConfig:
    made = ModelConfig.model_validate({"short_term": "gpt", "dim": 16, "layers": 1, "window": 8, **model})
    return TrainConfig(model=made, epochs=2, batch=16, learning_rate=1e-2, held_out=0.2)


def search_all(engine: Engine):
    """Exact search, as an index would answer."""

    def search(vectors, k):
        scores = vectors @ engine.item_vectors.T
        rows = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, rows, 1), rows

    return search


def lists(engine: Engine, h) -> list[list[int]]:
    online = OnlineScores.build(engine.catalog, Counts.empty(), 0, OnlineParams())
    fused = engine.encode(h, engine.profiles(h))
    candidates = engine.candidates(h, fused, search_all(engine), online, 10)
    return [r.items.tolist() for r in engine.rank(h, fused, candidates, online, 5)]


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_trains_evaluates_saves_loads_and_serves(system, tmp_path):
    events = EVENTS
    if system == "E":
        events = replace(events, value=np.arange(len(events)) % 5 + np.float32(1))
    model = train(events, CATALOG, TEXT, config(**SYSTEMS[system]), encode=encode)
    world = World(events, CATALOG, {}, lambda: TEXT, encode=encode)
    method = Served(world, Engine(CATALOG, TEXT, model, encode=encode), "released")
    table, _ = evaluate(world, "temporal", [method], tune=False, rows=["temporal"])["temporal"]
    hits = table.metrics("released")["hr@10"]
    assert len(hits) > 10 and 0 <= hits.mean() <= 1
    checkpoint.save(tmp_path / "one", model, datetime(2026, 1, 1, tzinfo=UTC))
    loaded = checkpoint.load(tmp_path / "one")
    assert (loaded.config, loaded.record["config"]) == (model.config, config(**SYSTEMS[system]).model_dump(mode="json"))
    h = met([1, 2, 3], [], list(range(18)))
    one, two = (lists(Engine(CATALOG, TEXT, m, encode=encode), h) for m in (model, loaded))
    assert one == two and [len(items) for items in one] == [5, 5, 2]
    engine = Engine(CATALOG, TEXT, loaded, encode=encode)
    assert one == [lists(engine, h.take([b]))[0] for b in range(len(h))], "whoever is asked for beside them"
    assert {"A": "next_action_f1", "E": "rating_mae"}.get(system, "hr@10") in model.metrics["validation"]


def test_the_systems_are_all_encoders_profiles_and_fusions_there_are():
    fields = ModelConfig.model_fields
    for part, given in (("short_term", "gpt"), ("long_term", "pooled"), ("fusion", "attention")):
        named = {given} | {system.get(part, given) for system in SYSTEMS.values()}
        assert named == set(fields[part].annotation.__args__), part


def test_a_large_catalogue_is_learned_from_a_sample_of_it():
    c = config().model_copy(update={"epochs": 12, "full_softmax": 10, "negatives": 4})
    model = train(EVENTS, CATALOG, TEXT, c)
    assert model.metrics["validation"]["neural_hr@10"] > 0.8
    weak = train(EVENTS, CATALOG, TEXT, c.model_copy(update={"epochs": 1, "learning_rate": 1e-6}))
    assert weak.metrics["validation"]["neural_ndcg@10"] < model.metrics["validation"]["neural_ndcg@10"]


IN_ONE_SECOND = replace(EVENTS, ts=np.arange(len(EVENTS)) // 48 * 1000)
"""Two interactions of each user a second."""
PLAIN = config().model_copy(update={"shuffle": False})


@pytest.fixture(scope="module")
def plain():
    return train(IN_ONE_SECOND, CATALOG, TEXT, PLAIN)


def test_the_same_training_learns_the_same(plain):
    again = train(IN_ONE_SECOND, CATALOG, TEXT, PLAIN)
    assert torch.equal(plain.id.weight, again.id.weight)


@pytest.mark.parametrize(
    "option", [{"shuffle": True}, {"hide": 0.3}, {"ema": 0.9}, {"contrastive": 0.1}, {"id_from_text": True}]
)
def test_every_option_of_training_changes_what_is_learned(option, plain):
    other = train(IN_ONE_SECOND, CATALOG, TEXT, PLAIN.model_copy(update=option))
    assert not torch.equal(plain.id.weight, other.id.weight)
    assert all(p.isfinite().all() for p in other.parameters())


def test_an_item_that_brings_a_vector_is_found_by_it():
    """Texts say nothing; own vectors say which item it is, and so of an item nobody has met which it is like."""
    events, ring = ring_walks()
    own = text_vectors(len(ring), dim=6, seed=5)
    items = {i: Item(i, "a thing", vector=own[k].tolist()) for k, i in enumerate(ring.ids)}
    blank = np.ones((len(ring), 8), np.float32)
    c = config().model_copy(update={"epochs": 12, "batch": 8, "id_dropout": 0.5})
    model = train(events, Catalog.build(items), blank, c)
    assert (model.config.text_dim, model.config.own_dim) == (14, 6)
    wider = Catalog.build(items | {"twin": Item("twin", "a thing", vector=(3 * own[4]).tolist())})
    engine, h = Engine(wider, np.ones((len(ring) + 1, 8), np.float32), model), met([1, 2, 3], [7, 8, 9])
    scores = engine.encode(h, engine.profiles(h)).vectors.numpy() @ engine.item_vectors.T
    best = np.argsort(-np.where(engine.allowed(h), scores, -np.inf), axis=1)[:, :2]
    assert {wider.ids[k] for k in best[0]} == {"i04", "twin"}
    assert "twin" not in {wider.ids[k] for k in best[1]}
    without = Catalog.build({i: Item(i, "a thing") for i in ring.ids})
    assert Engine(without, blank, model).item_vectors.shape == (len(ring), 16)


def test_own_vectors_of_another_length_than_most_are_left_out():
    found = Catalog.build({str(k): Item(str(k), "x", vector=[3.0, 4.0][: 1 + (k > 0)]) for k in range(3)})
    np.testing.assert_allclose(found.own, [[0, 0], [0.6, 0.8], [0.6, 0.8]], atol=1e-6)
    assert found.contents(np.ones((3, 4), np.float32), 2).shape == (3, 6)
    np.testing.assert_array_equal(found.contents(np.ones((3, 4), np.float32), 5)[:, 4:], np.zeros((3, 5)))
