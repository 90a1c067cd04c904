"""Profiles: segments of sixteen from the newest back, pooled or written out."""

import numpy as np
import pytest

from model import longterm
from model.history import ACTION_CODE, Histories, HistoryLog, item_hash
from model.longterm import DAY_MS, HALF_LIFE_DAYS, SEGMENTS, Buckets, Counted, Document, Pooled
from tests.model.worlds import met, shelf, text_vectors

CATALOG = shelf(40)
TEXT = text_vectors(40)


def rows_of(h):
    return CATALOG.index_of(h.items)


def lived(*met: tuple[float, int, str, float]) -> Histories:
    """One user's history of (days, item, action, weight)."""
    log = HistoryLog()
    for days, item, action, weight in met:
        log.add("u", int(days * DAY_MS), ACTION_CODE[action], item_hash(f"i{item:02}"), weight)
    return log.histories(["u"])


def read_as(texts):
    """A text encoder of which a text's vector says nothing but how long it is."""
    return np.array([[len(t), *[1.0] * 7] for t in texts], np.float32)


@pytest.fixture(params=["pooled", "counted", "document", "buckets"])
def profiles(request):
    made = longterm.make(request.param, TEXT, CATALOG.titles, read_as)
    assert made.name == request.param
    return lambda h: made.profiles(h, rows_of(h))


def test_every_profile_is_a_few_vectors_of_which_the_newest_says_something(profiles):
    for profile in profiles(met(list(range(37)), [3], [0, 1, 2] * 50)):
        assert profile.dtype == np.float32 and profile.shape[1] == 8
        assert 1 <= len(profile) <= SEGMENTS and profile[-1].any()


def test_a_history_that_says_nothing_has_a_profile_of_none(profiles):
    nothing = [met([]), met(["stranger"]), lived((1, 1, "return", -3.0)), lived((1, 1, "view", 0.0))]
    assert [[p.shape for p in profiles(h)] for h in nothing] == [[(0, 8)]] * 4
    assert profiles(Histories.empty(0)) == []


def test_a_profile_depends_on_nothing_but_its_own_history(profiles):
    alone, together = met([1, 2, 3]), met([1, 2, 3], list(range(40)))
    np.testing.assert_allclose(profiles(alone)[0], profiles(together)[0], rtol=1e-5)


def test_a_profile_is_the_same_whenever_it_is_made(profiles):
    long_ago, later = lived((1, 1, "view", 1), (9, 2, "buy", 5)), lived((1001, 1, "view", 1), (1009, 2, "buy", 5))
    np.testing.assert_array_equal(profiles(long_ago)[0], profiles(later)[0])


def test_what_is_no_sign_of_interest_changes_no_profile(profiles):
    with_it = lived((1, 1, "view", 1), (8.9, 3, "return", -3), (9, 2, "buy", 5))
    np.testing.assert_allclose(profiles(with_it)[0], profiles(lived((1, 1, "view", 1), (9, 2, "buy", 5)))[0], rtol=1e-5)


def test_every_sign_of_interest_changes_every_profile(profiles):
    base = profiles(lived((1, 1, "view", 1), (9, 2, "buy", 5)))[0]
    more = profiles(lived((1, 1, "view", 1), (9, 2, "buy", 5), (8.9, 3, "share", 4)))[0]
    assert base.shape != more.shape or np.abs(base - more).max() > 1e-3


def test_a_catalogue_without_items_has_no_profiles():
    h = met([1, 2])
    nowhere = np.full((1, 2), -1, np.int32)
    for kind in ("pooled", "counted", "document", "buckets"):
        (profile,) = longterm.make(kind, TEXT[:0], [], read_as).profiles(h, nowhere)
        assert profile.shape == (0, 8)


def test_documents_need_something_to_read_them():
    with pytest.raises(ValueError, match="text encoder"):
        longterm.make("document", TEXT, CATALOG.titles, None)


