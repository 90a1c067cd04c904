"""The engine with the model that needs no training: what may be shown, in which order, and why."""

import numpy as np
import pytest
import torch
from scipy import sparse

from index.exact import ExactIndex
from model.engine import Engine
from model.history import Histories, HistoryLog, item_hash, pack
from model.mix import Mix
from model.online import Counts, OnlineParams, OnlineScores
from model.reasons import left_out
from tests.model.worlds import met, shelf, text_vectors

N = 20
CATALOG = shelf(N, withdrawn=(7,))
TEXT = text_vectors(N)
NOTHING = OnlineScores.empty(CATALOG)


def engine(**options) -> Engine:
    return Engine(CATALOG, TEXT, **options)


def search_of(e: Engine):
    index = ExactIndex(e.dim)
    index.add(np.arange(len(e.item_vectors)), e.item_vectors)
    return index.search


def after(first: int, *then: int, times: int = 50) -> OnlineScores:
    """Counts in which `then` always followed `first`."""
    a = np.full(len(then), CATALOG.hashes[first], np.uint64)
    zeros, many = np.zeros(len(then), np.int32), np.full(len(then), times, np.uint32)
    met_first = (CATALOG.hashes[[first]], np.zeros(1, np.int32), np.array([times], np.uint32))
    return OnlineScores.build(CATALOG, Counts(a, CATALOG.hashes[list(then)], zeros, many, *met_first), 0)


def ranked(e: Engine, h: Histories, online: OnlineScores = NOTHING, n: int = 10, m: int = 10):
    fused = e.encode(h, e.profiles(h))
    return e.rank(h, fused, e.candidates(h, fused, search_of(e), online, m), online, n)


def test_a_seen_item_is_never_shown():
    h = met([1, 2, 3])
    assert not set(ranked(engine(), h)[0].items.tolist()) & {1, 2, 3}


def test_an_item_that_fell_off_the_history_is_still_not_shown():
    beyond = [int(CATALOG.seen32[4]), int(CATALOG.seen32[5])]
    h = pack([([(1000, 2, item_hash("i03"), 2.0)], beyond), ([(1000, 2, item_hash("i06"), 2.0)], [])])
    first, second = ranked(engine(), h, n=N, m=N)
    assert set(first.items.tolist()) == set(range(N)) - {3, 4, 5, 7}
    assert set(second.items.tolist()) == set(range(N)) - {6, 7}


def test_a_withdrawn_item_is_never_shown():
    assert 7 not in ranked(engine(), met([1], []), n=N, m=N)[1].items.tolist()


@pytest.mark.parametrize("m", [1, 5, N])
def test_there_are_as_many_candidates_as_were_asked_for_or_as_there_are(m):
    e, h = engine(), met([1, 2, 3], [], list(range(15)))
    fused = e.encode(h, e.profiles(h))
    found = e.candidates(h, fused, search_of(e), NOTHING, m)
    for row, seen in zip(found, (3, 0, 15), strict=True):
        rows = row[row >= 0].tolist()
        able = N - seen - (seen < 8)  # item 7 is withdrawn, and the third user has seen it anyway
        assert len(rows) == len(set(rows)) >= min(m, able)


def test_a_user_who_has_seen_everything_gets_an_empty_list():
    (only,) = ranked(engine(), met(list(range(N))))
    assert (only.items.tolist(), only.scores.tolist(), only.reasons) == ([], [], [])


def test_a_user_without_history_gets_what_is_popular_and_is_told_so():
    no = Counts.empty()
    met_by = (CATALOG.hashes[[9, 4]], np.zeros(2, np.int32), np.array([50, 20], np.uint32))
    online = OnlineScores.build(CATALOG, Counts(no.a, no.b, no.pair_bucket, no.pair_count, *met_by), 0)
    (only,) = ranked(engine(), met([]), online, n=3)
    assert only.items.tolist()[:2] == [9, 4]
    assert [(r.type, r.share) for r in only.reasons[0]] == [("popular", 1.0)]


def test_what_followed_the_newest_item_comes_first_and_the_item_is_the_reason():
    (only,) = ranked(engine(), met([2, 1]), after(1, 12, 14))
    assert set(only.items.tolist()[:2]) == {12, 14}
    reason = only.reasons[0][0]
    assert (reason.type, reason.item, reason.action) == ("interaction", 1, 2)
    assert reason.share > 0.5


def test_scores_are_shares_of_the_candidates_best_first():
    (only,) = ranked(engine(), met([1, 2]), n=N, m=N)
    assert only.scores.sum() == pytest.approx(1, abs=1e-5)
    assert (np.diff(only.scores) <= 0).all()


