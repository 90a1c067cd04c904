"""Windows against the plain definition of a history: whatever the order of arrival, the rows are the same."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from model.catalog import Catalog
from model.dataset import Events as Told
from model.history import HistoryLog, item_hashes, seen_hash
from model.online import PAIR_STEPS, OnlineParams
from model.replay import timeline
from stream.events import Events
from stream.windows import window
from stream.windows.columns import Columns
from stream.windows.packing import PACKED, digest, pack, unpack

TOPICS = ("view", "click")


def events(rows: list[tuple[str, int, int, int]], first_offset: int = 0) -> Events:
    """Events from (user, time, action, item) at consecutive offsets."""
    users, times, actions, items = zip(*rows, strict=True) if rows else ((), (), (), ())
    n = len(rows)
    return Events(
        list(users),
        [str(item) for item in items],
        np.array(items, np.uint64),
        np.array(actions, np.uint8),
        np.array(times, np.int64),
        np.ones(n, np.float32),
        np.arange(first_offset, first_offset + n),
        {},
    )


def random_rows(seed: int, n: int, users: int = 7) -> list[tuple[str, int, int, int]]:
    rng = np.random.default_rng(seed)
    return [
        (f"u{rng.integers(users)}", int(rng.integers(1, n // 2)), int(rng.integers(1, 4)), int(rng.integers(1, 400)))
        for _ in range(n)
    ]


def apply_in_batches(rows: list[tuple[str, int, int, int]], size: int, history: int = 128) -> Columns:
    columns = Columns(TOPICS, history)
    for start in range(0, len(rows), size):
        window.apply(columns, 0, 0, events(rows[start : start + size], start))
    return columns


@pytest.mark.parametrize("size", [1, 17, 5000])
@pytest.mark.parametrize("seed", range(3))
def test_rows_equal_the_definition_whatever_the_order_of_arrival(size: int, seed: int) -> None:
    rows = random_rows(seed, 3000)
    columns = apply_in_batches(rows, size)
    log = HistoryLog(128)
    for user, time, action, item in rows:
        log.add(user, time, action, item)
    names = sorted(columns.users[0])
    expected = log.histories(names)
    got = columns.histories(columns.rows(0, names))
    for column in ("items", "actions", "times", "lengths"):
        np.testing.assert_array_equal(getattr(got, column), getattr(expected, column), column)
    for i in range(len(names)):
        assert set(got.seen_by(i).tolist()) == set(expected.seen_by(i).tolist())


def test_the_same_events_in_another_order_give_the_same_bytes() -> None:
    rows = random_rows(5, 2000)
    in_time = sorted(rows, key=lambda r: r[1])
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    digests = set()
    for order in (rows, in_time, shuffled):
        columns = apply_in_batches(order, 100)
        columns.applied[:] = -1  # offsets differ with the order, and are part of a row
        digests.add(digest(columns))
    assert len(digests) == 1


def test_a_batch_read_again_changes_nothing_but_touches_its_users() -> None:
    rows = random_rows(2, 500)
    columns = apply_in_batches(rows, 100)
    before = digest(columns)
    again = window.apply(columns, 0, 0, events(rows[:100], 0))
    assert digest(columns) == before
    assert len(again.fresh) == 0 and len(again.pairs[0]) == 0
    assert {columns.name(r) for r in again.rows} == {user for user, *_ in rows[:100]}


def test_offsets_of_one_topic_do_not_hide_those_of_another() -> None:
    columns = Columns(TOPICS)
    window.apply(columns, 0, 0, events([("a", 10, 1, 5)], first_offset=90))
    window.apply(columns, 0, 1, events([("a", 11, 2, 6)], first_offset=3))
    row = columns.row(0, "a")
    assert row is not None
    assert columns.applied[row].tolist() == [90, 3]
    assert columns.read(row)["item"].tolist() == [5, 6]


def test_users_of_two_partitions_are_two_rows() -> None:
    columns = Columns(TOPICS)
    window.apply(columns, 0, 0, events([("a", 10, 1, 5)]))
    window.apply(columns, 1, 0, events([("a", 10, 1, 6)]))
    assert len(columns) == 2
    columns.drop_partition(0)
    assert columns.row(0, "a") is None and len(columns) == 1


def test_a_pair_is_made_with_each_distinct_item_met_before() -> None:
    """Window 5, 6, 5, then 7: pairs 5->6, 6->5, 5->7, 6->7; nothing pairs with itself."""
    columns = Columns(TOPICS)
    done = window.apply(columns, 0, 0, events([("a", 1, 1, 5), ("a", 2, 1, 6), ("a", 3, 1, 5), ("a", 4, 1, 7)]))
    assert sorted(zip(done.pairs[0].tolist(), done.pairs[1].tolist(), strict=True)) == [(5, 6), (5, 7), (6, 5), (6, 7)]


@pytest.mark.parametrize("size", [1, 9, 1000])
def test_pairs_do_not_depend_on_how_events_were_batched(size: int) -> None:
    """Each user's events in time order, no two at one time."""
    rows = [(user, 1000 + i, action, item) for i, (user, _, action, item) in enumerate(random_rows(3, 1500))]
    columns, counted = Columns(TOPICS), Counter[tuple[int, int, int]]()
    for start in range(0, len(rows), size):
        done = window.apply(columns, 0, 0, events(rows[start : start + size], start))
        counted.update(zip(*(column.tolist() for column in done.pairs), strict=True))
    log, expected = HistoryLog(128), Counter[tuple[int, int, int]]()
    for user, time, action, item in rows:
        before = {int(a) for a in log.items_before(user, time, action, item)[-PAIR_STEPS:]} - {item}
        log.add(user, time, action, item)
        expected.update((a, item, time) for a in before)
    assert counted == expected


