"""Counts against a dictionary: growth, buckets, flushes, and the sum over partitions."""

from __future__ import annotations

from collections import Counter, defaultdict

import msgpack
import numpy as np
import pytest

from stream.trends import Counted, PairTable, PartitionTrends, Trends, TrendsConfig

CONFIG = TrendsConfig(bucket_ms=1000, buckets=3)
NO_PAIRS = (np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))


def as_dict(counted: Counted) -> dict[tuple[int, int, int], int]:
    """(a, b, bucket) -> count, summed over partitions."""
    total: dict[tuple[int, int, int], int] = defaultdict(int)
    columns = (counted.a, counted.b, counted.bucket, counted.count)
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


@pytest.mark.parametrize("seed", range(5))
def test_a_table_equals_a_dictionary_while_it_grows(seed: int) -> None:
    """Keys with equal low or high halves, as pairs of small local numbers have, and keys of all bits."""
    rng = np.random.default_rng(seed)
    table, expected = PairTable(), Counter[int]()
    for _ in range(60):
        small = (rng.integers(1, 60, 100, np.uint64) << np.uint64(32)) | rng.integers(0, 60, 100, np.uint64)
        wide = rng.integers(1, 2**64, int(rng.integers(0, 150)), np.uint64)
        keys = np.unique(np.concatenate([small, wide]))
        counts = rng.integers(1, 5, len(keys), np.uint32)
        if rng.random() < 0.2:
            table.put(keys, counts)
            for key, count in zip(keys.tolist(), counts.tolist(), strict=True):
                expected[key] = count
        else:
            table.add(keys, counts)
            expected.update(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
    keys, counts = table.items()
    assert len(np.unique(keys)) == len(keys) > 4096  # it has grown several times
    assert dict(zip(keys.tolist(), counts.tolist(), strict=True)) == expected


def test_no_key_and_no_count_is_lost_where_all_keys_collide() -> None:
    """Keys whose hash begins alike land on one slot and are probed on from there."""
    golden = 0x9E3779B97F4A7C15
    inverse = pow(golden, -1, 2**64)
    keys = np.array([inverse * n % 2**64 for n in range(1, 400)], np.uint64)  # hashes 1, 2, 3, ...: all slot 0
    table = PairTable()
    table.add(keys, np.arange(1, 400, dtype=np.uint32))
    table.add(keys[::-1].copy(), np.ones(399, np.uint32))
    got = dict(zip(*(column.tolist() for column in table.items()), strict=True))
    assert got == {int(key): n + 1 for n, key in enumerate(keys, 1)}


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


def test_a_flush_has_the_rows_that_changed_and_they_restore_the_counts() -> None:
    config = TrendsConfig(bucket_ms=1000, buckets=100)
    rounds = random_counts(4)
    trends, restored, log = PartitionTrends(config), PartitionTrends(config), dict[bytes, bytes]()
    assert not trends.dirty and list(trends.flush()) == []
    for items, times, before, after, pair_times in rounds:
        trends.count(items, times, (before, after, pair_times))
        assert trends.dirty
        rows = dict(trends.flush())
        touched = {int(x) for x in np.concatenate([items, before])}
        assert len(rows) >= len(touched)  # one row an item and bucket
        trends.settled()
        assert not trends.dirty and list(trends.flush()) == []
        log |= rows
        restored.restore(rows)
    fresh = PartitionTrends(config)
    fresh.restore(log)  # what compaction leaves: the last row of each key
    assert as_dict(trends.counted()) == as_dict(restored.counted()) == as_dict(fresh.counted()) == reference(rounds)
    assert not fresh.dirty


def test_counting_goes_on_after_a_restore() -> None:
    config = TrendsConfig(bucket_ms=1000, buckets=100)
    rounds = random_counts(5)
    first, restored = counted(rounds[:15], config), PartitionTrends(config)
    restored.restore(dict(first.flush()))
    for items, times, before, after, pair_times in rounds[15:]:
        restored.count(items, times, (before, after, pair_times))
    assert as_dict(restored.counted()) == reference(rounds)


def test_what_is_counted_between_flush_and_settled_by_another_round_is_not_lost() -> None:
    """A flush is packed and settled without a pause between; what comes after is dirty anew."""
    trends = PartitionTrends(CONFIG)
    met(trends, [1], [0])
    rows = dict(trends.flush())
    trends.settled()
    met(trends, [1, 2], [1, 2])
    rows |= dict(trends.flush())
    restored = PartitionTrends(CONFIG)
    restored.restore(rows)
    assert as_dict(restored.counted()) == {(1, 0, 0): 2, (2, 0, 0): 1}


def test_old_buckets_leave_as_time_goes_on() -> None:
    trends = PartitionTrends(CONFIG)  # 3 buckets
    for when in range(5):
        met(trends, [when + 1], [1000 * when])
    assert {bucket for _, _, bucket in as_dict(trends.counted())} == {2, 3, 4}
    met(trends, [99], [1999])  # too old to be kept
    assert {bucket for _, _, bucket in as_dict(trends.counted())} == {2, 3, 4}
    assert {item for item, _, _ in as_dict(trends.counted())} == {3, 4, 5}
    assert len(dict(trends.flush())) == 3


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_restore_keeps_the_same_buckets_in_any_order(newest_first: bool) -> None:
    rows: dict[bytes, bytes] = {}
    trends = PartitionTrends(CONFIG)
    for when in range(6):
        met(trends, [when + 1], [1000 * when])
        rows |= dict(trends.flush())
        trends.settled()
    restored = PartitionTrends(CONFIG)
    for key in sorted(rows, reverse=newest_first):
        restored.restore({key: rows[key]})
    assert as_dict(restored.counted()) == as_dict(trends.counted())


def test_a_row_of_another_version_is_refused() -> None:
    trends = PartitionTrends(CONFIG)
    with pytest.raises(ValueError, match="version 9"):
        trends.restore({msgpack.packb((1, 0)) or b"": msgpack.packb((9, b"", b"")) or b""})


def test_partitions_are_summed_and_counted_apart() -> None:
    trends = Trends(TrendsConfig(bucket_ms=1000, buckets=100))
    parts = [random_counts(seed) for seed in range(3)]
    for partition, rounds in enumerate(parts):
        for items, times, before, after, pair_times in rounds:
            trends[partition].count(items, times, (before, after, pair_times))
    assert as_dict(trends.counted()) == reference([r for rounds in parts for r in rounds])
    trends.drop(1)
    assert as_dict(trends.counted()) == reference(parts[0] + parts[2])
    trends[1].restore(dict(counted(parts[1], trends.config).flush()))  # as a follower does
    assert as_dict(trends.counted()) == reference([r for rounds in parts for r in rounds])


def test_nothing_counted_is_no_rows() -> None:
    assert as_dict(Trends(CONFIG).counted()) == {} == as_dict(PartitionTrends(CONFIG).counted())


def test_the_version_tells_that_counts_have_changed() -> None:
    trends = Trends(CONFIG)
    before = trends.version
    trends.changed()
    assert trends.version != before
