"""What is wrong, and how long users went unanswered: as counts, so that any number of either takes no room."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, get_args

Kind = Literal[
    "lost",
    "applied_twice",
    "rows_different",
    "users_unanswered",
    "ids_wrong",
    "letters_wrong",
    "offsets_wrong",
    "not_settled",
    "leaks",
    "ended_badly",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
TOLD = 5
"""Of each kind, so many are told in words."""


@dataclass(kw_only=True)
class Findings:
    """What is wrong, counted by kind, with the first of each in words."""

    wrong: Counter[str] = field(default_factory=Counter)
    told: list[str] = field(default_factory=list)

    def add(self, kind: Kind, words: str, n: int = 1) -> None:
        if self.wrong[kind] < TOLD:
            self.told.append(f"{kind}: {words}")
        self.wrong[kind] += n

    def take(self, more: Findings) -> None:
        """Add what was found elsewhere."""
        self.wrong += more.wrong
        self.told += more.told

    def __bool__(self) -> bool:
        return bool(self.wrong)


class Waits:
    """How long users went unanswered, seconds: in steps of a tenth."""

    def __init__(self) -> None:
        self._steps: Counter[int] = Counter()
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self._steps[round(10 * seconds)] += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float:
        left = share * self._steps.total()
        for step in sorted(self._steps):
            left -= self._steps[step]
            if left <= 0:
                return step / 10
        return 0.0
