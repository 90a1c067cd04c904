"""Model folders: whole or refused, with the file and the remedy named."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from model import checkpoint
from model.checkpoint import ModelFolderError
from model.config import ModelConfig
from model.mix import Mix
from model.recommender import Recommender
from tests.model.worlds import ring_walks, shelf, text_vectors

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
def model():
    torch.manual_seed(1)
    sizes = {"dim": 16, "layers": 1, "window": 8, "text_dim": 8, "items": 4}
    config = ModelConfig.model_validate({"short_term": "gpt", "version": 3, "mix": Mix(online=0.5), **sizes})
    made = Recommender(config)
    made.set_items(shelf(4).hashes, text_vectors(4))
    made.metrics = {"validation": {"hr@10": 0.25}}
    return made.eval()


@pytest.fixture
def folder(model, tmp_path):
    checkpoint.save(tmp_path / "models" / "one", model, NOW, data="abc")
    return tmp_path / "models" / "one"


def test_a_loaded_model_is_the_saved_one(model, folder):
    loaded = checkpoint.load(folder)
    assert (loaded.name, loaded.mix, loaded.metrics) == (
        "gpt-attention@3",
        Mix(online=0.5),
        model.metrics,
    )
    assert not loaded.training
    with torch.inference_mode():
        one, two = (m.item_vectors(shelf(4).hashes, text_vectors(4)) for m in (model, loaded))
    assert torch.equal(one, two)


def test_a_manifest_says_what_when_and_from_which_data(folder):
    found = checkpoint.manifest(folder)
    assert (found.model, found.data, found.created) == (
        "gpt-attention@3",
        "abc",
        "2026-11-22T12:00:00+00:00",
    )
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "metrics.json",
        "model.safetensors",
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json"])
def test_a_changed_file_is_named(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(ModelFolderError, match=rf"{name}: not the file the manifest names; copy"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=rf"{name}: missing"):
        checkpoint.load(folder)


def test_a_file_that_was_cut_short_is_told_with_how_much_of_it_is_there(folder):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    with pytest.raises(ModelFolderError, match=rf"cut short: 1,000 of {len(whole):,} bytes"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["../config.json", "/etc/passwd", "..", "", "a\\b", "manifest.json"])
def test_a_manifest_that_names_files_elsewhere_is_refused(folder, name):
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    found["sha256"][name] = "0" * 64
    path.write_text(json.dumps(found))
    with pytest.raises(ModelFolderError, match="is no file of its folder"):
        checkpoint.load(folder)


def test_a_folder_of_a_later_format_asks_for_a_later_eddyline_and_one_of_before_for_training(folder):
    path = folder / "manifest.json"
    for number, remedy in ((checkpoint.FORMAT + 1, "install the eddyline"), (0, "train the model again")):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format": number}))
        with pytest.raises(ModelFolderError, match=f"format {number}, this version reads .; {remedy}"):
            checkpoint.load(folder)


def test_a_folder_that_is_not_there_or_not_a_model_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelFolderError, match=r"no manifest\.json"):
            checkpoint.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format": 99}, "format 99"), ({"extra": 1}, "extra: Extra inputs"), ({"model": 5}, "model: Input should be")],
)
def test_a_foreign_manifest_is_refused_with_the_field(folder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelFolderError, match=message):
        checkpoint.load(folder)


def test_a_broken_manifest_is_refused(folder):
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ModelFolderError, match=r"manifest\.json"):
        checkpoint.load(folder)


def resealed(folder, name, content):
    """A file replaced, and the manifest made to vouch for it."""
    (folder / name).write_bytes(content)
    path = folder / "manifest.json"
    found = json.loads(path.read_text())
    found["sha256"][name] = checkpoint._sha256(folder / name)
    path.write_text(json.dumps(found))


def test_an_unknown_setting_in_the_config_is_refused_by_name(folder):
    config = json.loads((folder / "config.json").read_text()) | {"dimension": 3}
    resealed(folder, "config.json", json.dumps(config).encode())
    with pytest.raises(ModelFolderError, match="dimension"):
        checkpoint.load(folder)


def test_weights_of_another_shape_are_refused(folder):
    config = json.loads((folder / "config.json").read_text()) | {"dim": 32}
    resealed(folder, "config.json", json.dumps(config).encode())
    with pytest.raises(ModelFolderError, match="does not fit"):
        checkpoint.load(folder)


def test_a_second_save_replaces_the_first_whole(model, folder):
    model.metrics = {"again": 1}
    checkpoint.save(folder, model, NOW)
    assert checkpoint.load(folder).metrics == {"again": 1}


def test_a_folder_of_something_else_is_never_overwritten(model, tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ModelFolderError, match="not a model folder"):
        checkpoint.save(tmp_path, model, NOW)
    assert (tmp_path / "thesis.txt").read_text() == "x"


def test_a_data_hash_changes_with_any_event():
    events, _ = ring_walks(users=3)
    same, _ = ring_walks(users=3)
    changed = events.take(np.arange(len(events) - 1))
    assert checkpoint.data_hash(events) == checkpoint.data_hash(same) != checkpoint.data_hash(changed)
