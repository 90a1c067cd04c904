"""Two state versions, row by row: what is equal, what differs, and what only has not read the same yet."""

from __future__ import annotations

import msgpack
import numpy as np

from model.history import ACTION_NAME
from stream.trends import Counted
from stream.verify import differing
from stream.windows.comparing import Compared, Rows, compare
from stream.windows.packing import INTERACTION

READ = {"click": 100, "view": 50}
"""Next offsets that a version has committed."""


def row(applied: dict[str, int], *times: int, item: int = 7) -> bytes:
    interactions = np.array([(item, time, 1.0, 2) for time in times], INTERACTION)
    return msgpack.packb((1, applied, interactions.tobytes(), b""))


def compared(here: Rows, there: Rows, idle_ms: int | None = None, show: int = 9, **read: dict[str, int]) -> Compared:
    """`here` and `there` compared; read_here, read_there: what their versions have committed."""
    found = Compared()
    compare(found, 3, here, dict(there), read.get("read_here", READ), read.get("read_there", READ), idle_ms, show)
    return found


def test_rows_of_equal_bytes_are_equal() -> None:
    rows = {b"a": row({"click": 1}, 10), b"b": row({"view": 4}, 11, 12)}
    found = compared(rows, rows)
    assert (found.equal, found.wrong, found.apart) == (2, 0, 0)


def test_topics_in_another_order_are_no_difference() -> None:
    here, there = row({"click": 1, "view": 2}, 10), row({"view": 2, "click": 1}, 10)
    assert here != there
    assert compared({b"a": here}, {b"a": there}).equal == 1


def test_a_row_that_differs_at_equal_offsets_is_shown_in_full() -> None:
    found = compared({b"a": row({"click": 1}, 10)}, {b"a": row({"click": 1}, 10, item=8)})
    assert found.different == 1
    told = found.differences[0].told()
    assert (told["user"], told["partition"]) == ("a", 3)
    assert told["as"] == {
        "applied": {"click": 1},
        "interactions": [{"item": "0000000000000007", "action": ACTION_NAME[2], "time": 10, "weight": 1.0}],
        "seen": 0,
    }
    assert told["against"]["interactions"][0]["item"] == "0000000000000008"


def test_a_version_that_has_not_read_an_event_yet_is_apart_in_time() -> None:
    here, there = {b"a": row({"click": 120}, 10, 11)}, {b"a": row({"click": 90}, 10)}
    found = compared(here, there, read_here={"click": 121}, read_there={"click": 100})
    assert (found.apart, found.wrong) == (1, 0)


def test_a_version_that_has_read_past_an_event_and_lacks_it_differs() -> None:
    here, there = {b"a": row({"click": 95}, 10, 11)}, {b"a": row({"click": 90}, 10)}
    found = compared(here, there)
    assert (found.apart, found.different) == (0, 1)
    assert "read past it" in found.differences[0].what


def test_a_user_of_one_version_is_missing_in_the_other_once_that_has_read_their_events() -> None:
    rows = {b"a": row({"click": 95}, 10)}
    assert compared(rows, {}).only_here == 1
    assert compared({}, rows).only_there == 1
    assert compared(rows, {}, read_there={"click": 95}).apart == 1
    assert compared(rows, {}, read_there={}).apart == 1


def test_users_idle_for_long_count_as_gone_by_the_clock_of_who_is_further() -> None:
    old, new = row({"click": 1}, 100), row({"click": 5}, 1000)
    found = compared({b"old": old, b"new": new}, {b"new": new}, idle_ms=500)
    assert (found.idle, found.equal, found.wrong) == (1, 1, 0)
    found = compared({b"new": new}, {b"old": old, b"new": new}, idle_ms=500)
    assert (found.idle, found.equal, found.wrong) == (1, 1, 0)
    assert compared({b"old": old, b"new": new}, {b"new": new}, idle_ms=900).only_here == 1


def test_only_the_first_differences_are_kept() -> None:
    here = {f"u{n}".encode(): row({"click": 1}, n + 1) for n in range(10)}
    there = {f"u{n}".encode(): row({"click": 1}, n + 2) for n in range(10)}
    found = compared(here, there, show=3)
    assert (found.different, len(found.differences)) == (10, 3)


def counted(*rows: tuple[int, int, int, int]) -> Counted:
    a, b, bucket, n = (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0, int)] * 4
    return Counted(a.astype(np.uint64), b.astype(np.uint64), bucket.astype(np.int32), n.astype(np.uint32))


def test_counts_are_compared_as_sums() -> None:
    here = counted((1, 2, 0, 3), (1, 0, 0, 5), (1, 2, 0, 1))
    assert differing(here, counted((1, 0, 0, 5), (1, 2, 0, 4))) == (2, 0)
    assert differing(here, counted((1, 0, 0, 5), (1, 2, 0, 5))) == (2, 1)
    assert differing(here, counted((1, 0, 0, 5), (1, 2, 1, 4))) == (3, 2)
    assert differing(counted(), counted()) == (0, 0)
