"""`eddyline train`: flags over the section [train] over the defaults."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.checkpoint import load, save
from model.config import ModelConfig
from model.dataset import DatasetError
from model.encoder import TextEncoder
from model.recommender import Recommender
from stream.console.cli import app
from stream.console.histories import Wanted, catalogued
from stream.console.training import _parent, _train_config
from stream.errors import ConfigError, ModelError
from stream.lists.release import manifest_sha256


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "eddyline.toml"
    path.write_text("""
[input.weights]
view = 0.5
[train]
epochs = 4
ema = 0.9
[train.model]
short_term = "gru"
long_term = "buckets"
""")
    monkeypatch.setenv("EDDYLINE_CONFIG", str(path))


def test_flags_come_before_the_section_and_that_before_the_defaults() -> None:
    flags = {"short_term": "cnn", "fusion": None, "dim": None}
    made = _train_config({"epochs": None, "seed": 7}, flags)
    assert (made.epochs, made.ema, made.seed, made.batch) == (4, 0.9, 7, 32)
    assert (made.model.short_term, made.model.long_term, made.model.fusion) == ("cnn", "buckets", "attention")
    assert made.action_weights == {"view": 0.5}


def test_training_is_told_what_may_be_shown_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _train_config({}, {}).seen == "exclude"
    monkeypatch.setenv("EDDYLINE_RANK__SEEN", "allow")
    assert _train_config({}, {}).seen == "allow"
    monkeypatch.setenv("EDDYLINE_TRAIN__SEEN", "exclude")
    assert _train_config({}, {}).seen == "exclude"


def test_texts_are_adapted_only_if_asked_for_and_never_for_a_model_that_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = ModelConfig().model_dump(exclude={"mix"})
    assert not _train_config({}, {}).adapt.enabled
    assert _train_config({}, {}, adapt=True).adapt.enabled
    with pytest.raises(ConfigError, match="reads texts as before"):
        _train_config({}, {}, parts, adapt=True)
    monkeypatch.setenv("EDDYLINE_TRAIN__ADAPT__ENABLED", "true")
    assert _train_config({}, {}).adapt.enabled
    assert not _train_config({}, {}, parts).adapt.enabled


@pytest.mark.parametrize(
    ("run", "model", "flag"),
    [({}, {"short_term": "rnn"}, "--short-term rnn"), ({"learning_rate": -1.0}, {}, "--learning-rate -1.0")],
)
def test_a_flag_that_means_nothing_is_named(run: dict, model: dict, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        _train_config(run, model)


def test_what_does_not_go_together_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match="dim 97 is not shared out evenly among 2 heads: use 98"):
        _train_config({}, {"short_term": "gpt", "dim": 97})
    with pytest.raises(ConfigError, match=r"(?s)--both-ways: cnn reads .* one end only.*--short-term lstm or gru"):
        _train_config({}, {"short_term": "cnn", "both_ways": True})
    assert _train_config({}, {"short_term": "lstm", "both_ways": True}).model.both_ways


def test_a_rating_head_without_a_value_to_learn_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "events.csv").write_text("user,item,action,ts\nu1,i1,click,1000\nu1,i2,click,2000\n")
    with pytest.raises(ConfigError, match=r"(?s)no event has a value to learn.*a column `value`"):
        asked = ["train", str(tmp_path), "--rating-head", "--out", str(tmp_path / "1"), "--device", "cpu"]
        CliRunner().invoke(app, asked, catch_exceptions=False)


def test_what_to_train_on_is_said_once_and_a_range_is_not_empty() -> None:
    asked = {
        "nothing is said to train on": [],
        "both ./shop and --from-topics": ["./shop", "--from-topics"],
        "--since 2026-02-01 is not before": ["./shop", "--since", "2026-02-01", "--until", "2026-01-01"],
    }
    for said, arguments in asked.items():
        with pytest.raises(ConfigError, match=said):
            CliRunner().invoke(app, ["train", *arguments], catch_exceptions=False)


def test_a_range_of_a_folder_is_trained_on_and_one_without_events_is_told(tmp_path: Path) -> None:
    lines = [f"u{u},i{(u + n) % 12},click,{1000 * (20 * n + u)}" for n in range(9) for u in range(20)]
    (tmp_path / "events.csv").write_text("\n".join(["user,item,action,ts", *lines]))
    since, until = catalogued(Wanted(str(tmp_path), 20_000, 100_000))[0].events.ts[[0, -1]].tolist()
    assert (since, until) == (20_000, 99_000)
    with pytest.raises(DatasetError, match="no event is in the range; its times are 0 to 179000"):
        catalogued(Wanted(str(tmp_path), 180_000))


def test_a_model_goes_on_as_what_its_parent_is_made_of() -> None:
    made = _train_config({}, {"fusion": "gate", "dim": None}, {"short_term": "lstm", "dim": 24})
    assert (made.model.short_term, made.model.dim, made.model.fusion) == ("lstm", 24, "gate")
    assert made.model.long_term == "buckets"


def test_training_goes_on_from_a_folder_and_the_record_names_it(tmp_path: Path) -> None:
    data, first, second = tmp_path / "shop", tmp_path / "1", tmp_path / "2"
    data.mkdir()
    lines = [f"u{u},i{(u + n) % 12},click,{1000 * (20 * n + u)}" for n in range(9) for u in range(20)]
    (data / "events.csv").write_text("\n".join(["user,item,action,ts", *lines]))
    small = ["--short-term", "cnn", "--long-term", "pooled", "--dim", "16", "--layers", "1", "--epochs", "2"]
    for asked in (
        ["--end", "0.6", "--out", str(first), *small],
        ["--out", str(second), "--from", str(first), "--epochs", "2"],
    ):
        done = CliRunner().invoke(app, ["train", str(data), "--device", "cpu", *asked])
        assert done.exit_code == 0, done.output
    record = json.loads((second / "experiment.json").read_text())
    assert record["parent"] == {
        "model": "cnn-attention@1",
        "sha256": manifest_sha256(first),
        "until": 1000 * 107,
    }
    assert record["until"] == 1000 * 179
    assert record["config"]["model"]["short_term"] == "cnn" and record["config"]["model"]["dim"] == 16
    again = CliRunner().invoke(
        app, ["train", str(data), "--device", "cpu", "--out", str(second), "--from", str(second)]
    )
    assert "bring newer ones" in str(again.exception)


def test_a_model_that_goes_on_reads_texts_as_it_was_taught_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, first, second = tmp_path / "shop", tmp_path / "1", tmp_path / "2"
    data.mkdir()
    lines = [f"u{u},i{(u + n) % 12},click,{1000 * (20 * n + u)}" for n in range(9) for u in range(20)]
    (data / "events.csv").write_text("\n".join(["user,item,action,ts", *lines]))
    for name, value in (("STEPS", "2"), ("PAIRS", "4")):
        monkeypatch.setenv(f"EDDYLINE_TRAIN__ADAPT__{name}", value)
    monkeypatch.setenv("EDDYLINE_CACHE", str(tmp_path))
    small = ["--short-term", "cnn", "--long-term", "pooled", "--dim", "16", "--layers", "1"]
    for asked in (
        ["--end", "0.6", "--out", str(first), "--adapt-texts", *small],
        ["--out", str(second), "--from", str(first)],
    ):
        done = CliRunner().invoke(app, ["train", str(data), "--device", "cpu", "--epochs", "1", *asked])
        assert done.exit_code == 0, done.output
    taught, goes_on = load(first).adapter, load(second).adapter
    assert taught is not None and goes_on is not None and goes_on.id == taught.id
    texts = TextEncoder(adapter=taught).encode([f"i{n}" for n in range(12)])
    np.testing.assert_allclose(load(first).text_mean.numpy(), texts.mean(0), atol=1e-5)


def test_a_folder_that_does_not_say_what_it_has_learned_is_not_gone_on_from(tmp_path: Path) -> None:
    save(tmp_path / "old", Recommender(ModelConfig(dim=16, layers=1)), datetime.now(UTC))
    with pytest.raises(ModelError, match="does not say which events"):
        _parent(tmp_path / "old")
