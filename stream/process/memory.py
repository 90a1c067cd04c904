"""Memory that was freed goes back to the system.

A flush of many rows, or a restore, takes as much memory for a moment as what it writes or reads. C's allocator
keeps it for later, by hundreds of megabytes; here it is told to let go. What is in memory is not known here.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable

EVERY_S = 5.0
AFTER_BYTES = 64 << 20
"""It costs milliseconds, and the pages are taken anew: not worth it for less, nor more often, while there is work."""


def give_back() -> None:
    """Let go of what is free. Python first looks for cycles, and empties its own lists of free objects; then C's
    allocator lets go, where that is glibc's. Milliseconds, where most of what stays is frozen (`gc.freeze`).
    """
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return


class Spent:
    """Tells when enough has been used and freed."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._bytes = 0
        self._last = now()

    def add(self, n: int) -> bool:
        """n bytes more have been used and freed; whether it is time to give back. With 0 there is nothing to do, and
        whatever was used since is given back.
        """
        self._bytes += n
        if self._bytes < (AFTER_BYTES if n else 1) or self._now() - self._last < EVERY_S:
            return False
        self._bytes, self._last = 0, self._now()
        return True
