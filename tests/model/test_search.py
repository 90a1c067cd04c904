"""A search: what it tries, what it finds, and that it goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from model import checkpoint
from model.config import RANGES, SearchConfig, TrainConfig
from model.search import SearchError, as_toml, changed, search, value_of
from model.train import train
from stream.console import training
from tests.model.test_parallel import shop
from tests.model.test_train import TEXT, TINY
from tests.model.worlds import ring_walks

NARROW: dict[str, list[Any]] = {"dropout": [0.0, 0.5], "model.dim": [8, 16, 32]}


class Fitted:
    """Stands for a training: the less dropout the better, and dim 32 best of all."""

    def __init__(self) -> None:
        self.asked: list[TrainConfig] = []

    def __call__(self, c: TrainConfig, tell: Any) -> Any:
        self.asked.append(c)
        reached = c.model.dim / 32 - c.dropout
        for epoch in range(1, 5):
            tell({"ndcg": reached * epoch / 4, "epoch": epoch})
        return SimpleNamespace(metrics={"validation": {"ndcg@10": reached}})


def test_the_present_settings_come_first_and_the_best_are_found(tmp_path: Path):
    fit, told = Fitted(), []
    config = TINY.model_copy(update={"dropout": 0.4})
    found = search(config, NARROW, 25, fit, tmp_path / "m.search", "data", lambda n, trial: told.append((n, trial)))
    assert fit.asked[0] == config.model_copy(update={"refit": False})
    assert len(fit.asked) == len(found.trials) == 25
    assert [n for n, _ in told] == list(range(1, 26))
    assert found.best["model.dim"] == 32 and found.best["dropout"] < 0.2
    assert {c.model.dim for c in fit.asked} <= {8, 16, 32} and all(0 <= c.dropout <= 0.5 for c in fit.asked)
    reached = [t.ndcg for t in found.trials if t.ndcg is not None]
    assert len(reached) < 25  # what is behind the median is stopped, and is never the best
    assert max(reached) == found.best["model.dim"] / 32 - found.best["dropout"]
    assert all(t.epochs < 4 for t in found.trials if t.ndcg is None)


def test_a_search_that_was_interrupted_goes_on(tmp_path: Path):
    path = tmp_path / "m.search"

    class Interrupted(Fitted):
        def __call__(self, c: TrainConfig, tell: Any) -> Any:
            if len(self.asked) == 3:
                raise KeyboardInterrupt
            return super().__call__(c, tell)

    with pytest.raises(KeyboardInterrupt):
        search(TINY, NARROW, 8, Interrupted(), path, "data")
    rest = Fitted()
    found = search(TINY, NARROW, 8, rest, path, "data")
    assert (len(found.trials), len(rest.asked)) == (8, 5)
    again = Fitted()
    assert search(TINY, NARROW, 8, again, path, "data").best == found.best
    assert not again.asked
    other = Fitted()
    search(TINY, NARROW, 2, other, path, "other data")
    assert len(other.asked) == 2


def test_a_search_trains_models(tmp_path: Path):
    events, catalog = ring_walks(users=20)
    config = TINY.model_copy(update={"epochs": 3})

    def fit(c: TrainConfig, tell: Any) -> Any:
        return train(events, catalog, TEXT, c, tell)

    found = search(config, {"learning_rate": [1e-4, 1e-2]}, 2, fit, tmp_path / "m.search", "ring")
    assert all(1e-4 <= t.settings["learning_rate"] <= 1e-2 for t in found.trials)
    assert all(t.ndcg is not None and t.epochs == 3 for t in found.trials)


def test_the_command_trains_with_the_best_and_keeps_what_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "eddyline.toml").write_text(
        "[train]\nheld_out = 0.2\n[train.model]\nwindow = 8\n[search.ranges]\nlearning_rate = [1e-5, 2e-2]\n"
    )
    monkeypatch.setenv("EDDYLINE_CONFIG", str(tmp_path / "eddyline.toml"))
    monkeypatch.setenv("EDDYLINE_CACHE", str(tmp_path))
    out = tmp_path / "m"
    given = {"dim": 16, "layers": 1, "epochs": 2, "device": "cpu", "search": 3, "tensorboard": str(tmp_path / "board")}
    training.train(str(shop(tmp_path)), folder=str(out), **given)
    record = checkpoint.load(out).record
    best = max((t for t in record["search"] if t["ndcg"] is not None), key=lambda t: t["ndcg"])
    assert len(record["search"]) == 3
    assert record["config"]["learning_rate"] == best["settings"]["learning_rate"]
    assert f"[train]\nlearning_rate = {best['settings']['learning_rate']}" in capsys.readouterr().out
    assert list((tmp_path / "board").iterdir()) and (tmp_path / "m.search").is_file()


def test_what_is_found_is_told_as_settings():
    said = as_toml({"dropout": 0.2, "shuffle": True, "model.dim": 128, "model.short_term": "gru"})
    assert said == '[train]\ndropout = 0.2\nshuffle = true\n\n[train.model]\ndim = 128\nshort_term = "gru"'
    made = changed(TINY, {"dropout": 0.2, "model.dim": 128})
    assert (made.dropout, made.model.dim, made.model.window) == (0.2, 128, TINY.model.window)
    assert value_of(made, "model.dim") == 128


def test_every_range_is_of_a_setting_and_holds_its_default():
    assert all(value_of(TrainConfig(), name) is not None for name in RANGES)
    with pytest.raises(ValidationError, match="dropuot is no setting"):
        SearchConfig(ranges={"dropuot": [0, 1]})
    with pytest.raises(ValidationError, match="nothing to choose from"):
        SearchConfig(ranges={"dropout": []})


def test_a_search_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(SearchError, match=r"eddyline\[search\]"):
        search(TINY, NARROW, 1, Fitted(), tmp_path / "m.search", "data")
