"""Tables whose rows live elsewhere: Faust reads their changelogs at the right time, and we hold what is in them.

What is written to a changelog is `stream.kafka.changelog`'s; what a row means is the caller's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import faust
from faust.stores import memory
from faust.types import AppT

from stream.errors import StateError

log = logging.getLogger(__name__)
SERVICES = logging.getLogger("faust.services")
"""Where Faust's service classes tell of their starts and stops; ours among them."""

Put = Callable[[int, Sequence[Any]], None]
"""Takes in (partition, records) of a changelog, in the order of its log."""


TOLD_EVERY_S = 5.0


@dataclass(slots=True)
class Restoring:
    """How far a restore is, in offsets of changelogs, and when it will be done at the pace that it has had."""

    clock: Callable[[], float] = time.monotonic
    left: int = 0
    total: int = 0
    _began: float = 0.0
    _told: float = 0.0

    def moved(self, left: int) -> bool:
        """So many are left. Whether it is time to tell of it: not of a restore that is short."""
        now = self.clock()
        if left > self.left:
            self.total, self._began, self._told = left, now, now
        self.left = left
        due = left > 0 and now - self._told >= TOLD_EVERY_S
        if due:
            self._told = now
        return due

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left; None before there is a pace."""
        done = self.total - self.left
        return round(self.left * (self.clock() - self._began) / done, 1) if done else None

    def status(self) -> dict[str, Any] | None:
        """As JSON-able values; None while nothing is restored."""
        return {"done": self.total - self.left, "total": self.total, "eta_s": self.eta_s} if self.left else None

    def __str__(self) -> str:
        done, eta = self.total - self.left, self.eta_s
        return f"{done:,} of {self.total:,} changelog offsets, {'?' if eta is None else f'{eta:.0f}'} s left"


def restored(app: AppT, name: str, changelog: str, put: Put, restoring: Restoring) -> None:
    """Declare a table on the app: each batch of its changelog's records is handed to `put` before events are."""
    table = _Restored(
        cast(Any, app),
        name=name,
        key_type=bytes,
        value_type=bytes,
        # Counted in batches, and never 1: Faust would then keep feeding the live table.
        recovery_buffer_size=2,
        changelog_topic=raw_topic(app, changelog),
    )
    table.put, table.restoring = put, restoring
    app.tables.add(table)


def raw_topic(app: AppT, *names: str) -> Any:
    """Topics whose records reach us as bytes, and which Faust neither creates nor acknowledges."""
    return app.topic(
        *names,
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        acks=False,
        internal=False,
        allow_empty=True,
    )


class _Restored(faust.Table):
    """A table that only restores."""

    logger = SERVICES
    put: Put
    restoring: Restoring

    def _new_store(self) -> Any:
        return _RestoreStore("memory://", self.app, self, loop=self.loop)


class _RestoreStore(memory.Store):
    """Hands restored batches on; stops the process where that fails: Faust would log it and go on without the row."""

    logger = SERVICES
    _crashing: asyncio.Future[None] | None = None

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        if self._crashing is not None:  # what stops empties Faust's buffers once more, and must not fail once more
            return
        table = cast(_Restored, self.table)
        try:
            for event in batch:
                table.put(event.message.partition, event.message.value)
        except Exception as error:
            log.critical("the changelog of %s cannot be restored", self.table.name, exc_info=True)
            told = StateError(
                f"the changelog of {self.table.name} cannot be restored: {error}",
                "run the version that wrote it, or build a new state: eddyline backfill --as NAME",
            )
            self._crashing = asyncio.ensure_future(self.app.crash(told))
            raise
        if batch and table.restoring.moved(max(0, cast(Any, self.app.tables).recovery.active_remaining_total())):
            log.info("restoring: %s", table.restoring)
