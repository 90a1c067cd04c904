"""What the benches' figures rest on: which work is counted, and against which time."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.bench import common
from tests.bench.common import Measured, Worker


class Watched(Worker):
    """A worker that uses a CPU-second a look and has done what it is told to."""

    def __init__(self, done: list[int]) -> None:
        self.done = done
        self.used = 0.0

    def cpu(self) -> float:
        self.used += 1.0
        return self.used

    def check(self) -> None: ...

    def draw(self) -> None: ...

    async def progress(self) -> int:
        return self.done.pop(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(common, "LOOK_S", 0.0)


def test_only_what_was_done_between_a_tenth_and_the_end_counts():
    worker = Watched([0, 9, 12, 60, 60, 103])
    got = asyncio.run(common.watch(worker, worker.progress, 100))
    assert got.done == 103 - 12
    assert got.cpu == 3.0  # the looks after the one that saw 12
    assert got.elapsed > 0


def test_a_worker_that_is_done_before_it_can_be_watched_has_no_figure():
    worker = Watched([0, 70, 100])
    with pytest.raises(SystemExit, match="more events"):
        asyncio.run(common.watch(worker, worker.progress, 100))


def test_a_worker_that_stands_still_ends_the_bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(common, "STALLED_S", 0.05)
    worker = Worker([sys.executable, "-c", "import time; time.sleep(60)"], {}, tmp_path / "log", None)
    try:
        with pytest.raises(SystemExit, match="5 of 100"):
            asyncio.run(common.watch_file(worker, written(tmp_path / "progress", "5"), 100))
    finally:
        worker.kill()


def test_a_worker_that_ends_ends_the_bench_with_what_it_said(tmp_path: Path):
    worker = Worker([sys.executable, "-c", "raise SystemExit('no broker here')"], {}, tmp_path / "log", None)
    with pytest.raises(SystemExit, match="no broker here"):
        asyncio.run(common.watch_file(worker, tmp_path / "progress", 100))


def test_the_cpu_time_of_a_process_that_a_worker_started_is_the_workers(tmp_path: Path):
    spin = "import time\nwhile time.process_time() < 0.3: pass"
    both = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {spin!r}]); print('done', flush=True)"
    worker = Worker([sys.executable, "-c", f"{both}; time.sleep(60)"], {}, tmp_path / "log", None)
    try:
        while "done" not in worker.tail():
            worker.check()
        assert worker.cpu() >= 0.3
    finally:
        worker.kill()


def test_rates_are_of_what_was_done():
    assert (Measured(90, 3.0, 2.0).rate, Measured(90, 3.0, 2.0).cpu_rate) == (45.0, 30.0)


def test_rounds_are_interleaved_and_a_figure_is_their_median():
    order: list[tuple[str, int]] = []

    def one(name: str, number: int) -> Measured:
        order.append((name, number))
        return Measured(10 * (1 + number), 1.0, 2.0)

    rate, cpu = common.rates(common.rounds(3, ["a", "b"], one, "events"))
    assert order == [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert common.as_keys(rate, cpu) == {"a": 10, "b": 10, "cpu_a": 20, "cpu_b": 20}


def test_the_second_of_zipfs_users_is_met_half_as_often_as_the_first():
    counts = np.bincount(common.zipf(200_000, 1000, 1), minlength=1000)
    assert counts[0] / counts[1] == pytest.approx(2, rel=0.05)
    assert len(counts) == 1000


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