def test_rows_survive_packing() -> None:
    columns = apply_in_batches(random_rows(4, 4000, users=5), 300)
    restored = Columns(TOPICS)
    rows = np.array(sorted(columns.users[0].values()))
    unpack(restored, 0, dict(pack(columns, rows)))
    assert digest(restored) == digest(columns)
    more = random_rows(9, 500, users=5)
    for one in (columns, restored):
        window.apply(one, 0, 0, events(more, 4000))
    assert digest(restored) == digest(columns)


def test_what_is_packed_is_what_was_there_at_the_call() -> None:
    """A flush packs while events go on: what they change belongs to the next one."""
    columns = apply_in_batches(random_rows(4, 4000, users=5), 300)
    before = digest(columns)
    packed = pack(columns, columns.of(0))
    window.apply(columns, 0, 0, events([*random_rows(9, 500, users=5), ("new", 1, 1, 1)], 4000))
    columns.drop(columns.of(0)[:1])
    restored = Columns(TOPICS)
    unpack(restored, 0, dict(packed))
    assert digest(restored) == before


def test_packed_rows_are_never_all_objects() -> None:
    """Hundreds of thousands of small ones, alive together, would keep hold of memory long after they are gone."""
    columns, n = Columns(TOPICS), 20 * PACKED
    window.apply(columns, 0, 0, events([(f"u{i}", 1, 1, 5) for i in range(n)]))
    before, most = sys.getallocatedblocks(), 0
    for number, _ in enumerate(pack(columns, columns.of(0))):
        if number % 1000 == 0:
            most = max(most, sys.getallocatedblocks() - before)
    assert most < n / 2


def test_the_seen_set_is_capped_without_regard_to_order() -> None:
    rows = [("a", t, 1, 10_000 + t) for t in range(1, 1001)]
    backwards = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))]
    seen = []
    for order in (rows, backwards):
        columns = Columns(TOPICS, history=128, seen_cap=100)
        for start in range(0, len(order), 50):
            window.apply(columns, 0, 0, events(order[start : start + 50], start))
        seen.append(columns.seen(int(columns.rows(0, ["a"])[0])))
    expected = np.sort(seen_hash(np.array([i for *_, i in rows[:-128]], np.uint64)))[:100]
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_array_equal(seen[1], expected)


