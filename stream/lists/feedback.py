"""What came of lists, from the `feedback` topic, as far back as it matters; whoever makes lists reads all of it.

Not what follows from it (`model.fatigue`, `model.feedback`). A record is a `messages.Feedback`, keyed by its user. Of
each user the newest outcomes are kept, in rings of numpy columns; nothing is written, since a start reads the topic
again from where it still matters. So it is no part of a user's state: ids, `applied` and commits know nothing of it,
and a redelivered list, of the same id, may be shaped by what came of others meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Any

import msgspec
import numpy as np
from aiokafka import TopicPartition

from model.fatigue import OUTCOME_CODE, Outcomes
from model.history import item_hash
from stream.messages import Feedback
from stream.windows.blocks import grown, runs
from stream.windows.columns import by_group, rank_in_run
from stream.windows.users import Users

log = logging.getLogger(__name__)

KEPT = 64
"""Outcomes of a user."""
MOST = 500_000
"""Users; beyond them those of whom nothing came for longest are forgotten, half of all at a time."""


class Reactions:
    """Outcomes by user. `of` may be called from another thread than `on_feedback`; it copies."""

    def __init__(self, most: int = MOST) -> None:
        self._names, self._most = Users(), most
        self._items = np.zeros((0, KEPT), np.uint64)
        self._times = np.zeros((0, KEPT), np.int64)
        self._codes = np.zeros((0, KEPT), np.uint8)
        self._count, self._newest = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._rows = 0
        self._free: list[int] = []
        self._decode = msgspec.json.Decoder(Feedback).decode
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._names)

    def on_feedback(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Take in records, in their order; the same outcome of an item at the same time counts once."""
        users: list[str] = []
        found: list[tuple[int, int, int]] = []
        for record in records:
            try:
                said = self._decode(record.value or b"")
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                log.error("%s at offset %d is no feedback and is ignored: %r", tp.topic, record.offset, error)
                continue
            if said.item is None:  # of a list as a whole: no item is the worse for it
                continue
            users.append(said.user)
            at = record.timestamp if said.ts is None else said.ts
            found.append((item_hash(said.item), at, OUTCOME_CODE[said.outcome]))
        if users:
            items, times, codes = zip(*found, strict=True)
            with self._lock:
                self._put(users, np.array(items, np.uint64), np.array(times, np.int64), np.array(codes, np.uint8))

    def of(self, users: Sequence[str]) -> Outcomes | None:
        """What came of these users' lists, in this order; None where it is nothing."""
        with self._lock:
            rows = self._names.find(0, users)
            there = (rows >= 0)[:, None]
            if not there.any():
                return None
            return Outcomes(self._items[rows], self._times[rows], np.where(there, self._codes[rows], np.uint8(0)))

    def _put(self, users: list[str], items: np.ndarray, times: np.ndarray, codes: np.ndarray) -> None:
        rows = self._rows_of(users)
        order = by_group(rows)
        rows, items, times, codes = rows[order], items[order], times[order], codes[order]
        # a round has one outcome of a user, so that a repeat of it is seen in the next
        rank = rank_in_run(rows)
        for turn in range(int(rank.max()) + 1):
            at = np.flatnonzero(rank == turn)
            row = rows[at]
            same = (self._items[row] == items[at, None]) & (self._times[row] == times[at, None])
            at = at[~(same & (self._codes[row] == codes[at, None])).any(1)]
            row = rows[at]
            place = self._count[row] % KEPT
            self._items[row, place], self._times[row, place] = items[at], times[at]
            self._codes[row, place] = codes[at]
            self._count[row] += 1
        start, _ = runs(rows)
        self._newest[rows[start]] = np.maximum(self._newest[rows[start]], np.maximum.reduceat(times, start))
        if len(self._names) > self._most:
            self._forget()

    def _rows_of(self, users: list[str]) -> np.ndarray:
        names = list(dict.fromkeys(users))
        known = self._names.find(0, names)
        new = [name for name, row in zip(names, known.tolist(), strict=True) if row < 0]
        if new:
            fresh = [self._free.pop() for _ in range(min(len(new), len(self._free)))]
            fresh += range(self._rows, self._rows + len(new) - len(fresh))
            self._reserve(max(fresh) + 1)
            at = np.array(fresh, np.int64)
            self._codes[at], self._count[at], self._newest[at] = 0, 0, 0
            self._names.add(0, at, new)
        return self._names.find(0, users)

    def _reserve(self, rows: int) -> None:
        self._rows = max(self._rows, rows)
        self._names.reserve(self._rows)
        self._items, self._times, self._codes = (
            grown(column, self._rows) for column in (self._items, self._times, self._codes)
        )
        self._count, self._newest = grown(self._count, self._rows), grown(self._newest, self._rows)

    def _forget(self) -> None:
        held = np.flatnonzero(self._count[: self._rows])
        oldest = held[np.argsort(self._newest[held], kind="stable")[: len(held) // 2]]
        self._names.remove(oldest)
        self._count[oldest] = 0
        self._free += oldest.tolist()
