"""When to speak: whether, how often and to whom lists go out, as far as that is a rule.

Pure decisions over what they are told, time included. Who waits or is owed a list is in
`stream.answers.progress`, how a silence ends in `stream.answers.debts`; what a list contains is the engine's affair.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.history import ACTION_CODE, weight_table

if TYPE_CHECKING:
    from faust.types import TP

    from stream.answers.progress import Waiting

REMEMBERED = 200_000
"""Users whose last list is remembered for `only_if_changed`: 40 MB at most; beyond them those who had theirs longest
ago are forgotten, and get an equal list once more."""

Key = tuple[int, str]
"""A user: partition and name."""


class EmitConfig(BaseModel):
    """When lists are sent, and what is said in them. The state takes in every event whatever is set here."""

    model_config = ConfigDict(extra="forbid")

    on: list[str] | None = Field(default=None, min_length=1, description="actions that cause a list; default: all")
    min_interval_ms: int = Field(
        default=0,
        ge=0,
        description="a user gets at most one list so often; the newest state is answered when it is over",
    )
    only_if_changed: bool = Field(
        default=False, description="a list with the items and order of the user's last one is not sent"
    )
    reasons: bool = Field(default=True, description="whether lists say why")
    max_lag: int | None = Field(
        default=None,
        ge=1,
        description="while a partition is further behind than so many events, state advances in silence; "
        "then each touched user gets one list",
    )

    @field_validator("on", mode="before")
    @classmethod
    def _from_text(cls, on: object) -> object:
        """`click,buy`, as the environment has it."""
        return [name.strip() for name in on.split(",")] if isinstance(on, str) else on

    @field_validator("on")
    @classmethod
    def _known_actions(cls, on: list[str] | None) -> list[str] | None:
        weight_table(dict.fromkeys(on or [], 1.0))  # refuses unknown actions
        return on

    def speaks_on(self, action: str) -> bool:
        """Whether an event of this action causes a list."""
        return self.on is None or ACTION_CODE[action] in {ACTION_CODE[name] for name in self.on}

    def speaking(self, actions: Sequence[str]) -> bool | np.ndarray:
        """Whether events of these actions cause a list: all, none, or bool[256] by action where some do."""
        said = [self.speaks_on(action) for action in actions]
        if all(said) or not any(said):
            return all(said)
        return np.isin(np.arange(256), [ACTION_CODE[one] for one, speaks in zip(actions, said, strict=True) if speaks])


class Silence:
    """In which partitions state advances without lists: in all of them where emission is paused, or not yet known not
    to be, and in those that are too far behind.

    A partition is behind by the sum over its topics. It is so from more than `max_lag` on, and no more at half of it,
    so that one on the edge does not change with every batch.
    """

    def __init__(self, topics: Iterable[str], max_lag: int | None) -> None:
        self._topics = set(topics)
        self.max_lag = max_lag
        self.paused: bool | None = None
        self._behind: set[int] = set()
        self._lags: dict[int, dict[str, int]] = {}

    def measured(self, tp: TP, lag: int) -> None:
        """So many offsets of this topic partition are still to be applied."""
        if self.max_lag is None:
            return
        lags = self._lags.setdefault(tp.partition, {})
        lags[tp.topic] = lag
        total = sum(lags.values())
        if total > self.max_lag:
            self._behind.add(tp.partition)
        elif total <= self.max_lag // 2:
            self._behind.discard(tp.partition)

    def silent(self, partition: int) -> bool:
        """Where lag matters, also until it has been measured in every topic: after a restart in the middle of a backlog
        nothing is known.
        """
        known = self.max_lag is None or self._topics <= self._lags.get(partition, {}).keys()
        return self.paused is not False or not known or partition in self._behind

    def forget(self) -> None:
        """Partitions were assigned anew: how far behind they are is not known."""
        self._lags.clear()
        self._behind.clear()


class Pace:
    """At most one list per user in an interval. Those who come too early are kept until it is over.

    Memory: the users who had a list within the interval. It is this worker's: one that takes a partition over answers
    who is owed a list at once.
    """

    def __init__(self, interval_s: float) -> None:
        self._interval = interval_s
        self.hurried = False  # nobody is too early then: a silence is to begin, and nobody owed a list in it
        self._last: OrderedDict[Key, float] = OrderedDict()
        self._deferred: dict[Key, Waiting] = {}
        self._due: list[tuple[float, Key]] = []

    def early(self, key: Key, now: float) -> bool:
        """Whether the user had a list less than an interval ago."""
        last = self._last.get(key)
        return not self.hurried and last is not None and now < last + self._interval

    def defer(self, w: Waiting, one: Callable[[Waiting, Waiting], Waiting]) -> None:
        """Keep a user who came too early; `one` makes one of two, where the user is kept already."""
        earlier = self._deferred.get(w.key)
        if earlier is None:
            heapq.heappush(self._due, (self._last[w.key] + self._interval, w.key))
            self._deferred[w.key] = w
        else:
            self._deferred[w.key] = one(earlier, w)

    def due(self, now: float) -> list[Waiting]:
        """Those whose interval is over, soonest first; they are kept no more."""
        out: list[Waiting] = []
        while self._due and (self.hurried or self._due[0][0] <= now):
            out.append(self._deferred.pop(heapq.heappop(self._due)[1]))
        return out

    def next_in(self, now: float) -> float | None:
        """Seconds until someone is due; None where nobody is kept."""
        if not self._due:
            return None
        return 0.0 if self.hurried else max(0.0, self._due[0][0] - now)

    def spoke(self, keys: Iterable[Key], now: float) -> None:
        """These users are being answered."""
        if not self._interval:
            return
        for key in keys:
            self._last[key] = now
            self._last.move_to_end(key)
        while self._last and next(iter(self._last.values())) + self._interval <= now:
            self._last.popitem(last=False)

    def failed(self, keys: Iterable[Key]) -> None:
        """They were not, after all."""
        for key in keys:
            self._last.pop(key, None)

    @property
    def deferred(self) -> int:
        return len(self._deferred)


class Changes:
    """Which list each user had last, as a number of 64 bits. A list counts when it is acknowledged; while one is under
    way, which one is the last is not known, and nothing is held back.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._last: OrderedDict[Key, int] = OrderedDict()
        self._under_way: dict[Key, int] = {}
        self._sent = 0

    def unchanged(self, key: Key, items: Sequence[str]) -> bool:
        return key not in self._under_way and self._last.get(key) == hash(tuple(items))

    def sent(self, key: Key) -> int:
        """A list is under way; returns the number by which `acknowledged` or `failed` is to be told of it."""
        self._last.pop(key, None)
        self._sent += 1
        self._under_way[key] = self._sent
        return self._sent

    def acknowledged(self, key: Key, number: int, items: Sequence[str]) -> None:
        if self._under_way.get(key) != number:  # a newer one is under way, or the user is another worker's by now
            return
        del self._under_way[key]
        self._last[key] = hash(tuple(items))
        while len(self._last) > self._remembered:
            self._last.popitem(last=False)

    def failed(self, key: Key, number: int) -> None:
        if self._under_way.get(key) == number:
            del self._under_way[key]

    def forget(self) -> None:
        """Partitions were assigned anew: others may have spoken to our users meanwhile."""
        self._last.clear()
        self._under_way.clear()