def test_a_light_user_stays_small() -> None:
    columns = Columns(TOPICS)
    window.apply(columns, 0, 0, events([(f"u{i}", 1, 1, 5) for i in range(10_000)]))
    assert columns.nbytes / 10_000 < 250


@pytest.mark.parametrize("size", [17, 5000])
def test_without_pairs_the_rows_are_the_same(size: int) -> None:
    rows, columns = random_rows(4, 2000), Columns(TOPICS, 128)
    for start in range(0, len(rows), size):
        done = window.apply(columns, 0, 0, events(rows[start : start + size], start), paired=False)
        assert [len(column) for column in done.pairs] == [0, 0, 0]
    assert digest(columns) == digest(apply_in_batches(rows, size))


def test_twenty_interactions_take_less_than_450_bytes_a_user() -> None:
    """However the users' events are interleaved: rows move up many times on the way."""
    columns, users = Columns((*TOPICS, "buy")), 20_000
    names = [f"user-{n:05d}" for n in range(users)]
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(users), 20))
    for start in range(0, len(order), 4000):
        part = order[start : start + 4000].tolist()
        rows = [(names[u], start + i + 1, 1, start + i + 1) for i, u in enumerate(part)]
        window.apply(columns, 0, 0, events(rows, start))
    assert set(columns.count[columns.of(0)].tolist()) == {20}
    assert columns.nbytes / users < 450 * 1.1  # what a small number of users leaves unused included


def test_a_row_holds_the_weight_it_was_given() -> None:
    columns = Columns(TOPICS)
    n = 1000
    weights = np.linspace(-1, 1, n, dtype=np.float32)
    e = events([("a" if i % 2 else "b", i + 1, 1 + i % 3, i + 1) for i in range(n)])
    window.apply(columns, 0, 0, replace(e, weights=weights))
    for first, user in enumerate("ba"):
        row = columns.row(0, user)
        assert row is not None
        held = columns.read(row)
        np.testing.assert_array_equal(held["weight"], weights[first::2][-128:])
        np.testing.assert_array_equal(held["action"], [1 + i % 3 for i in range(first, n, 2)][-128:])


@pytest.mark.parametrize(("size", "late"), [(1, 0.0), (13, 0.0), (1, 0.1)])
def test_what_comes_like_clockwork_counts_as_little_in_a_worker_as_offline(size: int, late: float) -> None:
    """Two bots among four people, all of them now and then late: one by one, since of one batch a worker sees all in
    order, and an evaluation as it came.
    """
    rng = np.random.default_rng(4)
    clock, rows = dict.fromkeys("abcdef", 1000), []
    for _ in range(900):
        user = str(rng.choice(list(clock)))
        clock[user] += int(rng.normal(1000, 50)) if user in "ab" else int(rng.exponential(1000)) + 1
        time = clock[user] - (int(rng.integers(1, 9000)) if rng.random() < late else 0)
        rows.append((user, max(time, 1), 2, f"i{rng.integers(60)}"))
    hashes = item_hashes([item for *_, item in rows])
    columns, pairs, met = Columns(TOPICS), Counter[tuple[int, int]](), Counter[int]()
    skipped = 0
    for start in range(0, len(rows), size):
        part = zip(rows[start : start + size], hashes[start : start + size].tolist(), strict=True)
        batch = events([(*row[:3], item) for row, item in part], start)
        done = window.apply(columns, 0, 0, batch, True, 0.3)
        pairs.update(zip(done.pairs[0].tolist(), done.pairs[1].tolist(), strict=True))
        met.update(batch.items[done.counted].tolist())
        skipped += len(done.fresh) - len(done.counted)
    assert skipped > 50

    users, times, actions, items = (np.array(column) for column in zip(*rows, strict=True))
    told = Told(
        users.astype(object), items.astype(object), actions.astype(np.uint8), times, np.zeros(len(rows), np.float32)
    )
    counts = timeline(told, Catalog.build({}), variation=0.3).counts(len(rows), OnlineParams())
    assert pairs == Counter(zip(counts.a.tolist(), counts.b.tolist(), strict=True))
    assert met == Counter(counts.item.tolist())
