"""BERT item vectors: unit length, the same whatever the batch, and computed once."""

import numpy as np
import pytest

from model.encoder import EncoderError, TextEncoder

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


def test_no_texts_give_no_vectors(folder):
    assert TextEncoder(cache=folder).encode([]).shape == (0, 384)


def test_weights_that_are_not_there_are_named(tmp_path):
    with pytest.raises(EncoderError, match="cannot load"):
        TextEncoder(str(tmp_path)).encode(["x"])
