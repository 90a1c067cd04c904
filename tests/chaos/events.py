"""A stream with a known answer: who acts on what and when, which records are none, all of it from a seed.

What makes the answer known is kept apart by the names of items and users:

- `steady` users keep to one action, and their events are in time order: their trends are exact.
- `mixed` users act in all topics, late, repeated, with clocks that go ahead as far as is allowed: their windows are
  exact, being sets; of their trends only how often an item was met, because topics do not keep time with each other.

Users are new in every round, but a few who return. Nothing here knows Kafka.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from model.catalog import Item

ACTIONS = ("view", "click", "buy")
ITEMS = 60
SKEW_MS = 3_600_000
"""How far an event may lie ahead of its record: `input.max_skew_ms` as it is by default."""
ROUND_MS = 6 * 3_600_000
"""How much of event time a round takes."""
AGO_MS = 150 * 86_400_000
STEP_MS = 37
MOST = 120
"""Events of a user who repeats some: no more than a history holds, so that no repeat counts, whichever topic is read
first. Those who return, and those of a flood, have more, and repeat only by chance or when a producer was replaced.
"""
FLOOD_USERS = 24


def catalogue() -> list[Item]:
    """Items of steady users (`o…`) and of mixed ones (`m…`)."""
    moods, things = ("quiet", "stormy", "golden", "hidden"), ("river", "harbour", "bridge", "mill", "weir")
    return [
        Item(f"{kind}{n}", f"{moods[n % 4]} {things[n % 5]} {n}", categories=[moods[n % 4], things[n % 5]])
        for kind in "om"
        for n in range(ITEMS)
    ]


@dataclass(slots=True)
class Record:
    """One record as it is to be published; `good`: it is an event."""

    action: str
    user: str
    value: bytes
    stamp: int
    good: bool = True


@dataclass(slots=True)
class User:
    """One who acts. `action` None: in any topic; `ahead` ms that the user's clock goes before everyone's."""

    name: str
    action: str | None
    ahead: int = 0
    repeats: bool = True
    n: int = 0
    last: deque[tuple[str, str, int]] = field(default_factory=lambda: deque(maxlen=8))


class Source:
    """Makes records. Which ones follows from the seed; how many of a round depends on how long it is asked.

    Args:
        now_ms: the wall clock when the run began; event times begin long before it.
    """

    def __init__(self, seed: int, now_ms: int, users: int = 400) -> None:
        self._rng = np.random.default_rng(seed)
        self._start = now_ms - AGO_MS
        self._users = users
        self._step = 0
        self._round = 0
        self._crowd: list[User] = []
        self._weights = np.ones(1)
        self._returning = [
            User(f"returning-{n}", ACTIONS[n % 3] if n % 2 else None, repeats=False) for n in range(users // 8)
        ]
        self._floods = 0
        self.begin(0)

    @property
    def returning(self) -> set[str]:
        """Users who are there in every round."""
        return {user.name for user in self._returning}

    def begin(self, number: int) -> None:
        """New users, and a time of its own."""
        self._round, self._step = number, 0
        new = [User(f"r{number}-{n}", ACTIONS[n % 3] if n % 2 else None) for n in range(self._users)]
        for user in (user for user in new if user.action is None and self._rng.random() < 0.1):
            user.ahead = int(self._rng.integers(AGO_MS, AGO_MS + SKEW_MS * 3 // 4))
        self._crowd = [*new, *self._returning]
        some = self._rng.permutation(len(self._crowd))
        self._weights = 1 / (1.0 + some) ** 0.6
        self._weights /= self._weights.sum()

    def usual(self, n: int, now_ms: int) -> list[Record]:
        """n records of everybody, a few of them none."""
        out: list[Record] = []
        for chosen in self._rng.choice(len(self._crowd), n, p=self._weights).tolist():
            user = self._crowd[chosen]
            if user.repeats and user.n >= MOST:
                user = self._returning[chosen % len(self._returning)]
            if self._rng.random() < 0.06 and user.repeats and user.last:
                action, item, ts = user.last[-1 if user.action else int(self._rng.integers(len(user.last)))]
                out.append(_record(action, user.name, item, ts, now_ms))
            elif self._rng.random() < 0.004:
                out.append(Record(ACTIONS[chosen % 3], user.name, b'{"user": "' + user.name.encode(), now_ms, False))
            else:
                out.append(self._event(user, now_ms))
        return out

    def flood(self, n: int, now_ms: int) -> list[Record]:
        """n events of few users, far more than a history holds."""
        self._floods += 1
        few = [
            User(f"r{self._round}-flood{self._floods}-{n}", ACTIONS[n % 3] if n % 2 else None)
            for n in range(FLOOD_USERS)
        ]
        return [self._event(few[i], now_ms) for i in self._rng.integers(len(few), size=n).tolist()]

    def ahead(self, n: int, now_ms: int) -> list[Record]:
        """n records of a clock that is wrong: events too far ahead of their records, which are none."""
        out: list[Record] = []
        for chosen in self._rng.integers(len(self._crowd), size=n).tolist():
            user = self._crowd[chosen]
            ts = now_ms + SKEW_MS + int(self._rng.integers(1, 10 * SKEW_MS))
            out.append(_record(user.action or ACTIONS[chosen % 3], user.name, f"o{chosen % ITEMS}", ts, now_ms, False))
        return out

    def _event(self, user: User, now_ms: int) -> Record:
        self._step += 1
        user.n += 1
        ts = self._start + self._round * ROUND_MS + self._step * STEP_MS
        number = int(self._rng.integers(ITEMS) * self._rng.random())
        if user.action is None:
            action, item = ACTIONS[int(self._rng.integers(3))], f"m{number}"
            # Ahead: as if the event happened when it is recorded, or up to an hour later.
            ts = (
                now_ms + user.ahead - AGO_MS + self._step % 1000
                if user.ahead
                else ts - int(self._rng.integers(120_000) * (self._rng.random() < 0.3))
            )
        else:
            action, item = user.action, f"o{number}"
        user.last.append((action, item, ts))
        return _record(action, user.name, item, ts, now_ms)


def _record(action: str, user: str, item: str, ts: int, now_ms: int, good: bool = True) -> Record:
    return Record(action, user, json.dumps({"user": user, "item": item, "ts": ts}).encode(), now_ms, good)
