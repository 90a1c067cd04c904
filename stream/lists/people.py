"""What is known of users beside what they did, from the compacted `users` topic; whoever makes lists has all of it.

Not what follows from it (`model.leaning`, `model.rules`). A record is `{user, attributes?, interests?, hidden?}`, keyed
by its user; a tombstone forgets one. Without a Python object a user: names are in a table of their own, the words of
all users one after the other in an array, where those of a new record stand at the end, until half of it is what was
replaced.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from aiokafka import TopicPartition

from model.history import spans
from model.people import About, Person, Words, words
from stream.windows.blocks import grown
from stream.windows.users import Users

log = logging.getLogger(__name__)

SETS = 3
"""Groups, interests, hidden items, as `words` has them."""
LEAST = 1 << 16
"""Words up to which nothing is moved together."""


class Register:
    """Users by name. `about` may be asked at any time; it copies."""

    def __init__(self) -> None:
        self._names = Users()
        self._words = np.zeros(0, np.uint64)
        self._start = np.zeros(0, np.int64)
        self._sizes = np.zeros((0, SETS), np.int32)  # words of each set of a row
        self._free: list[int] = []
        self._rows = self._end = self._held = 0  # rows ever used, words written, words that are somebody's

    def __len__(self) -> int:
        return len(self._names)

    def on_users(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Take in records; of one user's the last counts."""
        newest = {record.key: record for record in records}
        for key, record in newest.items():
            name = (key or b"").decode(errors="replace")
            if record.value is None:
                self._forget(name)
                continue
            try:
                person = msgspec.json.decode(record.value, type=Person)
                if person.user != name:
                    raise msgspec.ValidationError(f"its key is {name!r} and its user {person.user!r}")
                self._put(name, *words(person))
            except (msgspec.MsgspecError, UnicodeError, ValueError, RecursionError) as error:
                log.error("%s at offset %d is no user and is ignored: %s", tp.topic, record.offset, error)

    def about(self, users: Sequence[str]) -> About | None:
        """What is known of these users, in this order; None where it is nothing."""
        if not len(self):
            return None
        rows = self._names.find(0, users)
        if (rows < 0).all():
            return None
        there = rows >= 0
        sizes = np.where(there[:, None], self._sizes[rows], 0).astype(np.int64)
        firsts = np.where(there, self._start[rows], 0)[:, None] + np.cumsum(sizes, axis=1) - sizes
        return About(*(self._copied(firsts[:, s], sizes[:, s]) for s in range(SETS)))

    def _copied(self, firsts: np.ndarray, sizes: np.ndarray) -> Words:
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return Words(self._words[spans(firsts, sizes)], ends)

    def _put(self, name: str, *sets: np.ndarray) -> None:
        row = self._names.row(0, name)
        if row < 0:
            row = self._free.pop() if self._free else self._rows
            self._reserve(row + 1)
            self._names.add(0, np.array([row]), [name])
        else:
            self._held -= int(self._sizes[row].sum())
        count = sum(map(len, sets))
        self._words = grown(self._words, self._end + count)
        self._words[self._end : self._end + count] = np.concatenate(sets)
        self._start[row], self._sizes[row] = self._end, [len(words) for words in sets]
        self._end += count
        self._held += count
        if self._end > max(2 * self._held, LEAST):
            self._move_together()

    def _reserve(self, rows: int) -> None:
        self._rows = max(self._rows, rows)
        self._names.reserve(self._rows)
        self._start, self._sizes = grown(self._start, self._rows), grown(self._sizes, self._rows)

    def _forget(self, name: str) -> None:
        row = self._names.row(0, name)
        if row >= 0:
            self._names.remove(np.array([row]))
            self._held -= int(self._sizes[row].sum())
            self._sizes[row] = 0
            self._free.append(row)

    def _move_together(self) -> None:
        counts = self._sizes[: self._rows].sum(1, dtype=np.int64)
        at = spans(self._start[: self._rows], counts)
        self._words, self._start[: self._rows], self._end = self._words[at], np.cumsum(counts) - counts, len(at)
