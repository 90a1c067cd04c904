"""The temporal protocol: what is known before each event, and the table of rankers."""

import numpy as np
import pytest

from model.config import TrainConfig
from model.evaluate import EvaluateConfig, temporal
from model.history import HistoryLog
from model.metrics import coverage, hits
from model.mix import Mix, combined, counted
from model.online import OnlineParams
from model.replay import steps, timeline
from model.sequences import sequences
from model.train import train
from model.tune import rankable
from tests.model.test_train import TINY
from tests.model.worlds import RING, ring_walks, shelf, text_vectors

TEXT = text_vectors(RING)


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


def test_an_exact_repeat_counts_nothing():
    events, catalog = ring_walks(users=1, steps=3)
    line = timeline(events.take(np.array([0, 1, 1, 2])), catalog)
    assert line.fresh.tolist() == [True, True, False, True]
    assert len(line.counts(4, OnlineParams()).a) == 3


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


def test_a_trained_model_beats_the_untrained_one_where_order_is_all():
    events, catalog = ring_walks()
    split = int(len(events) * 0.8)
    model = train(events.take(slice(0, split)), catalog, TEXT, TINY)
    seen = []
    table = temporal(events, catalog, TEXT, model, EvaluateConfig(k=1), lambda done, total: seen.append((done, total)))
    rows = table.rows()
    assert list(rows) == ["released", "neural", "fallback", "fallback-neural", "counts", "popular-7d"]
    assert hits(table.ranks["neural"], 1).mean() > 0.9
    gain = table.difference("released", "fallback-neural")["hr@1"]
    assert gain.low > 0
    assert seen[-1] == (108, 108)
    assert rows["released"]["coverage"] == coverage(table.lists["released"], RING)


def test_without_a_model_the_table_has_the_untrained_rows():
    events, catalog = ring_walks(users=10)
    table = temporal(events, catalog, TEXT, None, EvaluateConfig(train=0.5, end=0.9, refresh=4))
    assert list(table.rows()) == ["fallback", "fallback-neural", "counts", "popular-7d"]
    assert len(table.users) == 36


def test_popularity_forgets_what_is_older_than_a_week():
    events, _ = ring_walks(users=2, steps=3)
    day = 86_400_000
    # items 0, 0, 0, then 1, 1 eight days later, then the event that is ranked
    late = type(events)(
        np.array(["a", "b", "c", "a", "b", "z"], object),
        np.array(["i00", "i00", "i00", "i01", "i01", "i01"], object),
        events.action,
        np.array([0, 1, 2, 8 * day, 8 * day + 1, 8 * day + 2], np.int64),
        events.value,
    )
    table = temporal(late, shelf(3), TEXT[:3], None, EvaluateConfig(train=0.84, k=1))
    assert table.ranks["popular-7d"].tolist() == [1.0]


def test_a_mix_is_a_product_of_experts():
    mix = Mix(neural=2.0, online=0.5, popular=0.25)
    related, popular = np.array([0.4]), np.array([0.2])
    np.testing.assert_allclose(counted(related, popular, mix), [0.35])
    expected = 2 * 0.3 + 0.5 * np.log(0.35)
    np.testing.assert_allclose(combined(np.array([0.3]), related, popular, mix), [expected])


def test_a_setting_with_an_unknown_name_is_refused():
    for kind in (TrainConfig, EvaluateConfig):
        with pytest.raises(ValueError, match="epoch_count"):
            kind.model_validate({"epoch_count": 3})
