"""`eddyline train`: flags over the section [train] over the defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.console.training import _train_config
from stream.errors import ConfigError


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


@pytest.mark.parametrize(
    ("run", "model", "flag"),
    [({}, {"short_term": "rnn"}, "--short-term rnn"), ({"learning_rate": -1.0}, {}, "--learning-rate -1.0")],
)
def test_a_flag_that_means_nothing_is_named(run: dict, model: dict, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        _train_config(run, model)
