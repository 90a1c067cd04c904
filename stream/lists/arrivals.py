"""Which releases are at hand: what was announced is fetched and checked first, and tried again where it cannot be had.

Not how it is fetched (`depot.py`), and not what is built of it (`building.py`), which is told of nothing that did not
arrive whole. Whatever stood under an alias stays at hand until what was announced in its place is, or was taken back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from stream.errors import EddylineError
from stream.lists.depot import Depot
from stream.lists.release import Release

log = logging.getLogger(__name__)

FIRST_S, LAST_S = 1.0, 60.0
"""How long after a failure it is tried again: twice as long each time, up to a minute."""


@dataclass(slots=True)
class _Wanted:
    """A release that is not at hand: how often it was tried, when it is due, and why it could not be had."""

    release: Release
    tries: int = 0
    due: float = 0.0
    reason: str = ""


class Arrivals:
    """What was announced, on its way. changed: called when something else is at hand.

    `settled` is set whenever all that was announced has been tried, once at least.
    """

    def __init__(self, depot: Depot, changed: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self.depot = depot
        self._changed = changed
        self._clock = clock
        self._wanted: dict[str, _Wanted] = {}
        self._new = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "eddyline-fetch")
        self.at_hand: dict[str, Release] = {}
        self.settled = asyncio.Event()
        self.settled.set()

    @property
    def refused(self) -> dict[str, str]:
        """By alias: what was announced and cannot be had, and why."""
        return {alias: told(w.release, w.reason) for alias, w in self._wanted.items() if w.reason}

    def announced(self, alias: str, release: Release | None) -> None:
        """This one is to stand from now on; None: none is."""
        self._wanted.pop(alias, None)
        if release is not None:
            self._wanted[alias] = _Wanted(release)
            self.settled.clear()
            self._new.set()
        elif self.at_hand.pop(alias, None) is not None:
            self._changed()

    async def run(self) -> None:
        """Fetch and check, for ever."""
        while True:
            self._new.clear()
            now = self._clock()
            for alias, wanted in list(self._wanted.items()):
                if wanted.due <= now and self._wanted.get(alias) is wanted:
                    await self._try(alias, wanted)
            if all(w.tries for w in self._wanted.values()):
                self.settled.set()
            due = min((w.due for w in self._wanted.values()), default=None)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new.wait(), None if due is None else max(0.0, due - self._clock()))

    async def _try(self, alias: str, wanted: _Wanted) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.depot.at, wanted.release)
        except (EddylineError, ValueError, OSError) as error:  # not there, damaged, or of another version
            self._failed(wanted, str(error))
            return
        if self._wanted.get(alias) is wanted:  # or another was announced meanwhile
            del self._wanted[alias]
            self.at_hand[alias] = wanted.release
            self._changed()

    def _failed(self, wanted: _Wanted, reason: str) -> None:
        if reason != wanted.reason:
            log.error(
                "release %s is not served, what was served before goes on, and it is tried again: %s",
                *(wanted.release.name, reason),
            )
        wanted.due = self._clock() + min(FIRST_S * 2**wanted.tries, LAST_S)
        wanted.tries, wanted.reason = min(wanted.tries + 1, 16), reason

    def tidy(self) -> None:
        """Let the depot forget what does not stand any more."""
        wanted = [w.release for w in self._wanted.values()]
        standing = {release.sha256 for release in [*self.at_hand.values(), *wanted]}
        self._thread.submit(self.depot.forget_all_but, standing)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def told(release: Release, reason: str) -> str:
    """Why a release is not served, in a line."""
    return f"{release.name}: {' '.join(reason.split())}"
