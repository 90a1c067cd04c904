"""What every index must do, on data with an obvious answer."""

import threading

import faiss
import numpy as np
import pytest
import torch

from index import exact, gpu, quantised
from index.base import IndexFileError
from index.exact import ExactIndex
from index.flat import FlatIndex
from index.gpu import CagraIndex, GpuFlatIndex
from index.graph import GraphIndex
from index.held import FaissIndex, use_threads
from index.quantised import QuantisedIndex
from index.recall import recall_at_k


class OnDevice(ExactIndex):
    """The reference, where its vectors are on a GPU."""

    def __init__(self, dim: int, device: str = "cuda") -> None:
        super().__init__(dim, device)

    @classmethod
    def of(cls, ids, vectors, device="cuda"):
        return super().of(ids, vectors, device)


HERE = [ExactIndex, FlatIndex, GraphIndex, QuantisedIndex]
NO_GPU = pytest.mark.skipif(not gpu.available(), reason="FAISS has no GPU here")
NO_CAGRA = pytest.mark.skipif(not (gpu.available() and hasattr(faiss, "GpuIndexCagra")), reason="FAISS has no CAGRA")
NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no GPU here")
ON_GPU = [pytest.param(GpuFlatIndex, marks=NO_GPU), pytest.param(CagraIndex, marks=NO_CAGRA)]
KINDS = [*HERE, *ON_GPU, pytest.param(OnDevice, marks=NO_CUDA)]
EVERY = pytest.mark.parametrize("kind", KINDS)
FAISS = pytest.mark.parametrize("kind", [*HERE[1:], *ON_GPU])
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
@pytest.mark.parametrize("other", KINDS)
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
    assert (stats["size"], stats["dim"]) == (3, 3)
    assert stats["device"] == ("cpu" if kind in HERE else "cuda")


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


# Indexes whose changes are built aside


@pytest.fixture
def small_lists(monkeypatch):
    monkeypatch.setattr(quantised, "TRAINED_FROM", 1000)


def crowd(n=3000, dim=16, centres=40):
    rng = np.random.default_rng(3)
    around = rng.normal(size=(centres, dim))[rng.integers(0, centres, n)]
    return (around + 0.5 * rng.normal(size=(n, dim))).astype(np.float32)


@FAISS
def test_of_many_clustered_vectors_nearly_all_neighbours_are_found(kind, small_lists):
    vectors = crowd()
    ids = np.arange(len(vectors)) * 5
    assert recall_at_k(kind.of(ids, vectors), ExactIndex.of(ids, vectors), vectors[::50], 10) > 0.95


@FAISS
def test_behind_what_is_excluded_the_next_are_found(kind, small_lists):
    vectors = crowd()
    ids = np.arange(len(vectors))
    index, reference, queries = kind.of(ids, vectors), ExactIndex.of(ids, vectors), vectors[::300]
    nearest = list(reference.search(queries, 200)[1])
    found, wanted = index.search(queries, 10, nearest)[1], reference.search(queries, 10, nearest)[1]
    assert all(not set(a) & set(b) for a, b in zip(found.tolist(), [n.tolist() for n in nearest], strict=True))
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]) > 0.9


def test_behind_many_that_are_excluded_a_graph_is_asked_once_more_for_enough(monkeypatch):
    vectors, asked, found = crowd(), [], GraphIndex._found
    index, reference = GraphIndex.of(np.arange(3000), vectors), ExactIndex.of(np.arange(3000), vectors)
    monkeypatch.setattr(
        GraphIndex, "_found", lambda self, now, query, fetch: (asked.append(fetch), found(self, now, query, fetch))[1]
    )
    nearest = reference.search(vectors[:1], 400)[1]
    index.search(vectors[:1], 10, [nearest[0]])
    index.search(vectors[:1], 10, [nearest[0, ::2]])
    assert asked == [128, 410, 128], "half of what is near leaves enough of what is looked at in any case"


@FAISS
@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.6])
def test_of_those_that_are_allowed_the_nearest_are_found_few_or_many(kind, share, small_lists):
    vectors = crowd()
    ids = np.arange(len(vectors)) + 7
    allowed = np.random.default_rng(4).choice(ids, int(share * len(ids)), replace=False)
    allow = np.concatenate([allowed, allowed[:5], [-1, 2, 99_999]])  # some twice, some unknown
    index, reference, queries = kind.of(ids, vectors), ExactIndex.of(ids, vectors), vectors[::300]
    nearest = list(reference.search(queries, 5)[1])
    for exclude in (None, nearest):
        found, wanted = index.search(queries, 10, exclude, allow)[1], reference.search(queries, 10, exclude, allow)[1]
        assert np.isin(found, allowed).all()
        assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]) > 0.9


