"""Counters and latencies of one worker, for the log, the live page and the tests. It decides nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from faust.types import TP

SAMPLES = 2048


class Monitor:
    """What a worker has done so far; cheap enough to be told of every batch."""

    def __init__(self) -> None:
        self.events = 0
        self.requests = 0
        self.dead_letters = 0
        self.gone = 0  # offsets that brokers have deleted before they were read
        self.lists = 0
        self.suppressed = 0
        self.releases = 0
        self.profiles = 0
        self.offsets: dict[TP, int] = {}
        self.failures: Counter[str] = Counter()
        self._latency_ms: deque[float] = deque(maxlen=SAMPLES)
        self._stage_ms: dict[str, deque[float]] = {}
        self._marks: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)], maxlen=60)

    def ingested(self, tp: TP, records: int, bad: int, next_offset: int, seconds: float) -> None:
        self.events += records - bad
        self.dead_letters += bad
        self.offsets[tp] = next_offset
        self.stage("ingest", seconds)

    def asked(self, tp: TP, requests: int, bad: int, next_offset: int) -> None:
        self.requests += requests
        self.dead_letters += bad
        self.offsets[tp] = next_offset

    def stage(self, name: str, seconds: float) -> None:
        self._stage_ms.setdefault(name, deque(maxlen=SAMPLES)).append(1000 * seconds)

    def answered(self, latencies_s: list[float]) -> None:
        """Lists acknowledged; each latency runs from the arrival of the trigger's batch."""
        self.lists += len(latencies_s)
        self._latency_ms.extend(1000 * s for s in latencies_s)

    def snapshot(self) -> dict[str, Any]:
        """Totals, rates over the last seconds, and quantiles over the last samples."""
        now = time.monotonic()
        if now - self._marks[-1][0] >= 0.5:
            self._marks.append((now, self.events, self.lists))
        since = next((m for m in self._marks if now - m[0] <= 10.0), self._marks[-1])
        elapsed = max(now - since[0], 1e-3)
        return {
            "events": self.events,
            "requests": self.requests,
            "lists": self.lists,
            "suppressed": self.suppressed,
            "dead_letters": self.dead_letters,
            "gone": self.gone,
            "profiles": self.profiles,
            "releases": self.releases,
            "events_per_s": (self.events - since[1]) / elapsed,
            "lists_per_s": (self.lists - since[2]) / elapsed,
            "p50_ms": _quantile(self._latency_ms, 50),
            "p99_ms": _quantile(self._latency_ms, 99),
            "stages_ms": {name: _quantile(values, 50) for name, values in self._stage_ms.items()},
        }


def _quantile(values: deque[float], percent: float) -> float | None:
    return round(float(np.percentile(np.array(values), percent)), 2) if values else None
