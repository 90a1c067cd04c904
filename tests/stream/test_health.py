"""Liveness by hand: which samples of lag and commits mean that a partition stands still."""

from __future__ import annotations

from faust.types import TP

from stream.process.health import Sample, Watch

CLICK, VIEW = TP("click", 0), TP("view", 0)


def stalled(watch: Watch, *samples: tuple[float, int, int]) -> dict[TP, float]:
    """What is said after samples (time, committed, end) of one partition."""
    found: dict[TP, float] = {}
    for now, committed, end in samples:
        found = watch.stalled(now, {CLICK: Sample(committed, end)})
    return found


def test_commits_that_stand_still_while_lag_grows_are_a_stall() -> None:
    watch = Watch(60.0)
    assert stalled(watch, (0, 10, 10), (30, 10, 20), (59, 10, 30)) == {}
    assert stalled(watch, (60, 10, 31)) == {CLICK: 60.0}
    assert stalled(watch, (90, 10, 31)) == {CLICK: 90.0}


def test_an_idle_partition_is_well_and_so_is_one_that_ends_with_markers() -> None:
    assert stalled(Watch(60.0), (0, 10, 10), (1000, 10, 10)) == {}
    assert stalled(Watch(60.0), (0, 10, 11), (1000, 10, 11)) == {}


def test_one_that_falls_behind_and_commits_is_well() -> None:
    assert stalled(Watch(60.0), (0, 10, 100), (50, 11, 200), (100, 12, 300), (150, 13, 400)) == {}


def test_a_commit_begins_the_time_anew() -> None:
    watch = Watch(60.0)
    assert stalled(watch, (0, 10, 20), (60, 10, 30)) == {CLICK: 60.0}
    assert stalled(watch, (61, 11, 30)) == {}
    assert stalled(watch, (120, 11, 40)) == {}
    assert stalled(watch, (121, 11, 40)) == {CLICK: 60.0}


def test_lag_is_judged_from_the_last_commit_on() -> None:
    assert stalled(Watch(60.0), (0, 10, 50), (10, 10, 30), (80, 10, 30)) == {}, "the log was cut, and did not grow"


def test_each_partition_is_judged_by_itself_and_anew_when_it_comes_back() -> None:
    watch = Watch(60.0)
    watch.stalled(0, {CLICK: Sample(5, 5), VIEW: Sample(5, 5)})
    assert watch.stalled(60, {CLICK: Sample(5, 9), VIEW: Sample(9, 9)}) == {CLICK: 60}
    assert watch.stalled(61, {VIEW: Sample(9, 9)}) == {}
    assert watch.stalled(62, {CLICK: Sample(5, 10), VIEW: Sample(9, 9)}) == {}
    assert watch.stalled(121, {CLICK: Sample(5, 12), VIEW: Sample(9, 9)}) == {}
    assert watch.stalled(122, {CLICK: Sample(5, 12), VIEW: Sample(9, 9)}) == {CLICK: 60}
