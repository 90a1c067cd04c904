"""Texts adapted to a domain: learned from what follows what, kept with the model, merged where texts are read."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from model import adapt, checkpoint
from model.adapter import Adapter, AdapterError
from model.catalog import Catalog, Item
from model.checkpoint import ModelFolderError
from model.config import AdaptConfig, ModelConfig, TrainConfig
from model.encoder import EncoderError, TextEncoder
from model.engine import Engine
from model.evaluation.exams import World
from model.evaluation.methods.registry import released
from model.evaluation.methods.served import Served
from model.evaluation.methods.trained import Trained
from model.recommender import Recommender
from model.replay import timeline
from tests.model.evaluation.worlds import happened

NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
BREAD = ("Rye bread", "Sourdough loaf", "Baguette", "Ciabatta roll")
WOOL = ("Merino yarn", "Mohair skein", "Alpaca ball", "Knitting needles")
TITLES = [title for pair in zip(BREAD, WOOL, strict=True) for title in pair]
CATALOG = Catalog.build({f"i{n:02}": Item(f"i{n:02}", title) for n, title in enumerate(TITLES)})
"""Eight things; whoever takes bread takes wool next, so that bread of one row goes with wool of the same."""
CONFIG = TrainConfig(adapt=AdaptConfig(enabled=True, steps=12, pairs=8, rank=4, learning_rate=5e-3))


def walks():
    """Users who take a bread, and the wool of the same row."""
    rows = [(f"u{u:02}", 2 * (u % 4) + step, 1000 * (2 * u + step)) for u in range(24) for step in (0, 1)]
    return happened(rows)


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def adapter(encoder: TextEncoder) -> Adapter:
    return adapt.learned(walks(), CATALOG, encoder, CONFIG)


def closeness(vectors: np.ndarray) -> float:
    """How much nearer things are that follow each other than things that do not."""
    alike = vectors[0::2] @ vectors[1::2].T
    return float(np.diag(alike).mean() - alike[~np.eye(4, dtype=bool)].mean())


def test_texts_of_what_follows_each_other_are_drawn_together(encoder: TextEncoder, adapter: Adapter):
    before, after = encoder.encode(TITLES), encoder.adapted(adapter).encode(TITLES)
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1, rtol=1e-5)
    assert closeness(before) < 0.05
    assert closeness(after) > closeness(before) + 0.3


def test_one_seed_gives_one_adapter_and_another_gives_another(encoder: TextEncoder, adapter: Adapter):
    assert adapt.learned(walks(), CATALOG, encoder, CONFIG).id == adapter.id
    assert adapt.learned(walks(), CATALOG, encoder, CONFIG.model_copy(update={"seed": 1})).id != adapter.id


def test_what_chooses_a_model_is_not_learned(encoder: TextEncoder, adapter: Adapter):
    """The last tenth of 48 events may say anything; without holding out they are learned."""
    other = walks()
    other.item[-4:] = "i00"
    assert adapt.learned(other, CATALOG, encoder, CONFIG).id == adapter.id
    assert adapt.learned(other, CATALOG, encoder, CONFIG, held_out=False).id != adapter.id


def test_a_pair_is_a_liked_item_and_one_liked_shortly_before():
    events = happened([("a", 0, 1), ("a", 1, 2), ("a", 2, 3), ("a", 2, 4), ("b", 3, 5), ("b", 4, 6), ("b", 5, 7)])
    line = timeline(events, CATALOG)
    rng = np.random.default_rng(0)
    found = {tuple(pair) for _ in range(40) for pair in adapt.pairs_before(line, 6, 2, rng).tolist()}
    # of the first six events: not (2, 2), which is the item itself, nor b's last, nor a and b together
    assert found == {(1, 0), (2, 1), (2, 0), (4, 3)}
    near = {tuple(pair) for _ in range(40) for pair in adapt.pairs_before(line, 7, 1, rng).tolist()}
    assert near == {(1, 0), (2, 1), (4, 3), (5, 4)}


def test_the_loss_is_that_of_the_right_one_among_the_others(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    """By hand: three pairs, vectors along axes; wrong answers that are right, or the item itself, do not count."""
    lessons = adapt.Lessons(timeline(walks(), CATALOG), 40, CATALOG, encoder, CONFIG)
    along = {0: [1.0, 0, 0], 1: [0.8, 0.6, 0], 2: [0, 1.0, 0], 3: [0, 0, 1.0]}
    told = {CATALOG.texts[r]: v for r, v in along.items()}
    monkeypatch.setattr(encoder, "vectors", lambda tokenizer, bert, texts: torch.tensor([told[t] for t in texts]))
    pairs = np.array([[0, 1], [2, 1], [3, 0]])  # the first must not count the second's answer, nor the third's itself
    log_share = torch.log(torch.tensor([0.5, 0.25, 0.1, 0.1]))
    by_temperature = np.array([[0.8, 0.8, 1.0], [0.6, 0.6, 0.0], [0.0, 0.0, 0.0]]) / 0.05
    scores = by_temperature - np.log([0.25, 0.25, 0.5])
    scores[0, 1] = scores[0, 2] = scores[1, 0] = -np.inf  # the same answer; the item itself
    chance = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert lessons._loss(pairs, log_share).item() == pytest.approx(-np.log(np.diag(chance)).mean(), rel=1e-5)


def test_merging_does_what_the_library_does(encoder: TextEncoder, adapter: Adapter):
    """A + B A by hand against peft's own merge of the same matrices."""
    lessons = adapt.Lessons(timeline(walks(), CATALOG), 40, CATALOG, encoder, CONFIG)
    lessons.adapter()
    taken = lessons._taken()
    theirs = lessons._bert.merge_and_unload()
    with torch.inference_mode():
        expected = encoder.vectors(lessons._tokenizer, theirs, TITLES).numpy()
    np.testing.assert_allclose(encoder.adapted(taken).encode(TITLES), expected, atol=1e-5)


