"""Profiles: segments of sixteen from the newest back, pooled or written out."""

import numpy as np
import pytest

from model.history import HistoryLog, item_hash
from model.longterm import DAY_MS, HALF_LIFE_DAYS, Document, Pooled
from tests.model.worlds import met, shelf, text_vectors

CATALOG = shelf(40)
TEXT = text_vectors(40)


def rows_of(h):
    return CATALOG.index_of(h.items)


def test_segments_are_counted_from_the_newest_interaction_back():
    h = met(list(range(37)), [3])
    profiles = Pooled(TEXT).profiles(h, rows_of(h))
    assert [p.shape for p in profiles] == [(3, 8), (1, 8)]
    np.testing.assert_allclose(profiles[1][0], TEXT[3], rtol=1e-5)
    np.testing.assert_allclose(profiles[0][0], TEXT[:5].mean(0), atol=1e-4)
    np.testing.assert_allclose(profiles[0][-1], TEXT[21:37].mean(0), atol=1e-4)


def test_an_older_interaction_weighs_less_and_a_stronger_action_more():
    log = HistoryLog()
    log.add("u", 0, 2, item_hash("i01"), 6.0)
    log.add("u", int(HALF_LIFE_DAYS * DAY_MS), 2, item_hash("i02"), 1.0)
    h = log.histories(["u"])
    (profile,) = Pooled(TEXT).profiles(h, rows_of(h))
    np.testing.assert_allclose(profile[0], (3 * TEXT[1] + TEXT[2]) / 4, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.0, -3.0])
def test_an_interaction_that_is_no_sign_of_interest_is_no_part_of_a_profile(weight):
    log = HistoryLog()
    log.add("u", 0, 9, item_hash("i01"), weight)
    h = log.histories(["u"])
    assert Pooled(TEXT).profiles(h, rows_of(h))[0].shape == (0, 8)
    assert Document(CATALOG.titles, lambda texts: TEXT[: len(texts)], 8).profiles(h, rows_of(h))[0].shape == (0, 8)


def test_a_document_says_what_was_done_newest_first():
    read = []

    def encode(texts):
        read.extend(texts)
        return TEXT[: len(texts)]

    h = met(list(range(17)), [], [3, "stranger", 5])
    profiles = Document(CATALOG.titles, encode, 8).profiles(h, rows_of(h))
    assert [len(p) for p in profiles] == [2, 0, 1]
    assert read[0] == "click Item 0"
    assert read[1].startswith("click Item 16. click Item 15. ")
    assert read[2] == "click Item 5. click Item 3"
    np.testing.assert_array_equal(profiles[2], TEXT[2:3])


def test_no_history_is_no_text_to_read():
    h = met([])
    (profile,) = Document(CATALOG.titles, lambda texts: pytest.fail("nothing to encode"), 8).profiles(h, rows_of(h))
    assert profile.shape == (0, 8)


def test_a_profile_depends_on_nothing_but_its_own_history():
    alone, together = met([1, 2, 3]), met([1, 2, 3], list(range(40)))
    one = Pooled(TEXT).profiles(alone, rows_of(alone))[0]
    two = Pooled(TEXT).profiles(together, rows_of(together))[0]
    np.testing.assert_allclose(one, two, rtol=1e-6)
