"""TF-IDF with SVD: what has words in common is alike, a rare word more than a common one."""

import numpy as np
import torch

from model.tfidf import DIM, Lexicon

TEXTS = ["the red boat", "the red ship", "the green train", "the green tram", "the"]


def fitted() -> Lexicon:
    lexicon = Lexicon()
    lexicon.fit(TEXTS)
    return lexicon


def test_texts_of_the_same_rare_words_are_alike():
    vectors = fitted().encode(TEXTS)
    assert vectors.shape == (5, DIM) and vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    alike = vectors @ vectors.T
    assert alike[0, 1] > alike[0, 2] + 0.1 and alike[2, 3] > alike[2, 1] + 0.1


def test_a_text_that_comes_later_is_read_as_the_others_were():
    lexicon = fitted()
    loaded = Lexicon()
    loaded.load_state_dict(lexicon.state_dict())
    new = loaded.encode(["A RED thing", "", "zebra"])
    assert new[0] @ lexicon.encode(TEXTS)[0] > new[0] @ lexicon.encode(TEXTS)[2]
    assert not new[1].any()
    assert torch.equal(fitted().basis, lexicon.basis)


def test_one_text_is_nothing_to_compare():
    lexicon = Lexicon()
    lexicon.fit(["alone"])
    assert not lexicon.encode(["alone"]).any()
