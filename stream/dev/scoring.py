"""Which of several lists had the item that a user took next: hits, ranks, and a fair baseline. Pure, no Kafka.

An event is scored against the lists that its user had before it. An event without a prior list is a
miss for all, so no list can gain by being late.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from model.dataset import Events
from model.metrics import Interval, bootstrap, gains, hits

DAY_MS = 86_400_000


class Scoreboard:
    """Ranks of what users took, in several named lists on the same events.

    Args:
        names: of the lists that are compared, each with the one before it.
        k: how many items of a list count.
    """

    def __init__(self, names: Sequence[str], k: int = 10) -> None:
        self.names = tuple(names)
        self.k = k
        self._users: list[str] = []
        self._ranks: dict[str, list[float]] = {name: [] for name in names}
        self.without_list = 0

    def __len__(self) -> int:
        return len(self._users)

    def score(self, user: str, item: str, lists: Mapping[str, Sequence[str]] | None) -> None:
        """One event: what the user took, and the lists that were there before it (None: there were none)."""
        self._users.append(user)
        if lists is None:
            self.without_list += 1
        for name in self.names:
            self._ranks[name].append(rank(lists[name], item) if lists is not None else np.inf)

    def table(self, seed: int = 0) -> list[Row]:
        """One row a list, with intervals that resample users; the same users' events are compared pair by pair."""
        if not self._users:
            return []
        _, users = np.unique(self._users, return_inverse=True)
        rows: list[Row] = []
        before: tuple[np.ndarray, np.ndarray] | None = None
        for name in self.names:
            ranks = np.array(self._ranks[name])
            both = hits(ranks, self.k), gains(ranks, self.k)
            over = tuple(bootstrap(users, b - a, seed) for a, b in zip(before, both, strict=True)) if before else ()
            rows.append(Row(name, bootstrap(users, both[0], seed), bootstrap(users, both[1], seed), over))
            before = both
        return rows


@dataclass(frozen=True, slots=True)
class Row:
    """HR@k and NDCG@k of one list; `over`: by how much both exceed those of the row before (nothing: the first row)."""

    name: str
    hr: Interval
    ndcg: Interval
    over: tuple[Interval, ...]


def rank(items: Sequence[str], taken: str) -> float:
    """Place of an item in a list, from 1; infinity where it is not there."""
    return items.index(taken) + 1.0 if taken in items else np.inf


def popular_before(events: Events, start: int, days: float = 7.0, k: int = 10) -> list[list[str]]:
    """For each event from `start` on, the k items most met in the `days` before it that its user has not met.

    Strictly in time order: the baseline knows every earlier event, those of the same second included, and
    forgets what is older than its days.
    """
    ids, item = np.unique(events.item.astype(str), return_inverse=True)
    counts = np.zeros(len(ids), np.int64)
    seen: dict[str, np.ndarray] = {}
    lists: list[list[str]] = []
    oldest, horizon = 0, int(days * DAY_MS)
    for i in range(len(events)):
        user = str(events.user[i])
        met = seen.setdefault(user, np.zeros(len(ids), bool))
        if i >= start:
            while events.ts[oldest] < events.ts[i] - horizon:
                counts[item[oldest]] -= 1
                oldest += 1
            free = np.where(met, -1, counts)
            best = np.argpartition(-free, min(k, len(ids) - 1))[:k]
            best = best[np.argsort(-free[best], kind="stable")]
            lists.append([str(ids[j]) for j in best if free[j] >= 0])
        counts[item[i]] += 1
        met[item[i]] = True
    return lists
