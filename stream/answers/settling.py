"""Waiting, bounded, until everyone who was touched is answered: what a stop and a rebalance ask for."""

from __future__ import annotations

import asyncio
import logging

from stream.answers.progress import Progress

log = logging.getLogger(__name__)


class Settling:
    """Progress, and the end of it."""

    def __init__(self, progress: Progress, timeout_s: float) -> None:
        self.progress = progress
        self._settle_timeout_s = timeout_s
        self._answered = asyncio.Event()

    def answered(self, ticket: int, n: int = 1) -> None:
        """n users, or dead letters, of a ticket are done with."""
        self.progress.done(ticket, n)
        if self.progress.settled:
            self._answered.set()

    async def settle(self) -> None:
        try:
            await asyncio.wait_for(self._all_answered(), self._settle_timeout_s)
        except TimeoutError:
            log.warning("%d users were still unanswered; they will be answered again", self.progress.waiting)

    async def _all_answered(self) -> None:
        while not self.progress.settled:
            self._answered.clear()
            await self._answered.wait()
