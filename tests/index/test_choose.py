"""Which index is taken, and what becomes of one that falls short."""

import logging
from typing import get_args

import numpy as np
import pytest

from index import choose, gpu, graph, quantised
from index.choose import build, like_users, opened
from index.config import NEEDS_MORE, IndexConfig, Kind
from index.exact import ExactIndex
from index.flat import FlatIndex
from index.graph import GraphIndex
from index.recall import IndexBuildError, sufficient_recall

AXES = np.eye(3, dtype=np.float32)
IDS = np.array([10, 20, 30])


def some(n=400, dim=16):
    return np.arange(n), np.random.default_rng(1).normal(size=(n, dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("n", "device", "kind"),
    [
        (0, "cpu", "flat"),
        (19_999, "cpu", "flat"),
        (20_000, "cpu", "ivf-pq"),
        (1_000_000, "cuda", "exact"),
    ],
)
def test_the_kind_follows_from_how_many_there_are_and_where_and_says_why(n, device, kind):
    chosen = choose.choose(n, device)
    assert chosen.kind == kind
    assert any(said in chosen.why for said in ("comparing all", "compares all", f"{max(n, 20_000):,} items"))


def test_where_faiss_can_use_a_gpu_lists_are_made_without_it_unless_it_is_set(monkeypatch):
    monkeypatch.setattr(gpu, "available", lambda: True)
    assert choose.choose(1_000_000, "cuda").kind == "exact"
    assert [kind for kind in get_args(Kind) if IndexConfig(kind=kind).by_tensors] == ["auto", "exact"]


@pytest.mark.parametrize("kind", ["exact", "flat", "hnsw", "ivf-pq"])
def test_a_build_is_of_the_kind_that_is_set_and_knows_its_recall(kind):
    ids, vectors = some()
    index = build(ids, vectors, config=IndexConfig(kind=kind))
    assert (index.stats()["kind"], index.stats()["recall"]) == (kind, 1.0)


@pytest.mark.parametrize(("kind", "package"), [("gpu-flat", "faiss-gpu"), ("cagra", "faiss-gpu-cuvs")])
def test_a_kind_that_needs_another_faiss_says_which(kind, package):
    with pytest.raises(RuntimeError, match=f"install {package} "):
        build(*some(), config=IndexConfig(kind=kind))


def test_nothing_is_an_index_too():
    index = build(np.zeros(0, np.int64), np.zeros((0, 8), np.float32))
    assert (len(index), index.stats()["recall"]) == (0, 1.0)


def test_an_index_that_misses_neighbours_is_refused():
    half = ExactIndex.of(IDS[:1], AXES[:1])
    with pytest.raises(IndexBuildError, match=r"recall@2 is 0\.500, below 0\.9"):
        sufficient_recall(half, ExactIndex.of(IDS, AXES), np.array([[3, 2, 1]], np.float32), 2, 0.9)


def test_a_graph_that_misses_too_much_gives_way_to_comparing_all_and_says_so(monkeypatch, caplog):
    monkeypatch.setitem(choose.KINDS, "hnsw", _Poor)
    with caplog.at_level(logging.WARNING):
        index = build(*some(3000, 32), config=IndexConfig(kind="hnsw"))
    assert (index.stats()["kind"], index.stats()["recall"]) == ("flat", 1.0)
    assert "hnsw is not used: recall@50 is" in caplog.text


class _Poor(GraphIndex):
    """Finds the first vectors, whatever is asked."""

    def _found(self, now, query, fetch):
        first = np.tile(np.arange(fetch), (len(query), 1))
        return np.einsum("bd,bfd->bf", query, now.vectors[first]), first


@pytest.mark.parametrize(("kind", "wanted"), [("hnsw", 0.99), ("ivf-pq", 0.9)])
def test_an_index_that_finds_too_little_searches_more_widely_and_does_so_when_it_is_read_again(
    kind, wanted, monkeypatch, tmp_path
):
    monkeypatch.setattr(quantised, "TRAINED_FROM", 1000)
    monkeypatch.setattr(quantised, "LEAST_RESCORED", 1)
    monkeypatch.setattr(graph, "SEARCH", {0: 50})
    ids, vectors = some(6000, 24)
    built = [build(ids, vectors, config=IndexConfig(kind=kind, recall=least)) for least in (0.3, wanted)]
    narrow, wide = built
    assert [index.stats()["kind"] for index in built] == [kind, kind]
    assert narrow.stats()["recall"] < wanted <= wide.stats()["recall"]
    wide.save(tmp_path / "wide")
    again = opened(tmp_path / "wide")
    assert again is not None
    asked = like_users(vectors)
    assert np.array_equal(again.search(asked, 50)[1], wide.search(asked, 50)[1])
    assert not np.array_equal(again.search(asked, 50)[1], narrow.search(asked, 50)[1])
    assert again.stats()["recall"] == wide.stats()["recall"]


def test_recall_is_measured_by_queries_like_one_item_and_like_several():
    vectors = np.eye(64, dtype=np.float32)
    asked = like_users(vectors)
    assert np.allclose(asked[1::2], vectors[1::2])
    assert np.allclose(asked.sum(1), 1) and (asked[::2].max(1) < 1).any()
    assert like_users(vectors[:1]).shape == (1, 64) and len(like_users(vectors[:0])) == 0


def test_a_build_goes_on_from_what_was_there_before():
    ids, vectors = some()
    config = IndexConfig(kind="hnsw")
    before = build(ids, vectors, config=config)
    after = build(ids[5:], vectors[5:], config=config, before=before)
    assert isinstance(before, GraphIndex) and isinstance(after, GraphIndex)
    assert after._now.structure is before._now.structure and (len(before), len(after)) == (400, 395)
    assert isinstance(build(ids, vectors, before=before), FlatIndex)


def test_a_choice_is_told_once_and_known_from_then_on(caplog):
    ids, vectors = some()
    with caplog.at_level(logging.INFO):
        index = build(ids, vectors)
        for gone in range(1, 4):
            index = build(ids[gone:], vectors[gone:], before=index)
    assert [r.getMessage() for r in caplog.records] == [f"400 items are indexed by flat: {index.stats()['why']}"]
    assert index.stats()["why"] == choose.choose(397, "cpu").why
    with caplog.at_level(logging.INFO):
        build(ids, vectors, config=IndexConfig(kind="hnsw"), before=index)
    assert caplog.records[-1].getMessage() == "400 items are indexed by hnsw: as set"


def test_what_has_not_changed_is_the_same_index():
    ids, vectors = some()
    config = IndexConfig(kind="hnsw")
    before = build(ids, vectors, config=config)
    order = np.random.default_rng(2).permutation(len(ids))
    assert build(ids[order], vectors[order], config=config, before=before) is before


def test_a_graph_that_changes_have_made_too_poor_is_built_anew_before_all_are_compared(monkeypatch, caplog):
    ids, vectors = some(3000, 32)
    config = IndexConfig(kind="hnsw")
    before = _Poor.of(ids, vectors)
    with caplog.at_level(logging.INFO):
        index = build(ids[5:], vectors[5:], config=config, before=before)
    assert type(index) is GraphIndex and index.stats()["recall"] > 0.95
    assert "hnsw is built anew, not from what was before: recall@50 is" in caplog.text


def test_kinds_that_need_a_gpu_are_known_before_anything_is_built(monkeypatch):
    for kind in ("auto", "exact", "flat", "hnsw", "ivf-pq"):
        choose.check(IndexConfig(kind=kind))
    for kind in NEEDS_MORE:
        assert kind in choose.KINDS
        if not gpu.available():
            with pytest.raises(RuntimeError, match="install faiss-gpu"):
                choose.check(IndexConfig(kind=kind))


def test_a_saved_index_is_opened_as_what_it_was_and_a_damaged_one_is_told_of(tmp_path, caplog):
    path = tmp_path / "items.index"
    assert opened(path) is None and not caplog.text
    ids, vectors = some()
    build(ids, vectors, config=IndexConfig(kind="hnsw")).save(path)
    index = opened(path)
    assert isinstance(index, GraphIndex) and len(index) == 400
    path.write_bytes(path.read_bytes()[:-5])
    assert opened(path) is None and "damaged" in caplog.text
