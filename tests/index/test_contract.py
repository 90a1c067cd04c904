"""What every index must do, on data with an obvious answer."""

import numpy as np
import pytest

from index import ann
from index.ann import FaissIndex, build
from index.base import IndexFileError
from index.exact import ExactIndex
from index.recall import IndexBuildError, recall_at_k, sufficient_recall


class Graph(FaissIndex):
    """An HNSW graph."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, graph=True)


EVERY = pytest.mark.parametrize("kind", [ExactIndex, FaissIndex, Graph])
AXES = np.eye(3, dtype=np.float32)
IDS = np.array([10, 20, 30])


def filled(kind):
    index = kind(3)
    index.add(IDS, AXES)
    return index


def ask(*vector):
    return np.array([vector], np.float32)


@EVERY
def test_the_nearest_by_inner_product_comes_first(kind):
    scores, ids = filled(kind).search(ask(0.5, 3, 1), 3)
    assert (ids.tolist(), scores.tolist()) == ([[20, 30, 10]], [[3.0, 1.0, 0.5]])
    assert (ids.dtype, scores.dtype) == (np.int64, np.float32)


@EVERY
def test_where_there_are_fewer_than_k_the_rest_is_none(kind):
    scores, ids = filled(kind).search(ask(3, 2, 1), 5)
    assert ids.tolist() == [[10, 20, 30, -1, -1]]
    assert np.isneginf(scores[0, 3:]).all()


@EVERY
def test_an_empty_index_finds_nothing(kind):
    assert kind(3).search(ask(1, 0, 0), 2)[1].tolist() == [[-1, -1]]


@EVERY
def test_no_query_gets_no_answer(kind):
    scores, ids = filled(kind).search(np.zeros((0, 3), np.float32), 2)
    assert scores.shape == ids.shape == (0, 2)


@EVERY
def test_excluded_ids_are_left_out_row_by_row(kind):
    queries = np.concatenate([ask(3, 2, 1), ask(3, 2, 1)])
    ids = filled(kind).search(queries, 2, exclude=[np.array([10]), np.array([], int)])[1]
    assert ids.tolist() == [[20, 30], [10, 20]]


@EVERY
def test_excluding_everything_finds_nothing(kind):
    assert filled(kind).search(ask(3, 2, 1), 2, exclude=[IDS])[1].tolist() == [[-1, -1]]


@EVERY
def test_only_allowed_ids_are_found(kind):
    index = filled(kind)
    assert index.search(ask(3, 2, 1), 3, allow=np.array([30, 20, 99]))[1].tolist() == [[20, 30, -1]]
    assert index.search(ask(3, 2, 1), 1, exclude=[np.array([20])], allow=np.array([30, 20]))[1].tolist() == [[30]]


@EVERY
def test_adding_a_known_id_replaces_its_vector(kind):
    index = filled(kind)
    index.add(np.array([40, 10]), np.array([[0, 0, 9], [0, 0, 5]], np.float32))
    assert index.search(ask(0, 0, 1), 4)[1].tolist()[0][:3] == [40, 10, 30]
    assert len(index) == 4


@EVERY
def test_a_removed_id_is_gone_and_the_count_says_how_many_were_there(kind):
    index = filled(kind)
    assert index.remove(np.array([10, 77])) == 1
    assert index.search(ask(3, 2, 1), 2)[1].tolist() == [[20, 30]]
    assert len(index) == 2


@EVERY
@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([1], [[1.0, 0.0]], r"f32\[n,3\]"),
        ([1, 2], [[1.0, 0.0, 0.0]], "one id for each"),
        ([1, 1], [[1.0, 0.0, 0.0]] * 2, "twice"),
        ([-1], [[1.0, 0.0, 0.0]], "none"),
    ],
)
def test_a_wrong_add_is_refused_and_changes_nothing(kind, ids, vectors, message):
    index = filled(kind)
    with pytest.raises(ValueError, match=message):
        index.add(np.array(ids), np.array(vectors, np.float32))
    assert len(index) == 3


@EVERY
@pytest.mark.parametrize("other", [ExactIndex, FaissIndex, Graph])
def test_what_one_index_saves_any_index_loads(kind, other, tmp_path):
    path = tmp_path / "folder" / "items.index"
    filled(kind).save(path)
    loaded = other.load(path)
    assert loaded.search(ask(0.5, 3, 1), 3)[1].tolist() == [[20, 30, 10]]
    assert (loaded.dim, len(loaded)) == (3, 3)


@EVERY
def test_a_damaged_or_foreign_file_is_named(kind, tmp_path):
    path = tmp_path / "items.index"
    with pytest.raises(FileNotFoundError, match=r"items\.index"):
        kind.load(path)
    filled(kind).save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(IndexFileError, match=r"items\.index: damaged"):
        kind.load(path)


@EVERY
def test_stats_say_what_it_is(kind):
    stats = filled(kind).stats()
    assert (stats["size"], stats["dim"], stats["device"]) == (3, 3, "cpu")


@EVERY
def test_both_find_the_same_on_random_vectors(kind):
    rng = np.random.default_rng(0)
    vectors, queries = (
        rng.normal(size=(300, 8)).astype(np.float32),
        rng.normal(size=(20, 8)).astype(np.float32),
    )
    index, reference = kind(8), ExactIndex(8)
    for each in (index, reference):
        each.add(np.arange(300), vectors)
    assert recall_at_k(index, reference, queries, 10) == 1.0


def test_recall_is_the_share_of_the_exact_neighbours_found():
    half = ExactIndex(3)
    half.add(IDS[:1], AXES[:1])
    assert recall_at_k(half, filled(ExactIndex), ask(3, 2, 1), 2) == 0.5
    assert recall_at_k(half, ExactIndex(3), ask(3, 2, 1), 2) == 1.0


def test_a_build_numbers_its_vectors_and_knows_its_recall():
    index = build(AXES)
    assert index.search(ask(1, 2, 3), 3)[1].tolist() == [[2, 1, 0]]
    assert index.stats()["recall"] == 1.0


def test_a_build_that_misses_neighbours_is_refused():
    half = ExactIndex(3)
    half.add(IDS[:1], AXES[:1])
    with pytest.raises(IndexBuildError, match="below"):
        sufficient_recall(half, filled(ExactIndex), ask(3, 2, 1), 2)


def test_many_vectors_are_searched_as_a_graph_that_finds_what_comparing_all_finds(monkeypatch):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    monkeypatch.setattr(ann, "HNSW_FROM", 401)
    assert build(vectors).stats()["kind"] == "faiss-flat"
    monkeypatch.setattr(ann, "HNSW_FROM", 400)
    graph = build(vectors)
    assert graph.stats()["kind"] == "faiss-hnsw"
    assert graph.stats()["recall"] >= 0.99
    assert graph.search(vectors[:1], 400)[1].tolist()[0].count(-1) < 40


def test_a_graph_that_misses_too_much_gives_way_to_comparing_all(monkeypatch):
    monkeypatch.setattr(ann, "HNSW_FROM", 1)
    monkeypatch.setattr(ann, "HNSW_LINKS", 2)
    monkeypatch.setattr(ann, "HNSW_BUILD", 1)
    monkeypatch.setattr(ann, "HNSW_SEARCH", 1)
    vectors = np.random.default_rng(2).normal(size=(3000, 32)).astype(np.float32)
    index = build(vectors)
    assert (index.stats()["kind"], index.stats()["recall"]) == ("faiss-flat", 1.0)


def test_a_gpu_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(RuntimeError, match="faiss-gpu"):
        FaissIndex(3, device="cuda")