def test_buckets_are_the_last_day_the_week_before_and_what_is_older():
    h = lived((0, 1, "view", 1), (39, 2, "view", 1), (46, 3, "view", 1), (50, 4, "view", 1), (50.5, 5, "view", 3))
    (profile,) = Buckets(TEXT).profiles(h, rows_of(h))
    day = (0.5 * TEXT[4] + 3 * TEXT[5]) / 3.5  # half a day is half the bucket: it counts half
    older = (0.5 ** (50.5 / 15) * TEXT[1] + 0.5 ** (11.5 / 15) * TEXT[2]) / (0.5 ** (50.5 / 15) + 0.5 ** (11.5 / 15))
    np.testing.assert_allclose(profile, [older, TEXT[3], day], atol=1e-5)


def test_a_bucket_in_which_nothing_happened_keeps_its_place_and_is_zero():
    h = lived((0, 1, "view", 1), (50, 2, "view", 1), (60, 3, "return", -3))
    (profile,) = Buckets(TEXT).profiles(h, rows_of(h))
    np.testing.assert_allclose(profile, [TEXT[1], 0 * TEXT[1], TEXT[2]], atol=1e-6)


def test_counted_weighs_the_means_of_actions_by_their_counts_times_weights():
    views, buys = [(k / 24, k, "view", 1.0) for k in range(4)], [(1 + k / 24, 10 + k, "buy", 5.0) for k in range(2)]
    h = lived(*views, *buys)
    (profile,) = Counted(TEXT).profiles(h, rows_of(h))
    expected = (4 * 1 * TEXT[:4].mean(0) + 2 * 5 * TEXT[10:12].mean(0)) / 14
    np.testing.assert_allclose(profile[0], expected, atol=1e-5)


def test_counted_counts_in_the_whole_history_and_pools_by_segment():
    h = lived(*[(k / 24, k, "view", 1.0) for k in range(31)], (2, 39, "buy", 1.0))
    older, newer = Counted(TEXT).profiles(h, rows_of(h))[0]
    np.testing.assert_allclose(older, TEXT[:16].mean(0), atol=1e-5)
    np.testing.assert_allclose(newer, (31 * TEXT[16:31].mean(0) + TEXT[39]) / 32, atol=1e-5)


def test_a_document_says_how_often_and_how_long_ago():
    read = []

    def encode(texts):
        read.extend(texts)
        return TEXT[: len(texts)]

    h = lived(
        (0, 9, "share", 4),
        (80, 8, "favorite", 4),
        (95, 7, "rating", 3),
        (99.5, 1, "click", 2),
        (99.7, 1, "click", 2),
        (99.9, 2, "view", 1),
        (100, 2, "buy", 5),
    )
    Document(CATALOG.titles, encode, 8).profiles(h, rows_of(h))
    assert read == [
        "today: buy Item 2, view Item 2, click Item 1 2 times. this week: rating Item 7. "
        "this month: favorite Item 8. long ago: share Item 9"
    ]


def test_a_documents_vectors_are_padded_to_what_items_have():
    h = met([1])
    (profile,) = Document(CATALOG.titles, lambda texts: np.ones((len(texts), 3), np.float32), 8).profiles(h, rows_of(h))
    assert profile.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


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


def test_a_document_says_what_was_done_newest_first():
    read = []

    def encode(texts):
        read.extend(texts)
        return TEXT[: len(texts)]

    h = met(list(range(17)), [], [3, "stranger", 5])
    profiles = Document(CATALOG.titles, encode, 8).profiles(h, rows_of(h))
    assert [len(p) for p in profiles] == [2, 0, 1]
    assert read[0] == "today: click Item 0"
    assert read[1].startswith("today: click Item 16, click Item 15, ")
    assert read[2] == "today: click Item 5, click Item 3"
    np.testing.assert_array_equal(profiles[2], TEXT[2:3])


def test_no_history_is_no_text_to_read():
    h = met([])
    (profile,) = Document(CATALOG.titles, lambda texts: pytest.fail("nothing to encode"), 8).profiles(h, rows_of(h))
    assert profile.shape == (0, 8)