def test_vectors_of_one_adapter_are_not_taken_for_others(tmp_path: Path, adapter: Adapter):
    plain = TextEncoder(cache=tmp_path)
    before = plain.encode(TITLES)
    adapted = plain.adapted(adapter)
    after = adapted.encode(TITLES)
    assert not np.allclose(before, after, atol=1e-3)
    np.testing.assert_array_equal(TextEncoder(cache=tmp_path).encode(TITLES), before)
    known = TextEncoder(cache=tmp_path, adapter=adapter)
    np.testing.assert_array_equal(known.encode(TITLES), after)
    assert known._loaded is None  # all of it was on the disk
    assert adapted.adapted(adapter) is adapted
    assert adapted.adapted(None).weights_id() == plain.weights_id()


def test_an_adapter_of_other_weights_is_refused(adapter: Adapter):
    stranger = Adapter("of other weights", adapter.down, adapter.up)
    with pytest.raises(EncoderError, match="learned on other BERT weights"):
        TextEncoder(adapter=stranger).encode(["x"])
    with pytest.raises(AdapterError, match=r"no layer .*query of \(384, 384\)"):
        adapter.merge(torch.nn.Linear(2, 2))


def test_without_peft_it_is_said_what_to_install(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(adapt.AdaptError, match=r"pip install 'eddyline\[lora\]'"):
        adapt.learned(walks(), CATALOG, encoder, CONFIG)


def model_of(adapter: Adapter | None) -> Recommender:
    torch.manual_seed(0)
    model = Recommender(ModelConfig(dim=8, items=len(CATALOG)))
    model.adapter = adapter
    return model


def test_a_model_folder_keeps_the_adapter_and_vouches_for_it(tmp_path: Path, adapter: Adapter):
    folder = tmp_path / "m"
    manifest = checkpoint.save(folder, model_of(adapter), NOW)
    loaded = checkpoint.load(folder).adapter
    assert loaded is not None
    assert (loaded.id, loaded.base) == (adapter.id, adapter.base)
    assert checkpoint.ADAPTER in manifest.sha256
    path = folder / checkpoint.ADAPTER
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ModelFolderError, match=r"adapter\.safetensors: not the file"):
        checkpoint.load(folder)


def test_without_an_adapter_a_folder_is_as_it_was(tmp_path: Path):
    checkpoint.save(tmp_path / "m", model_of(None), NOW)
    names = {p.name for p in (tmp_path / "m").iterdir()}
    assert names == {checkpoint.WEIGHTS, checkpoint.CONFIG, checkpoint.METRICS, checkpoint.MANIFEST}
    assert checkpoint.load(tmp_path / "m").adapter is None


def trained(encoder: TextEncoder, config: TrainConfig) -> Trained:
    text = encoder.encode(CATALOG.texts)
    items = {i: Item(i, t) for i, t in zip(CATALOG.ids, CATALOG.titles, strict=True)}
    world = World(walks(), CATALOG, items, lambda: text, train=config, encoder=encoder)
    return Trained(world, "cnn/pooled/attention", 0)


def test_an_evaluation_trains_on_adapted_texts_and_lists_by_them(encoder: TextEncoder, adapter: Adapter):
    short = ModelConfig(dim=8, layers=1)
    config = CONFIG.model_copy(update={"model": short, "epochs": 1, "held_out": 0.3})
    method = trained(encoder, config)
    line = timeline(walks(), CATALOG)
    method.learn(line, len(line))
    model = method.model(line, len(line))
    assert model.adapter is not None
    texts = encoder.adapted(model.adapter).encode(CATALOG.texts)
    np.testing.assert_allclose(model.text_mean.numpy(), texts.mean(0), atol=1e-6)
    plain = trained(encoder, config.model_copy(update={"adapt": AdaptConfig()}))
    assert plain.model(line, len(line)).adapter is None


def test_a_folder_with_an_adapter_is_evaluated_by_the_texts_as_it_reads_them(
    tmp_path: Path, encoder: TextEncoder, adapter: Adapter
):
    checkpoint.save(tmp_path / "with", model_of(adapter), NOW)
    checkpoint.save(tmp_path / "without", model_of(None), NOW)
    text = encoder.encode(CATALOG.texts)
    world = World(walks(), CATALOG, {}, lambda: text, encoder=encoder)
    served, alone, texts = released(world, tmp_path / "with")
    assert [m.name for m in (served, alone, texts)] == ["released", "neural", "adapted texts"]
    assert isinstance(served, Served) and isinstance(texts, Served)
    adapted = Engine(CATALOG, encoder.adapted(adapter).encode(CATALOG.texts))
    np.testing.assert_allclose(texts.engine.item_vectors, adapted.item_vectors, atol=1e-5)
    assert served.engine.given is not None and served.engine.given.adapter is not None
    assert [m.name for m in released(world, tmp_path / "without")] == ["released", "neural"]


def test_only_bert_is_adapted(encoder: TextEncoder):
    other = CONFIG.model_copy(update={"model": ModelConfig(texts="tfidf")})
    with pytest.raises(adapt.AdaptError, match="adapt is of BERT"):
        adapt.learned(walks(), CATALOG, encoder, other)