def test_every_item_has_at_most_three_reasons_with_shares_of_at_most_one_in_all():
    for one in ranked(engine(), met([1, 2, 3, 4, 5, 6], list(range(16))), after(1, 12, 18)):
        assert len(one.reasons) == len(one.items)
        for reasons, explained in zip(one.reasons, one.explained, strict=True):
            assert 1 <= len(reasons) <= 3
            assert 0 < explained <= sum(r.share for r in reasons) + 1e-5
            assert sum(r.share for r in reasons) <= 1 + 1e-5
            assert [r.share for r in reasons] == sorted((r.share for r in reasons), reverse=True)


def test_a_taste_is_named_by_a_category_of_the_item_that_is_in_the_history():
    # a profile of films only, and a mix in which the profile is nearly all there is
    e = engine(mix=Mix(online=0.0, neural=5.0, alpha=0.05))
    (only,) = ranked(e, met([0, 2, 4, 6, 8]))
    tastes = [
        (r.taste, int(i)) for i, rs in zip(only.items, only.reasons, strict=True) for r in rs if r.type == "taste"
    ]
    assert tastes
    assert all(name == ("film" if item % 2 == 0 else "") for name, item in tastes)


def test_reasons_can_be_left_out():
    e, h = engine(), met([1, 2])
    fused = e.encode(h, e.profiles(h))
    found = e.candidates(h, fused, search_of(e), NOTHING, 5)
    (only,) = e.rank(h, fused, found, NOTHING, 5, reasons=False)
    assert (len(only.items), only.reasons, only.explained) == (5, [], [])


def test_what_an_interaction_gives_is_what_the_score_loses_without_it():
    e = engine()
    whole, without = met([1, 2, 3]), HistoryLog()
    for t, k in ((1, 1), (3, 3)):
        without.add(0, 1000 * t, 2, item_hash(f"i{k:02}"), 2.0)
    none = [np.zeros((0, e.dim), np.float32)]
    fused, shorter = e.encode(whole, none), e.encode(without.histories([0]), none)
    window, rows = e.window_rows(whole)
    items = torch.from_numpy(e.item_vectors)
    chosen = np.array([[5, 9]], np.int32)
    (lost,) = left_out(
        window,
        rows,
        fused,
        e.item_vectors,
        chosen,
        lambda w, r: e.model.encode(w, r, items, none * len(w)).vectors.numpy(),
    )
    expected = ((fused.vectors - shorter.vectors)[0] @ items[chosen[0]].T).tolist()
    assert lost[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_what_reasons_explain_is_their_share_of_all_that_speaks_for_the_item():
    """By hand, with counts alone: p = .9 x related + .1 x popularity, and nats are logs of what p is without a part."""
    e = engine(mix=Mix(neural=0.0, online=1.0, popular=0.1))
    h = met([1, 2, 3, 4])
    steps = sparse.csr_array(([0.8, 0.4, 0.4, 0.4], ([1, 2, 3, 4], [12, 12, 12, 12])), shape=(N, N), dtype=np.float32)
    online = OnlineScores(steps, np.full(N, 1 / N, np.float32), OnlineParams(recency=0.5))
    fused = e.encode(h, [np.zeros((0, e.dim), np.float32)])
    (only,) = e.rank(h, fused, np.array([[12, 9]], np.int32), online, 2)

    weights = np.array([1, 2, 4, 8]) / 15  # of 1, 2, 3, 4: the newer weighs twice as much
    parts, popular = 0.9 * weights * [0.8, 0.4, 0.4, 0.4], 0.1 / N
    p = parts.sum() + popular
    alone, without_popularity = np.log(p / (p - parts)), np.log(p / (p - popular))
    spoken = alone.sum() + without_popularity
    named = alone[[3, 2]].sum() + alone[0]  # 1 and 2 say as much as each other, and one of them is named
    assert len(only.reasons[0]) == 3
    assert only.explained[0] == pytest.approx(named / spoken, rel=1e-4)
    # nothing leads to 9: popularity is all there is to say, and it is said
    assert (only.reasons[1][0].type, only.explained[1]) == ("popular", pytest.approx(1, abs=1e-6))


def test_what_many_interactions_say_together_and_none_alone_is_not_explained():
    e = engine(mix=Mix(neural=2.0, online=0.0))
    alone, many = ranked(e, met([1])), ranked(e, met([1] * 12))
    assert alone[0].explained[0] == pytest.approx(1, abs=1e-4)
    assert many[0].items.tolist() == alone[0].items.tolist()
    # the mean of twelve equal vectors is the same without one of them: what is left is the profile, 15% of the vector
    assert [r.type for r in many[0].reasons[0]] == ["taste"]
    assert many[0].explained[0] == pytest.approx(0.15, abs=1e-3)


def test_items_outside_the_catalogue_change_nothing_but_stay_in_the_history():
    e = engine()
    with_stranger, plain = met([1, "stranger", 2]), met([1, 2])
    no_profile = [np.zeros((0, e.dim), np.float32)]
    one, two = e.encode(with_stranger, no_profile), e.encode(plain, no_profile)
    np.testing.assert_allclose(one.vectors, two.vectors, rtol=1e-6)
    _, rows = e.window_rows(with_stranger)
    assert rows.tolist() == [[-1, 1, 2]]


def test_no_users_get_no_lists_and_an_empty_catalogue_shows_nothing():
    e = engine()
    assert list(ranked(e, Histories.empty(0))) == []
    bare = Engine(shelf(0), np.zeros((0, 8), np.float32))
    h = met([1])
    fused = bare.encode(h, bare.profiles(h))
    assert bare.candidates(h, fused, search_of(bare), OnlineScores.empty(shelf(0)), 5).shape == (1, 0)


def test_text_vectors_of_another_catalogue_are_refused():
    with pytest.raises(ValueError, match="19 text vectors for 20 items"):
        Engine(CATALOG, TEXT[:-1])


def test_a_window_that_has_expired_is_not_read():
    h = met([1, 2])
    assert engine(window_ttl_ms=500).window_rows(h)[1].tolist() == [[-1, 2]]


def test_params_with_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match="half_live_days"):
        OnlineParams(half_live_days=3)  # pyright: ignore[reportCallIssue]


