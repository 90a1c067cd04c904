"""Who leaves is decided by events alone, and nobody leaves whose events may be read again."""

from __future__ import annotations

import numpy as np
import pytest

from stream.windows import leaving, window
from stream.windows.columns import Columns
from stream.windows.leaving import Leaving
from stream.windows.packing import digest, pack, unpack
from tests.stream.test_window import TOPICS, events

TTL, LATE = 1000, 100
NOTHING_COMMITTED, ALL_COMMITTED = np.zeros(2, np.int64), np.full(2, 10**9)


def columns_of(rows: list[tuple[str, int, int, int]], size: int = 1000) -> Columns:
    columns = Columns(TOPICS, ttl_ms=TTL, lateness_ms=LATE)
    for start in range(0, len(rows), size):
        window.apply(columns, 0, 0, events(rows[start : start + size], start))
    columns.dirty[:] = False
    return columns


def let_go(columns: Columns, leaves: Leaving, committed: np.ndarray = ALL_COMMITTED) -> list[str]:
    rows = leaves.pick(columns, 0, committed)
    names = [name.decode() for name in columns.encoded(rows)]
    columns.drop(rows)
    return sorted(names)


def test_users_idle_beyond_ttl_and_lateness_leave() -> None:
    columns = columns_of([("a", 5000, 1, 1), ("b", 5001, 1, 1), ("now", 5000 + TTL + LATE + 1, 1, 1)])
    leaves = Leaving(None)
    assert let_go(columns, leaves) == ["a"]
    assert leaves.idle == 1 and len(columns) == 2
    assert let_go(columns, leaves) == []


def test_nobody_leaves_whose_events_may_be_read_again() -> None:
    """Offsets 0 and 1 are those of `a`, which would count twice if the row had gone and they were read again."""
    columns = columns_of([("a", 5000, 1, 1), ("a", 5001, 1, 2), ("now", 9000, 1, 1)])
    leaves = Leaving(None)
    for committed, expected in ((0, []), (1, []), (2, ["a"])):
        assert let_go(columns, leaves, np.array([committed, 0])) == expected
    columns = columns_of([("a", 5000, 1, 1), ("now", 9000, 1, 1)])
    columns.dirty[:] = True
    assert let_go(columns, leaves) == []


def test_a_watermark_is_its_partitions_own_and_comes_back_with_the_rows() -> None:
    columns = columns_of([("a", 5000, 1, 1)])
    window.apply(columns, 1, 0, events([("now", 9000, 1, 1)]))
    assert let_go(columns, Leaving(None)) == []
    window.apply(columns, 0, 0, events([("now", 9000, 1, 1)], 10))
    restored = Columns(TOPICS, ttl_ms=TTL, lateness_ms=LATE)
    unpack(restored, 0, dict(pack(columns, columns.of(0))))
    assert let_go(restored, Leaving(None)) == ["a"]


def test_few_leave_at_a_time_and_all_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving, "AT_ONCE", 7)
    monkeypatch.setattr(leaving, "SWEPT", 10)
    columns = columns_of([(f"u{n}", 5000 + n % 3, 1, 1) for n in range(50)] + [("now", 9000, 1, 1)])
    leaves, gone = Leaving(None), []
    for _ in range(20):
        some = let_go(columns, leaves)
        assert len(some) <= 7
        gone += some
    assert len(gone) == 50 == leaves.idle and list(columns.users[0]) == ["now"]


def test_who_should_have_left_counts_as_gone() -> None:
    rows = [("a", 5000, 1, 1), ("b", 6000, 1, 1), ("now", 6500, 1, 1)]
    lived, replayed = columns_of(rows), columns_of(rows)
    assert let_go(lived, Leaving(None)) == ["a"]
    assert digest(lived) == digest(replayed)
    assert len(replayed) == 3


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_who_comes_back_begins_anew_whether_or_not_the_row_had_left(size: int) -> None:
    """Live, rows leave between batches; in a replay all may come in one."""
    rng = np.random.default_rng(3)
    time, rows = 5000, []
    for _ in range(400):
        time += int(rng.choice([10, 300, 900]))
        rows.append((f"u{rng.integers(12)}", time, int(rng.integers(1, 3)), int(rng.integers(1, 50))))
    replayed = columns_of(rows)
    lived, leaves = Columns(TOPICS, ttl_ms=TTL, lateness_ms=LATE), Leaving(None)
    for start in range(0, len(rows), size):
        window.apply(lived, 0, 0, events(rows[start : start + size], start))
        lived.dirty[:] = False
        let_go(lived, leaves)
    assert leaves.idle > 0 and digest(lived) == digest(replayed)
    last = {user: [t for u, t, *_ in rows if u == user] for user, *_ in rows}
    for user, row in lived.users[0].items():
        times = np.array(last[user])
        kept = times[np.flatnonzero(np.r_[True, np.diff(times) > TTL])[-1] :]
        assert lived.read(row)["time"].tolist() == kept.tolist()


def test_a_late_event_from_before_the_pause_is_forgotten_with_what_was_there() -> None:
    columns = columns_of([("a", 9000, 1, 1), ("a", 5000, 1, 2), ("a", 8500, 1, 3)], size=1)
    row = columns.row(0, "a")
    assert row is not None and columns.read(row)["item"].tolist() == [3, 1]


def test_beyond_the_cap_those_idle_longest_leave_and_equals_go_by_name() -> None:
    rows = [(f"u{n}", 5000 + n // 2, 1, 1) for n in (3, 1, 4, 0, 5, 2)]
    columns = Columns(TOPICS)
    for offset, row in enumerate(rows):
        window.apply(columns, 0, 0, events([row], offset))
    columns.dirty[:] = False
    leaves = Leaving(max_users=3)
    assert let_go(columns, leaves, NOTHING_COMMITTED) == []
    assert let_go(columns, leaves) == ["u0", "u1", "u2"]
    assert let_go(columns, leaves) == [] and leaves.beyond_cap == 3 and leaves.idle == 0


def test_a_row_that_was_taken_again_holds_nothing_of_the_one_before() -> None:
    columns = columns_of([("a", 5000 + n, 1, n + 1) for n in range(200)] + [("now", 9000, 1, 1)])
    assert let_go(columns, Leaving(None)) == ["a"]
    window.apply(columns, 0, 0, events([("b", 9001, 1, 7)], 500))
    row = columns.row(0, "b")
    assert row is not None and columns.read(row)["item"].tolist() == [7]
    assert columns.seen(row).tolist() == [] and columns.applied[row].tolist() == [500, -1]
