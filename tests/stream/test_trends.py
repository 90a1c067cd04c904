"""Counts against a dictionary: buckets, flushes, merges, restores, and the sum over partitions."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgpack
import numpy as np
import pytest

from stream import trends as module
from stream.trends import FAN, Counted, PartitionTrends, Rows, Trends, TrendsConfig, merged, summed

CONFIG = TrendsConfig(bucket_ms=1000, buckets=3)
NO_PAIRS = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))


def as_dict(counted: Counted) -> dict[tuple[int, int, int], int]:
    """(a, b, bucket) -> count, summed over partitions."""
    total: dict[tuple[int, int, int], int] = defaultdict(int)
    columns = (counted.a, counted.b, counted.bucket, counted.n)
    for a, b, bucket, count in zip(*(c.tolist() for c in columns), strict=True):
        total[a, b, bucket] += count
    return dict(total)


def met(trends: PartitionTrends, items: list[int], times: list[int]) -> None:
    trends.count(np.array(items, np.uint64), np.array(times, np.int64), NO_PAIRS)


def random_counts(seed: int, rounds: int = 30, bucket_ms: int = 1000) -> list[tuple[np.ndarray, ...]]:
    """(items, times, before, after, pair times), in time order from round to round; hashes use all 64 bits."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(1, 2**64, 300, np.uint64)
    out = []
    for n in range(rounds):
        when = n * bucket_ms // 10
        items, before, after = (rng.choice(hashes, k) for k in (rng.integers(0, 40), 90, 90))
        out.append((items, when + np.arange(len(items)), before, after, when + rng.integers(0, bucket_ms, 90)))
    return out


