"""Results of legs as one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.chaos.legs import added
from tests.chaos.report import Result


def test_counts_add_up_and_waits_are_the_longest() -> None:
    a = Result(1, minutes=5, rounds=3, faults=Counter({"worker killed": 2}), events=10, longest_unanswered_s=7.0)
    b = Result(2, minutes=4, rounds=1, faults=Counter({"worker killed": 1, "flood": 1}), events=5, disk="in memory")
    b.wrong["lost"] = 3
    both = added(a, b)
    assert (both.seed, both.minutes, both.rounds, both.events, both.longest_unanswered_s) == (1, 9, 4, 15, 7.0)
    assert (both.faults, both.wrong, both.disk) == ({"worker killed": 3, "flood": 1}, {"lost": 3}, "in memory")


def test_a_result_is_read_as_it_was_kept(tmp_path: Path) -> None:
    kept = Result(4, rounds=2, faults=Counter({"broker killed": 1}), by_itself=["worker 1 ended with code 4: gone"])
    kept.write(tmp_path / "result.json")
    assert Result.read(tmp_path / "result.json") == kept


def test_the_page_tells_alike_ends_once() -> None:
    result = Result(1, by_itself=["worker 1 ended with code 4: gone", "worker 2 ended with code 4: gone"])
    assert "- 2 times: with code 4: gone" in result.page("make chaos")
