"""When events are due, how fast they go, and how long it will take: pure, with the clock given."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

TICK_S = 0.05
"""Between two transactions at a set speed: what has become due meanwhile goes together, and not one by one."""


class Pace:
    """Lets history pass `speed` times as fast as it was; None: as fast as it goes.

    The first event that is asked about is due at once, the others by their distance to it.
    """

    def __init__(self, speed: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.speed = speed
        self._now = now
        self._began: tuple[float, int] | None = None

    def due(self, times: NDArray[np.int64], start: int) -> int:
        """Up to which index, from `start` on, events are due; `start` itself where none is. times: i64[n] in ms; one
        that goes back is due with what is before it."""
        if self.speed is None or start >= len(times):
            return len(times)
        if self._began is None:
            self._began = self._now(), int(times[start])
        at, first = self._began
        now = first + (self._now() - at) * 1000 * self.speed
        return start + int(np.searchsorted(np.maximum.accumulate(times[start:]), now, side="right"))

    def wait(self, ts: int) -> float:
        """Seconds until an event of this time is due."""
        if self.speed is None or self._began is None:
            return 0.0
        at, first = self._began
        return max(0.0, at + (ts - first) / 1000 / self.speed - self._now())


class Meter:
    """Events a second over the last `WINDOW_S`, and the time that the rest will take."""

    WINDOW_S = 10.0

    def __init__(self, total: int, speed: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._speed = speed
        self._now = now
        self._seen: deque[tuple[float, int]] = deque([(now(), 0)])

    def add(self, n: int) -> None:
        """n more were published just now."""
        at = self._now()
        self._seen.append((at, self._seen[-1][1] + n))
        while len(self._seen) > 2 and self._seen[1][0] <= at - self.WINDOW_S:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Events a second."""
        (began, before), (at, n) = self._seen[0], self._seen[-1]
        return (n - before) / max(at - began, 1e-3)

    def eta(self, done: int, ts: int | None, last: int | None) -> float | None:
        """Seconds that are left: by the clock of history at a set speed, else by the rate; None while there is none."""
        if self._speed is not None and ts is not None and last is not None:
            return max(0, last - ts) / 1000 / self._speed
        return (self._total - done) / self.rate if self.rate else None
