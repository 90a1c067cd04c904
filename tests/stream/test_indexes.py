"""The index of a model over catalogues that change, and over starts."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from index.config import IndexConfig
from index.graph import GraphIndex
from model.catalog import Catalog, Item
from stream.lists.indexes import DROP_AFTER_S, KEEP_EVERY_S, Indexes

GRAPH = IndexConfig(kind="hnsw")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def catalogue(names: list[str]) -> tuple[Catalog, np.ndarray]:
    """Items and their vectors, of length 1, each its own whatever the others are."""
    catalog = Catalog.build({name: Item(name, name) for name in names})
    vectors = np.stack([np.random.default_rng(int(name[1:])).normal(size=16) for name in catalog.ids])
    return catalog, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def named(start: int, end: int) -> list[str]:
    return [f"i{n:04d}" for n in range(start, end)]


def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of graphs that are built from nothing from now on."""
    sizes: list[int] = []
    build = GraphIndex._built
    monkeypatch.setattr(GraphIndex, "_built", lambda self, v: (sizes.append(len(v)), build(self, v))[1])
    return sizes


def test_what_is_found_is_a_row_of_the_catalogue_as_it_is_now(tmp_path: Path) -> None:
    indexes = Indexes(GRAPH, "cpu", tmp_path)
    for names in (named(100, 400), named(50, 395), named(60, 420)):
        catalog, vectors = catalogue(names)
        scores, rows = indexes.of("m@1", catalog, vectors).search(vectors[7:10], 5)
        assert rows[:, 0].tolist() == [7, 8, 9] and rows.dtype == np.int64
        assert np.allclose(scores[:, 0], 1, rtol=1e-4)
        assert (rows >= 0).all() and (rows < len(catalog)).all()


def test_an_index_is_made_from_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    indexes = Indexes(GRAPH, "cpu", tmp_path)
    indexes.of("m@1", *catalogue(named(0, 300)))
    sizes = built(monkeypatch)
    indexes.of("m@1", *catalogue(named(10, 320)))
    assert sizes == []
    indexes.forget_all_but({"m@2"})
    indexes.of("m@2", *catalogue(named(10, 320)))
    assert sizes[-1] == 310


def test_a_start_reads_what_was_kept_and_puts_in_what_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Indexes(GRAPH, "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    sizes = built(monkeypatch)
    catalog, vectors = catalogue(named(5, 310))
    found = Indexes(GRAPH, "cpu", tmp_path).of("m@1", catalog, vectors).search(vectors, 1)[1]
    assert found[:, 0].tolist() == list(range(305))
    assert max(sizes, default=0) == 0


def test_a_kept_index_that_is_damaged_is_told_of_and_built_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Indexes(GRAPH, "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    catalog, vectors = catalogue(named(0, 300))
    found = Indexes(GRAPH, "cpu", tmp_path).of("m@1", catalog, vectors)
    assert found.search(vectors[:1], 1)[1].tolist() == [[0]]
    assert f"{file}: damaged" in caplog.text


def test_it_is_kept_once_in_a_while_and_only_where_building_takes_long(tmp_path: Path) -> None:
    clock = Clock()
    graphs = Indexes(GRAPH, "cpu", tmp_path / "graphs", clock)
    graphs.of("a/b", *catalogue(named(0, 300)))
    (file,) = (tmp_path / "graphs").iterdir()
    first = file.stat().st_mtime_ns
    clock.now = KEEP_EVERY_S - 1
    graphs.of("a/b", *catalogue(named(0, 310)))
    assert file.stat().st_mtime_ns == first
    clock.now = KEEP_EVERY_S
    graphs.of("a/b", *catalogue(named(0, 310)))
    assert file.stat().st_mtime_ns > first
    Indexes(IndexConfig(), "cpu", tmp_path / "flat").of("m", *catalogue(named(0, 300)))
    Indexes(IndexConfig(kind="hnsw", keep=False), "cpu", tmp_path / "flat").of("m", *catalogue(named(0, 300)))
    assert not (tmp_path / "flat").exists()


def test_a_start_from_what_was_kept_writes_nothing(tmp_path: Path) -> None:
    Indexes(GRAPH, "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    (file,) = tmp_path.iterdir()
    before = file.read_bytes()
    file.chmod(0o444)
    found = Indexes(GRAPH, "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    assert [f.name for f in tmp_path.iterdir()] == [file.name] and file.read_bytes() == before
    assert found.index.stats()["recall"] == 1.0


def test_a_file_goes_a_day_after_its_model_was_last_served_and_no_sooner(tmp_path: Path) -> None:
    clock = Clock()
    clock.now = 1_800_000_000.0
    indexes = Indexes(GRAPH, "cpu", tmp_path, clock)
    for name in ("old@1", "back@2", "new@3"):
        indexes.of(name, *catalogue(named(0, 300)))
        os.utime(indexes._file(name), (clock.now, clock.now))
    partial = tmp_path / "old@1.index.77.partial"
    partial.write_bytes(b"half")
    os.utime(partial, (clock.now, clock.now))
    (tmp_path / "something else").write_text("not ours")
    clock.now += DROP_AFTER_S - 1
    indexes.forget_all_but({"new@3"})
    assert len(list(tmp_path.iterdir())) == 5
    indexes.of("back@2", *catalogue(named(0, 300)))  # rolled back: used again
    clock.now += 2
    indexes.forget_all_but({"new@3"})
    assert {f.name for f in tmp_path.iterdir()} == {"back@2.index", "new@3.index", "something else"}


def test_a_file_of_a_kind_that_is_not_served_any_more_is_removed(tmp_path: Path) -> None:
    Indexes(GRAPH, "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    assert len(list(tmp_path.iterdir())) == 1
    Indexes(IndexConfig(kind="flat"), "cpu", tmp_path).of("m@1", *catalogue(named(0, 300)))
    assert not list(tmp_path.iterdir())


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    catalog, vectors = catalogue(named(0, 300))
    with caplog.at_level(logging.WARNING):
        found = Indexes(GRAPH, "cpu", tmp_path / "file").of("m@1", catalog, vectors)
    assert found.search(vectors[3:4], 1)[1].tolist() == [[3]]
    assert "is not kept" in caplog.text
