"""What is known before each event, and what is counted."""

from dataclasses import replace

import numpy as np
import pytest

from model.history import HistoryLog
from model.mix import Mix, combined, counted
from model.online import NO_TIME, PAIR_STEPS, OnlineParams, pairs, steady
from model.replay import arrives_in_order, human, steps, timeline
from model.sequences import sequences
from model.tune import rankable
from tests.model.worlds import RING, ring_walks


def test_each_event_is_ranked_from_the_history_before_it():
    events, catalog = ring_walks(users=5)
    line = timeline(events, catalog)
    found = list(steps(line, 10, 30, catalog, OnlineParams(), refresh=7))
    assert [(s.first, s.last) for s in found] == [(10, 17), (17, 24), (24, 30)]
    log = HistoryLog()
    for e in range(30):
        if e >= 10:
            step = next(s for s in found if s.first <= e < s.last)
            before = log.histories([int(line.users[e])])
            row = step.histories.take([e - step.first])
            assert row.items[row.items > 0].tolist() == before.items[before.items > 0].tolist()
        log.add(*(int(c[e]) for c in (line.users, line.times, line.actions, line.items)))


def test_counts_are_those_of_the_events_before():
    events, catalog = ring_walks(users=1, steps=4)
    line = timeline(events, catalog)
    # the fourth event is preceded by three: pairs 0, 1, 2 and 3
    assert [len(line.counts(end, OnlineParams()).a) for end in range(5)] == [0, 0, 1, 3, 6]
    assert [len(line.counts(end, OnlineParams()).item) for end in range(5)] == [0, 1, 2, 3, 4]


def test_workers_that_share_nothing_count_together_what_one_counts():
    events, catalog = ring_walks(users=7, steps=5)
    line = timeline(events, catalog)
    parts = [line.part(shard, 3) for shard in range(3)]
    assert [set((part.users[part.fresh] % 3).tolist()) for part in parts] == [{0}, {1}, {2}]
    for end in (0, 13, len(line)):
        whole, split = line.counts(end, OnlineParams()), [part.counts(end, OnlineParams()) for part in parts]
        assert sorted(whole.item.tolist()) == sorted(i for c in split for i in c.item.tolist())
        pairs_of = [sorted(zip(c.a.tolist(), c.b.tolist(), strict=True)) for c in (whole, *split)]
        assert pairs_of[0] == sorted(p for some in pairs_of[1:] for p in some)


def test_an_exact_repeat_counts_nothing():
    events, catalog = ring_walks(users=1, steps=3)
    line = timeline(events.take(np.array([0, 1, 1, 2])), catalog)
    assert line.fresh.tolist() == [True, True, False, True]
    assert len(line.counts(4, OnlineParams()).a) == 3


def test_what_comes_like_clockwork_counts_nothing():
    """Two users of 25 events: one to a beat of two seconds, give or take a tenth, one with gaps of one and nine."""
    beat = 2000 * np.arange(25) + np.tile([0, 200, 0, -200, 0], 5)
    person = np.cumsum(np.tile([1000, 9000], 13)[:25])
    events, catalog = ring_walks(users=2, steps=25)
    at = np.argsort(np.concatenate([beat, person]), kind="stable")
    users = np.repeat(np.array(["bot", "person"], object), 25)[at]
    told = replace(events, user=users, ts=np.concatenate([beat, person])[at])
    plain, line = timeline(told, catalog), timeline(told, catalog, variation=0.3)
    bot = np.flatnonzero(users == "bot")
    # twenty gaps are looked at: the first twenty events cannot be told from a person's
    assert plain.fresh.all()
    assert np.flatnonzero(~line.fresh).tolist() == bot[20:].tolist()
    assert set(line.pair_event.tolist()) == set(plain.pair_event.tolist()) - set(bot[20:].tolist())
    assert len(human(told, 0.3)) == 45
    assert human(told, 0.0) is told


@pytest.mark.parametrize(
    ("gaps", "variation", "found"),
    [
        ([10] * 20, 0.3, True),
        ([10] * 20, 0.0, False),
        ([0] * 20, 0.3, False),  # a basket
        ([5, 15] * 10, 0.3, False),  # varies by 5 of 10
        ([5, 15] * 10, 0.6, True),
        ([10] * 19, 0.3, False),  # too few to tell
    ],
)
def test_a_beat_is_told_by_how_little_its_gaps_vary(gaps: list[int], variation: float, found: bool):
    times = np.cumsum([7, *gaps])
    before = np.r_[np.full(PAIR_STEPS + 1 - len(times), NO_TIME), times[:-1]]
    assert steady(before[None], times[-1:], variation).tolist() == [found]


def test_training_reads_the_history_that_serving_reads():
    events, catalog = ring_walks(users=3, steps=9)
    line = timeline(events, catalog)

    class Nothing:
        name = "nothing"

        def profiles(self, h, rows):
            return [np.zeros((0, 8), np.float32)] * len(h)

    data = sequences(line, len(line), Nothing(), 8)
    log = HistoryLog()
    for e in range(len(line)):
        log.add(*(int(c[e]) for c in (line.users, line.times, line.actions, line.items)))
    served = log.histories([0, 1, 2])
    for u, (start, end) in enumerate(zip(data.starts, data.ends, strict=True)):
        assert catalog.hashes[data.rows[start:end]].tolist() == served.items[u].tolist()
        assert data.times[start:end].tolist() == served.times[u].tolist()


def test_an_event_whose_item_the_user_had_met_is_not_tested():
    events, catalog = ring_walks(users=1, steps=RING + 2)
    line = timeline(events, catalog)
    (step,) = steps(line, RING - 1, RING + 2, catalog, OnlineParams(), refresh=9)
    assert rankable(line, step, catalog).tolist() == [0]


def test_a_mix_is_a_product_of_experts():
    mix = Mix(neural=2.0, online=0.5, popular=0.25)
    related, popular = np.array([0.4]), np.array([0.2])
    np.testing.assert_allclose(counted(related, popular, mix), [0.35])
    expected = 2 * 0.3 + 0.5 * np.log(0.35)
    np.testing.assert_allclose(combined(np.array([0.3]), related, popular, mix), [expected])


def test_a_mix_has_a_share_for_what_users_come_back_to():
    mix = Mix(neural=0, popular=0.25, repeat=0.5)
    related, popular, own = np.array([0.4]), np.array([0.2]), np.array([0.6])
    np.testing.assert_allclose(counted(related, popular, mix, own), [0.25 * 0.4 + 0.25 * 0.2 + 0.5 * 0.6])


def test_pairs_that_are_made_at_once_are_those_made_one_by_one():
    events, catalog = ring_walks(users=4, steps=40)
    line = timeline(events, catalog)
    assert arrives_in_order(line.users, events, line.items)
    log = HistoryLog()
    expected = []
    for e in range(len(line)):
        key = tuple(int(c[e]) for c in (line.users, line.times, line.actions, line.items))
        expected += [(e, int(a)) for a in pairs(log.items_before(*key), key[-1])]
        log.add(*key)
    assert list(zip(line.pair_event.tolist(), line.pair_from.tolist(), strict=True)) == expected


def test_counts_of_a_stretch_add_up():
    events, catalog = ring_walks(users=3, steps=6)
    line = timeline(events.take(np.array([0, 1, 1, *range(2, 18)])), catalog)
    whole, first, rest = (line.counts(*c) for c in ((19, OnlineParams()), (7, OnlineParams()), (19, OnlineParams(), 7)))
    for name in ("a", "b", "item"):
        assert sorted(getattr(whole, name)) == sorted(getattr(first + rest, name))
