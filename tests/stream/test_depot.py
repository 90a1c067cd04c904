"""Model folders from elsewhere: whole and as announced, or refused with the reason; nothing half fetched is left."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
import msgspec
import pytest
import torch

from model import checkpoint
from model.checkpoint import ModelFolderError
from model.config import ModelConfig
from model.recommender import Recommender
from stream.errors import ConfigError, ModelError
from stream.lists import depot as depots
from stream.lists.depot import Depot, local
from stream.lists.release import FORMAT, Release, manifest_sha256
from tests.stream.test_systems import NOW


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, as `eddyline train` writes one."""
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "models" / "one", Recommender(ModelConfig(dim=16, layers=1, items=1)).eval(), NOW)
    return tmp_path / "models" / "one"


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot(tmp_path / "depot")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site(folder: Path) -> Iterator[str]:
    """The models on a web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder.parent)))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}/one"
    server.shutdown()
    server.server_close()


def released(folder: Path, location: str, **more: int) -> Release:
    return Release("ours", 1, location, manifest_sha256(folder), **more)


def kept(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "depot").glob("*"))


def test_a_folder_of_this_machine_is_used_where_it_is(folder: Path, depot: Depot, tmp_path: Path) -> None:
    for location in (str(folder), folder.as_uri()):
        assert depot.at(released(folder, location)) == folder == depot.look(location)
    assert kept(tmp_path) == []
    assert local("s3://bucket/m") is local("https://host/m") is None


def test_a_release_on_a_web_server_is_fetched_once_and_kept_by_its_manifest(
    site: str, folder: Path, depot: Depot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = released(folder, site)
    found = depot.at(release)
    assert kept(tmp_path) == [release.sha256] and found.name == release.sha256
    assert checkpoint.load(found).config == checkpoint.load(folder).config
    assert depot.look(site + "/") == found

    def never(*args: object) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr(depots, "_download", never)
    assert depot.at(release) == found


def test_a_release_in_an_object_store_is_fetched(folder: Path, depot: Depot) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(folder), "/bucket/models/one", recursive=True)
    found = depot.at(released(folder, "memory://bucket/models/one"))
    assert checkpoint.manifest(found) == checkpoint.manifest(folder)


def test_what_was_damaged_in_the_depot_is_fetched_again(site: str, folder: Path, depot: Depot) -> None:
    release = released(folder, site)
    (depot.at(release) / "config.json").write_text("{}")
    assert checkpoint.load(depot.at(release)).config == checkpoint.load(folder).config


def changed(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda f: changed(f / "model.safetensors"), "model.safetensors: not the file the manifest names"),
        (lambda f: (f / "model.safetensors").write_bytes(b"cut"), r"model.safetensors has 3 of [\d,]+ bytes"),
        (lambda f: (f / "config.json").write_text("x" * 9999), "config.json has more than"),
        (lambda f: (f / "metrics.json").unlink(), "metrics.json is not there"),
        (lambda f: (f / "manifest.json").write_text("{}"), "is not what was announced as ours@1"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is not there"),
    ],
    ids=["changed", "truncated", "longer", "missing", "another", "no manifest"],
)
def test_what_is_wrong_with_a_release_elsewhere_is_told_and_nothing_of_it_is_kept(
    site: str, folder: Path, depot: Depot, tmp_path: Path, harm: object, words: str
) -> None:
    release = released(folder, site)
    harm(folder)  # type: ignore[operator]
    with pytest.raises((ModelError, ModelFolderError), match=words):
        depot.at(release)
    assert kept(tmp_path) == []


def test_a_release_on_this_machine_that_has_changed_is_told(folder: Path, depot: Depot) -> None:
    release = released(folder, str(folder))
    changed(folder / "model.safetensors")
    with pytest.raises(ModelFolderError, match="not the file the manifest names"):
        depot.at(release)
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ModelError, match="is not what was announced as ours@1"):
        depot.at(release)


def test_a_release_of_a_later_version_of_eddyline_is_told_as_such(folder: Path, depot: Depot) -> None:
    with pytest.raises(ModelError, match=f"announced by a later eddyline .format {FORMAT + 1}, this one reads"):
        depot.at(released(folder, str(folder), format=FORMAT + 1))


def test_releases_of_workers_of_before_are_read_and_they_pass_over_what_is_new() -> None:
    class Before(msgspec.Struct, frozen=True):
        model: str
        version: int
        location: str
        sha256: str
        metrics: dict = {}

    old = Before("m", 3, "/m", "0" * 64, {"a": 1})
    assert msgspec.json.decode(msgspec.json.encode(old), type=Release).name == "m@3"
    new = Release("m", 3, "/m", "0" * 64, {"a": 1}, "hash", 5, "default", 2)
    assert msgspec.json.decode(msgspec.json.encode(new), type=Before) == old


@pytest.mark.parametrize(
    ("location", "error", "words"),
    [
        ("http://127.0.0.1:9/m", ModelError, "cannot be read.*check that this machine reaches it"),
        ("simplecache::http://127.0.0.1:9/m", ModelError, "more than one URL"),
        ("nonsense://m", ModelError, "cannot be read: ValueError"),
        ("gs://bucket/m", ConfigError, "install what reads it"),
    ],
)
def test_a_location_that_cannot_be_read_is_told_with_what_to_do(
    depot: Depot, location: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=f"(?s){words}"):
        depot.look(location)


def test_what_would_not_fit_on_the_disk_is_not_begun(
    site: str, folder: Path, depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        free = 10

    monkeypatch.setattr(depots.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(ModelError, match="10 left"):
        depot.at(released(folder, site))


def test_what_stands_is_kept_and_a_few_that_were_used_last(tmp_path: Path) -> None:
    there = tmp_path / "depot"
    for n in range(6):
        (there / f"release{n}").mkdir(parents=True)
        os.utime(there / f"release{n}", (n, n))
    for name, age in (("old.partial", 2 * 86_400), ("new.partial", 60)):
        (there / name).mkdir()
        os.utime(there / name, (10_000_000 - age, 10_000_000 - age))
    Depot(there, lambda: 10_000_000).forget_all_but({"release1"})
    assert kept(tmp_path) == ["new.partial", "release1", "release3", "release4", "release5"]
    Depot(tmp_path / "nowhere").forget_all_but(set())
