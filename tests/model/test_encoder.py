"""BERT item vectors: unit length, the same whatever the batch, and computed once."""

import numpy as np
import pytest

from model.catalog import Catalog, Item
from model.encoder import EncoderError, TextEncoder
from model.engine import Engine
from model.history import HistoryLog, item_hash
from model.longterm import Document
from tests.model.worlds import met

NAMES = [("The", "House"), ("A", "Night"), ("Old", "River"), ("The Last", "Train"), ("My", "Summer")]
NAMES += [("The Red", "Door"), ("Return of", "Kings"), ("A Small", "Town")]
TEXTS = ["Alien (1979). Horror, Sci-Fi", "Aliens (1986). Action, Sci-Fi", "Bread", "Alien (1979). Horror, Sci-Fi"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def vectors(folder):
    return TextEncoder(cache=folder).encode(TEXTS)


def test_every_text_gets_a_unit_vector(vectors):
    assert (vectors.shape, vectors.dtype) == ((4, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)


def test_related_texts_are_nearer_than_unrelated_ones(vectors):
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_a_profile_made_again_agrees_whoever_it_is_made_beside():
    """Texts are read many at once, and padded to the longest: that a profile is made anew must not show."""
    titles = [
        f"The {word} of {place}" for word in ("House", "Night", "Train") for place in ("Oslo", "the North", "Glass")
    ]
    documents = Document(titles, TextEncoder().encode, 384)
    catalog = Catalog.build({f"i{n:02}": Item(f"i{n:02}", title) for n, title in enumerate(titles)})
    one = met([1, 2, 3])
    many = met([1, 2, 3], list(range(9)) * 4, [8], list(range(9)))
    (alone,), (beside, *_) = (documents.profiles(h, catalog.index_of(h.items)) for h in (one, many))
    assert alone.shape == beside.shape == (1, 384)
    assert alone[0] @ beside[0] > 0.9999


def test_a_repeated_text_is_computed_once(folder, vectors):
    done = []
    again = TextEncoder(cache=folder).encode([*TEXTS, "Cheese"], lambda n, total: done.append((n, total)))
    assert done == [(1, 1)]
    np.testing.assert_array_equal(again[:4], vectors)
    np.testing.assert_array_equal(vectors[0], vectors[3])


def test_known_texts_need_no_weights(folder, vectors):
    encoder = TextEncoder(cache=folder)
    encoder.encode(TEXTS)
    assert encoder._loaded is None


def test_loading_weights_says_nothing_of_its_own(capfd):
    TextEncoder().encode(["x"])
    assert capfd.readouterr() == ("", "")


def test_no_texts_give_no_vectors(folder):
    assert TextEncoder(cache=folder).encode([]).shape == (0, 384)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(EncoderError, match="cannot load"):
        TextEncoder(str(tmp_path)).encode(["x"])


def test_half_precision_gives_other_vectors_that_say_the_same(folder, vectors):
    half = TextEncoder(cache=folder, precision="bf16")
    found = half.encode(TEXTS)
    assert found.dtype == np.float32
    assert not np.array_equal(found, vectors)  # nor are those of the cache, which are of full precision
    assert (found * vectors).sum(1).min() > 0.99
    np.testing.assert_array_equal(TextEncoder(cache=folder).encode(TEXTS), vectors)


def histories(*users):
    """Users who clicked these items, by name."""
    log = HistoryLog()
    for u, items in enumerate(users):
        for t, item in enumerate(items):
            log.add(u, 1000 * (t + 1), 2, item_hash(item), 2.0)
    return log.histories(range(len(users)))


def test_lists_from_half_precision_agree_with_those_from_full():
    """Forty films of five genres and their likes: of ten that are shown, nine are the same."""
    genres = ("Horror", "Romance", "Western", "War", "Children's")
    items = {
        f"{g}{k}": Item(f"{g}{k}", f"{a} {g} {b}", categories=[g]) for g in genres for k, (a, b) in enumerate(NAMES)
    }
    catalog = Catalog.build(items)
    h = histories(*([i for i in catalog.ids if i.startswith(g)][:3] for g in genres))
    tops = []
    for precision in ("fp32", "bf16"):
        engine = Engine(catalog, TextEncoder(precision=precision).encode(catalog.texts))
        scores = engine.encode(h, engine.profiles(h)).vectors.numpy() @ engine.item_vectors.T
        tops.append(np.argsort(-np.where(engine.allowed(h), scores, -np.inf), axis=1)[:, :10])
    same = [len(np.intersect1d(one, two)) / 10 for one, two in zip(*tops, strict=True)]
    assert np.mean(same) >= 0.9
    assert min(same) >= 0.8