def reference(rounds: list[tuple[np.ndarray, ...]], bucket_ms: int = 1000) -> dict[tuple[int, int, int], int]:
    total = Counter[tuple[int, int, int]]()
    for items, times, before, after, pair_times in rounds:
        total.update((i, 0, t // bucket_ms) for i, t in zip(items.tolist(), times.tolist(), strict=True))
        pairs = zip(before.tolist(), after.tolist(), pair_times.tolist(), strict=True)
        total.update((a, b, t // bucket_ms) for a, b, t in pairs)
    return dict(total)


def counted(rounds: list[tuple[np.ndarray, ...]], config: TrendsConfig) -> PartitionTrends:
    trends = PartitionTrends(config)
    for items, times, before, after, pair_times in rounds:
        trends.count(items, times, (before, after, pair_times))
    return trends


def flushed(trends: PartitionTrends) -> Rows:
    """What the owner of a partition writes at a commit."""
    rows = trends.flush()
    while crowded := trends.crowded():
        rows |= trends.replace(crowded, merged(trends.parts(crowded)))
    return rows


def compacted(log: Rows) -> Rows:
    """What compaction leaves of a log: the last row of each key, without the deleted ones."""
    return {key: value for key, value in log.items() if value is not None}


@pytest.mark.parametrize("seed", range(5))
def test_sums_equal_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    some = rng.integers(0, 2**64, 40, np.uint64)
    a, b = rng.choice(some, 2000), rng.choice(some, 2000)
    count = rng.integers(1, 9, 2000, np.uint32)
    expected = Counter[tuple[int, int]]()
    for x, y, n in zip(a.tolist(), b.tolist(), count.tolist(), strict=True):
        expected[x, y] += n
    got = summed(a, b, count)
    assert dict(zip(zip(got.a.tolist(), got.b.tolist(), strict=True), got.n.tolist(), strict=True)) == expected
    assert len(got.a) == len(expected)


def test_pairs_that_share_a_mixed_word_are_told_apart() -> None:
    """a1 * G1 ^ b1 * G2 == a2 * G1 ^ b2 * G2, and equal pairs lie apart."""
    g1, g2 = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F
    word, inverse = 123456789, pow(g2, -1, 2**64)
    pairs = [(a, (a * g1 ^ word) % 2**64 * inverse % 2**64) for a in (3, 5, 3, 5, 3)]
    a, b = (np.array(column, np.uint64) for column in zip(*pairs, strict=True))
    assert len(set((a * np.uint64(g1) ^ b * np.uint64(g2)).tolist())) == 1
    got = summed(a, b, np.ones(5, np.uint32))
    assert sorted(zip(got.a.tolist(), got.n.tolist(), strict=True)) == [(3, 3), (5, 2)]


def test_counts_are_kept_by_bucket_of_event_time() -> None:
    trends = PartitionTrends(CONFIG)
    met(trends, [7, 7, 8, 7], [0, 999, 999, 1000])
    trends.count(
        np.zeros(0, np.uint64),
        np.zeros(0, np.int64),
        (np.array([7, 7, 8], np.uint64), np.array([8, 8, 7], np.uint64), np.array([10, 20, 1500])),
    )
    assert as_dict(trends.counted()) == {(7, 0, 0): 2, (8, 0, 0): 1, (7, 0, 1): 1, (7, 8, 0): 2, (8, 7, 1): 1}


@pytest.mark.parametrize("seed", range(3))
def test_counts_equal_the_definition(seed: int) -> None:
    config = TrendsConfig(bucket_ms=1000, buckets=100)
    rounds = random_counts(seed)
    assert as_dict(counted(rounds, config).counted()) == reference(rounds)


def test_a_flush_has_what_was_counted_since_the_last_and_rows_restore_the_counts() -> None:
    config = TrendsConfig(bucket_ms=1000, buckets=100)
    rounds = random_counts(4, rounds=200)
    trends, follower, log = PartitionTrends(config), PartitionTrends(config), Rows()
    assert not trends.dirty and flushed(trends) == {}
    for items, times, before, after, pair_times in rounds:
        trends.count(items, times, (before, after, pair_times))
        assert trends.dirty
        rows = flushed(trends)
        assert not trends.dirty and flushed(trends) == {}
        for key in rows:
            log.pop(key, None)
        log |= rows
        follower.restore(rows)
    restored, from_all = PartitionTrends(config), PartitionTrends(config)
    restored.restore(compacted(log))
    from_all.restore(log)
    wanted = reference(rounds)
    for got in (trends, follower, restored, from_all):
        assert as_dict(got.counted()) == wanted
        assert not got.dirty


def test_merges_keep_the_runs_few_and_the_rows_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", 50)
    config = TrendsConfig(bucket_ms=10**9, buckets=100)
    rounds = random_counts(6, rounds=400)
    trends, log = PartitionTrends(config), Rows()
    for items, times, before, after, pair_times in rounds:
        trends.count(items, times, (before, after, pair_times))
        log |= flushed(trends)
    assert max(len(value) for value in log.values() if value) <= 50 * 20 + 32
    kept = {tuple(msgpack.unpackb(key)[:2]) for key in compacted(log)}
    assert len(kept) <= FAN * 5  # of 400 flushes
    restored = PartitionTrends(config)
    restored.restore(compacted(log))
    assert as_dict(restored.counted()) == as_dict(trends.counted()) == reference(rounds, 10**9)


def test_counting_goes_on_after_a_restore() -> None:
    config = TrendsConfig(bucket_ms=1000, buckets=100)
    rounds = random_counts(5, rounds=90)
    first, log = PartitionTrends(config), Rows()
    for items, times, before, after, pair_times in rounds[:45]:
        first.count(items, times, (before, after, pair_times))
        log |= flushed(first)
    restored = PartitionTrends(config)
    restored.restore(compacted(log))
    for items, times, before, after, pair_times in rounds[45:]:
        restored.count(items, times, (before, after, pair_times))
        log |= flushed(restored)
    assert as_dict(restored.counted()) == reference(rounds)
    again = PartitionTrends(config)
    again.restore(compacted(log))
    assert as_dict(again.counted()) == reference(rounds)  # no run took the number of another


def test_old_buckets_leave_as_time_goes_on() -> None:
    trends = PartitionTrends(CONFIG)  # 3 buckets
    for when in range(5):
        met(trends, [when + 1], [1000 * when])
    assert {bucket for _, _, bucket in as_dict(trends.counted())} == {2, 3, 4}
    met(trends, [99], [1999])  # too old to be kept
    assert {bucket for _, _, bucket in as_dict(trends.counted())} == {2, 3, 4}
    assert {item for item, _, _ in as_dict(trends.counted())} == {3, 4, 5}
    assert len(flushed(trends)) == 3
    met(trends, [7], [8000])
    assert list(flushed(trends).values())[:-1] == [None, None, None]  # deleted, not only forgotten


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_restore_keeps_the_same_buckets_in_any_order(newest_first: bool) -> None:
    rows = Rows()
    trends = PartitionTrends(CONFIG)
    for when in range(6):
        met(trends, [when + 1], [1000 * when])
        rows |= flushed(trends)
    restored = PartitionTrends(CONFIG)
    for key in sorted(rows, reverse=newest_first):
        restored.restore({key: rows[key]})
    assert as_dict(restored.counted()) == as_dict(trends.counted())


def test_a_row_of_another_version_is_refused() -> None:
    trends = PartitionTrends(CONFIG)
    with pytest.raises(ValueError, match="version 9"):
        trends.restore({msgpack.packb((1, 0, 0)) or b"": msgpack.packb((9, b"", b"", b"")) or b""})


def test_partitions_are_summed_and_counted_apart() -> None:
    trends = Trends(TrendsConfig(bucket_ms=1000, buckets=100))
    parts = [random_counts(seed) for seed in range(3)]
    for partition, rounds in enumerate(parts):
        for items, times, before, after, pair_times in rounds:
            trends[partition].count(items, times, (before, after, pair_times))
    assert as_dict(trends.counted()) == reference([r for rounds in parts for r in rounds])
    trends.drop(1)
    assert as_dict(trends.counted()) == reference(parts[0] + parts[2])
    trends[1].restore(flushed(counted(parts[1], trends.config)))  # as a follower does
    assert as_dict(trends.counted()) == reference([r for rounds in parts for r in rounds])


def test_nothing_counted_is_no_rows() -> None:
    assert as_dict(Trends(CONFIG).counted()) == {} == as_dict(PartitionTrends(CONFIG).counted())


def test_the_version_tells_that_counts_have_changed() -> None:
    trends = Trends(CONFIG)
    before = trends.version
    trends.changed()
    assert trends.version != before
