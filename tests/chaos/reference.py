"""The known answer: each user's row and the trends, straight from the records, by the definitions and slowly.

Nothing of `stream` computes here. A row keeps what the definition can still ask for, so memory does not grow with the
length of a run.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgpack
import numpy as np

from model.history import ACTION_CODE, ACTION_NAME, ACTION_WEIGHT, item_hash

HISTORY = 128
PAIR_STEPS = 20
BUCKET_MS = 7 * 86_400_000
_INTERACTION = np.dtype([("item", "<u8"), ("time", "<i8"), ("weight", "<f4"), ("action", "u1")])

Pair = tuple[int, int, int]
"""(item before or the item, item after or 0, bucket)."""


@dataclass(slots=True)
class Row:
    """One user: the newest interactions as (time, action, item), those that fell off, the last offset by topic."""

    kept: list[tuple[int, int, int]] = field(default_factory=list)
    beyond: set[int] = field(default_factory=set)
    applied: dict[str, int] = field(default_factory=dict)
    ever: set[tuple[int, int, int]] = field(default_factory=set)
    repeated: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, time: int, action: int, item: int) -> list[int] | None:
        """Items met before, newest last; None where the interaction was there before."""
        key = (time, action, item)
        if key in self.ever:
            self.repeated.append(key)
        self.ever.add(key)
        at = bisect.bisect_left(self.kept, key)
        if at < len(self.kept) and self.kept[at] == key:
            return None
        before = [met for _, _, met in self.kept[max(0, at - PAIR_STEPS) : at]]
        self.kept.insert(at, key)
        if len(self.kept) > HISTORY:
            self.beyond.add(self.kept.pop(0)[2] & 0xFFFFFFFF)
        return before

    @property
    def unsure(self) -> Iterator[Pair]:
        """What may be counted once more or less for each repeat: a repeat counts nothing while the history holds the
        first, and whether a history that overflowed did so depends on which topic was read first.
        """
        return ((item, 0, time // BUCKET_MS) for time, _, item in (self.repeated if self.beyond else ()))

    def differs(self, packed: bytes | None) -> str:
        """How a changelog's row differs from this one; empty where it does not."""
        if packed is None:
            return "there is no row"
        _, applied, interactions, seen = msgpack.unpackb(packed)
        if applied != self.applied:
            return f"applied is {applied}, not {self.applied}"
        got = np.frombuffer(interactions, _INTERACTION)
        found = list(zip(got["time"].tolist(), got["action"].tolist(), got["item"].tolist(), strict=True))
        if found != self.kept:
            return (
                f"{len(set(self.kept) - set(found))} interactions are missing, {len(set(found) - set(self.kept))} new"
            )
        if got["weight"].tolist() != [ACTION_WEIGHT[ACTION_NAME[action]] for _, action, _ in self.kept]:
            return "weights differ"
        if np.frombuffer(seen, np.uint32).tolist() != sorted(self.beyond):
            return "the items beyond the history differ"
        return ""


class Reference:
    """Rows of the users who may still act, and trends of all."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.trends: Counter[Pair] = Counter()
        self.events = 0
        self._unsure: Counter[Pair] = Counter()

    def add(self, topic: str, action: str, offset: int, user: str, item: str, ts: int) -> None:
        """Take in an event, in the order of its partition."""
        self.events += 1
        row = self.rows.setdefault(user, Row())
        row.applied[topic] = max(offset, row.applied.get(topic, -1))
        hashed, bucket = item_hash(item), ts // BUCKET_MS
        before = row.add(ts, ACTION_CODE[action], hashed)
        if before is None:
            return
        self.trends[hashed, 0, bucket] += 1
        if item.startswith("o"):
            for met in set(before) - {hashed}:
                self.trends[met, hashed, bucket] += 1

    @property
    def unsure(self) -> Counter[Pair]:
        """By how much a count may differ from `trends`, either way."""
        return self._unsure + Counter(pair for row in self.rows.values() for pair in row.unsure)

    def forget(self, kept: set[str]) -> None:
        """Users who will not act again but these."""
        self._unsure.update(pair for user, row in self.rows.items() if user not in kept for pair in row.unsure)
        self.rows = {user: row for user, row in self.rows.items() if user in kept}
