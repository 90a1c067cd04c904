"""The definition of a history: a set in canonical order, whatever order its interactions arrive in."""

import numpy as np
import pytest

from model import history
from model.history import Histories, HistoryLog, by_user, canonical, item_hash, pack, seen_hash

DAY = 86_400_000


def log_of(interactions, keep=history.HISTORY):
    log = HistoryLog(keep)
    for time, action, item in interactions:
        log.add("u", time, action, item, float(action))
    return log.histories(["u"])


def columns(h: Histories) -> list[list]:
    return [c.tolist() for c in (h.items, h.actions, h.times, h.weights, h.lengths, h.seen, h.seen_offsets)]


def test_an_item_hash_never_changes():
    assert item_hash("i7") == 6190822855650523688
    assert item_hash("") == item_hash("") != 0


def test_a_seen_hash_is_the_low_half_of_the_item_hash():
    assert seen_hash(np.array([0x1_0000_0002], np.uint64)).tolist() == [2]


def test_action_codes_never_change():
    assert dict(history.ACTION_CODE) == {
        "view": 1,
        "click": 2,
        "buy": 3,
        "rating": 4,
        "favorite": 5,
        "share": 6,
        "add_to_cart": 7,
        "remove_from_cart": 8,
        "return": 9,
        "purchase": 3,
    }
    assert history.ACTION_NAME[3] == "buy"


def test_a_weight_for_an_unknown_action_is_refused():
    with pytest.raises(ValueError, match="'clik'"):
        history.weight_table({"clik": 1.0})


def test_weights_are_looked_up_by_action_code():
    table = history.weight_table({"purchase": 9.0})
    assert (table[history.ACTION_CODE["buy"]], table[history.ACTION_CODE["view"]], table[200]) == (
        9.0,
        1.0,
        0.0,
    )


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_arrival_gives_the_same_history(seed):
    rng = np.random.default_rng(seed)
    events = [(int(t), int(a), int(i)) for t, a, i in rng.integers([0, 1, 1], [6, 4, 9], (40, 3))]
    shuffled = [events[k] for k in rng.permutation(len(events))]
    assert columns(log_of(shuffled, keep=16)) == columns(log_of(events, keep=16))


@pytest.mark.parametrize("seed", range(5))
def test_the_columns_rule_and_the_plain_rule_agree(seed):
    rng = np.random.default_rng(seed)
    t, a, i = rng.integers([0, 1, 1], [6, 4, 9], (60, 3)).T
    order = canonical(t, a.astype(np.uint8), i.astype(np.uint64))
    plain = log_of(list(zip(t.tolist(), a.tolist(), i.tolist(), strict=True)))
    assert i[order].tolist() == plain.items[0].tolist()
    assert t[order].tolist() == plain.times[0].tolist()


def test_many_users_are_grouped_and_each_is_canonical():
    users = np.array([1, 0, 1, 0, 1])
    times = np.array([5, 9, 3, 2, 5])
    order, whose = by_user(users, times, np.ones(5, np.uint8), np.array([7, 1, 8, 2, 7], np.uint64))
    assert order.tolist() == [3, 1, 2, 0]
    assert whose.tolist() == [0, 0, 1, 1]


def test_ties_in_time_are_ordered_by_action_and_then_by_item():
    h = log_of([(1, 2, 5), (1, 1, 9), (1, 1, 3)])
    assert list(zip(h.actions[0].tolist(), h.items[0].tolist(), strict=True)) == [(1, 3), (1, 9), (2, 5)]


def test_an_exact_repeat_vanishes_and_the_greater_weight_stays():
    log = HistoryLog()
    assert log.add("u", 1, 2, 5, 1.0)
    assert not log.add("u", 1, 2, 5, 3.0)
    assert not log.add("u", 1, 2, 5, 2.0)
    h = log.histories(["u"])
    assert (h.lengths.tolist(), h.weights.tolist()) == ([1], [[3.0]])


def test_the_same_item_at_another_time_is_another_interaction():
    assert log_of([(1, 2, 5), (2, 2, 5)]).lengths.tolist() == [2]


def test_what_falls_off_the_history_is_still_seen():
    h = log_of([(t, 1, 100 + t) for t in range(5)], keep=3)
    assert h.items.tolist() == [[102, 103, 104]]
    assert h.seen.tolist() == [100, 101]
    assert sorted(h.seen_by(0).tolist()) == [100, 101, 102, 103, 104]


def test_an_item_met_again_is_in_the_history_and_not_beyond_it():
    h = log_of([(0, 1, 7), (1, 1, 8), (2, 1, 7)], keep=2)
    assert (h.items.tolist(), h.seen.tolist()) == ([[8, 7]], [])


def test_rows_are_padded_on_the_left():
    h = pack([([(1, 1, 5, 1.0)], []), ([(1, 1, 5, 1.0), (2, 1, 6, 1.0)], [9])])
    assert h.items.tolist() == [[0, 5], [5, 6]]
    assert h.seen_offsets.tolist() == [0, 0, 1]


def test_a_window_is_the_newest_k_without_the_seen_set():
    w = log_of([(t, 1, 100 + t) for t in range(6)], keep=4).window(2)
    assert (w.items.tolist(), w.lengths.tolist(), len(w.seen)) == ([[104, 105]], [2], 0)


def test_a_window_ends_where_its_time_to_live_does_counted_from_the_newest():
    h = log_of([(0, 1, 1), (DAY, 1, 2), (2 * DAY, 1, 3)])
    assert h.window(32, ttl_ms=DAY).items.tolist() == [[0, 2, 3]]
    assert h.window(32, ttl_ms=DAY - 1).items.tolist() == [[0, 0, 3]]


def test_a_window_wider_than_the_history_is_the_history():
    assert log_of([(1, 1, 5)]).window(32).items.tolist() == [[5]]


def test_rows_can_be_taken_in_any_order_with_their_seen_items():
    h = pack([([(1, 1, 5, 1.0)], [1, 2]), ([(1, 1, 6, 1.0)], []), ([(1, 1, 7, 1.0)], [3])])
    taken = h.take([2, 0])
    assert taken.items.tolist() == [[7], [5]]
    assert [taken.seen_by(b).tolist() for b in range(2)] == [[7, 3], [5, 1, 2]]
    assert columns(h.take(slice(1, 3))) == columns(h.take([1, 2]))


def test_joined_rows_are_padded_to_the_longest():
    one, two = pack([([(1, 1, 5, 1.0)], [1])]), pack([([(1, 1, 6, 1.0), (2, 1, 7, 1.0)], [2])])
    both = Histories.concat([one, two])
    assert both.items.tolist() == [[0, 5], [6, 7]]
    assert (both.seen.tolist(), both.seen_offsets.tolist()) == ([1, 2], [0, 1, 2])


def test_a_user_never_heard_of_is_an_empty_row():
    h = HistoryLog().histories(["nobody"])
    assert (len(h), h.lengths.tolist(), h.window().lengths.tolist()) == (1, [0], [0])
    assert len(Histories.empty(0)) == len(Histories.concat([])) == 0


def test_items_before_an_interaction_are_those_canonically_older():
    log = HistoryLog(keep=3)
    for t in (1, 2, 3, 4):
        log.add("u", t, 1, 10 * t)
    assert log.items_before("u", 4, 1, 5).tolist() == [20, 30]
    assert log.items_before("u", 9, 1, 5).tolist() == [20, 30, 40]
    assert log.items_before("stranger", 9, 1, 5).tolist() == []