def again(**mix: float) -> Engine:
    """An engine that may show again what was met."""
    return engine(seen="allow", mix=Mix(repeat=0.4, repeat_recency=0.5, **mix))


def test_what_was_met_may_be_shown_again_where_that_is_wanted():
    h = met([1, 2, 3, 1])
    assert {1, 2, 3} <= set(ranked(again(), h, n=N, m=N)[0].items.tolist())
    assert 7 not in ranked(again(), met([7, 1]), n=N, m=N)[0].items.tolist()
    beyond = pack([([(1000, 2, item_hash("i03"), 2.0)], [int(CATALOG.seen32[4])])])
    assert 4 in ranked(again(), beyond, n=N, m=N)[0].items.tolist()


def test_what_a_user_met_most_and_last_comes_back_first_with_itself_as_the_reason():
    (only,) = ranked(again(neural=0.0), met([5, 6, 5, 9]), n=3)
    # 9 weighs 1, then 5 has 1/2 + 1/8, and 6 has 1/4
    assert only.items.tolist() == [9, 5, 6]
    for row, reasons in zip(only.items.tolist(), only.reasons, strict=True):
        assert (reasons[0].type, reasons[0].item, reasons[0].action) == ("interaction", row, 2)
        assert reasons[0].share > 0.9


def test_an_item_from_before_the_window_comes_back_by_its_own_name():
    e = again(neural=0.0)
    h = met([11, *[k for k in range(6) for _ in range(8)]])
    assert 11 not in e.window_rows(h)[1]
    slow = engine(seen="allow", mix=Mix(repeat=0.8, repeat_recency=1.0, neural=0.0))
    (only,) = ranked(slow, h, n=7)
    assert only.items.tolist()[-1] == 11
    assert (only.reasons[-1][0].item, only.reasons[-1][0].action) == (11, 2)


def test_what_comes_back_is_the_same_for_some_candidates_as_for_all():
    h = CATALOG.index_of(met([1, 2, "stranger", 1], [], [3]).items)
    mix = Mix(repeat=0.3, repeat_recency=0.7)
    every = np.tile(np.arange(N, dtype=np.int32), (3, 1))
    found = NOTHING.returning(h, mix).at(every)
    np.testing.assert_allclose(found, NOTHING.returned(h, mix), atol=1e-7)
    np.testing.assert_allclose(found[0, [1, 2]], np.array([1 + 0.49, 0.7]) / 2.19, rtol=1e-6)


def test_vectors_weigh_as_much_as_a_window_of_that_length_wants():
    plain, other = engine(mix=Mix()), engine(mix=Mix(by_window=(2.0, 0.5, 1.0)))
    h = met([1], list(range(12)), [k % N for k in range(30)])
    profiles = plain.profiles(h)
    one, two = plain.encode(h, profiles), other.encode(h, profiles)
    for part in ("vectors", "long"):
        np.testing.assert_allclose(getattr(two, part), getattr(one, part) * torch.tensor([[2.0], [0.5], [1.0]]))
    assert torch.equal(one.short, two.short)


def test_reasons_know_how_much_the_window_weighs():
    """The neural part, weighed 2 by the mix or 2 by the length of the window, gives the same list and reasons."""
    h = met([1, 2, 3], list(range(12)))
    one = ranked(engine(mix=Mix(neural=2.0)), h)
    two = ranked(engine(mix=Mix(neural=1.0, by_window=(2.0, 2.0, 2.0))), h)
    for a, b in zip(one, two, strict=True):
        assert a.items.tolist() == b.items.tolist()
        np.testing.assert_allclose(a.scores, b.scores, rtol=1e-5)
        for some, others in zip(a.reasons, b.reasons, strict=True):
            assert [(r.type, r.item) for r in some] == [(r.type, r.item) for r in others]
            np.testing.assert_allclose([r.share for r in some], [r.share for r in others], rtol=1e-4)