@EVERY
def test_what_was_removed_is_not_found_though_it_is_allowed(kind):
    index = filled(kind)
    index.remove(np.array([20]))
    assert index.search(ask(3, 2, 1), 3, allow=np.array([10, 20]))[1].tolist() == [[10, -1, -1]]
    assert index.search(ask(3, 2, 1), 2, allow=np.array([], int))[1].tolist() == [[-1, -1]]


def test_the_reference_compares_part_after_part_where_scores_would_fill_the_memory(monkeypatch):
    vectors, ids = crowd(), np.arange(3000)
    index, queries = ExactIndex.of(ids, vectors), vectors[:50]
    exclude = [np.array([n, n + 1]) for n in range(50)]
    whole = index.search(queries, 5, exclude, ids[::2])
    monkeypatch.setattr(exact, "MOST_SCORES", 7 * len(ids))
    parts = index.search(queries, 5, exclude, ids[::2])
    assert np.array_equal(whole[1], parts[1]) and np.allclose(whole[0], parts[0])


@FAISS
def test_whatever_is_left_is_found_however_much_is_excluded(kind, small_lists):
    vectors = crowd(1500)
    index = kind.of(np.arange(1500), vectors)
    assert set(index.search(vectors[:1], 5, [np.arange(1497)])[1][0].tolist()) == {1497, 1498, 1499, -1}
    assert (index.search(vectors[:1], 1500)[1] >= 0).all()


@FAISS
def test_an_update_holds_exactly_the_new_vectors_and_leaves_the_old_index_as_it_is(kind, small_lists):
    vectors = crowd()
    index = kind.of(np.arange(3000), vectors)
    moved, ids = vectors.copy(), np.r_[100:3000, 5000:5100]
    moved[100:300] = -moved[100:300]
    new = np.concatenate([moved[100:], crowd(100)])
    other = index.updated(ids, new)
    assert (len(other), len(index)) == (3000, 3000)
    assert recall_at_k(other, ExactIndex.of(ids, new), new[::50], 10) > 0.95
    assert not np.isin(np.arange(100), other.search(vectors[:200], 50)[1]).any()
    assert recall_at_k(index, ExactIndex.of(np.arange(3000), vectors), vectors[::50], 10) > 0.95


@FAISS
def test_changes_one_after_the_other_leave_what_a_dictionary_would(kind, small_lists):
    rng = np.random.default_rng(5)
    index: FaissIndex = kind(8)
    held: dict[int, np.ndarray] = {}
    for _ in range(12):
        ids = rng.choice(400, 90, replace=False)
        new = rng.normal(size=(90, 8)).astype(np.float32)
        index.add(ids, new)
        held |= dict(zip(ids.tolist(), new, strict=True))
        gone = rng.choice(400, 40, replace=False)
        assert index.remove(gone) == len(held.keys() & set(gone.tolist()))
        held = {name: vector for name, vector in held.items() if name not in gone}
        assert len(index) == len(held)
    names = np.array(list(held))
    assert recall_at_k(index, ExactIndex.of(names, np.stack(list(held.values()))), new, 10) > 0.95


@FAISS
def test_what_was_removed_stays_away_through_a_file(kind, small_lists, tmp_path):
    vectors = crowd()
    index = kind.of(np.arange(3000), vectors)
    index.remove(np.arange(60))
    index.save(tmp_path / "items.index")
    for other in HERE:
        loaded = other.load(tmp_path / "items.index")
        assert len(loaded) == 2940
        assert not np.isin(loaded.search(vectors[:60], 20)[1], np.arange(60)).any()


@EVERY
def test_a_file_in_which_a_byte_was_changed_is_refused(kind, tmp_path):
    path = tmp_path / "items.index"
    filled(kind).save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexFileError, match="checksum"):
        kind.load(path)


def test_threads_are_those_of_who_asks():
    before, seen = faiss.omp_get_max_threads(), []
    thread = threading.Thread(target=lambda: (use_threads(before + 1), seen.append(faiss.omp_get_max_threads())))
    thread.start()
    thread.join()
    assert (seen, faiss.omp_get_max_threads()) == ([before + 1], before)
