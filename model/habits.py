"""What users come back to, and when: a log-linear term over the score of vectors and counts, kept in a model's folder.

Not the score under it (`mix.py`), not whether what was met may be shown at all (`rules.py`), and not how it is fitted
(`tune.py`). Milk is bought again, a corkscrew is not: so beside personal frequency and recency (as in UP-CF, Faggioli
et al., 2020, and TIFU-kNN, Hu et al., 2020) stands how often those who have an item come back to it. It is what a
worker can know of `regulars` (`model/evaluation/methods/regulars.py`): what was popular in the last days is left out,
and ages are counted from the user's newest interaction and not from now. So a list is made from its history and the
counts alone, is the same when it is made again, and is meant for the next visit. The score in nats of an item

    new to them    a s + b log p + c f
    met k of n     a s + b log p + d . (1, log k/n, log(1 + n), log(1 + days), days = 0, log p, r, r of its kind)

where s is the score of `mix.py`, p its popularity, f and r what `Returns` says of it, and `days` its age. Names: B
users, N items of the catalogue, M candidates, F items that some user has met, 3 + 8 weights (`NAMES`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.history import Histories, item_hashes
from model.online import DAY_MS, OnlineScores
from model.peruser import PerUser
from model.replay import Timeline, liked

NAMES = (
    "score", "popular", "first", "met", "share", "size", "age", "newest", "met popular", "again", "again by kind",
)  # fmt: skip
EVERY = 3
"""Of these are of every item, the others of what the user has met."""
PRIOR = np.eye(1, len(NAMES), dtype=np.float32)[0]
"""The weights that change nothing."""
ITEM_PRIOR, KIND_PRIOR, FIRST_PRIOR = 150.0, 200.0, 20.0
"""Interactions of users who have an item, after which its own rate counts as much as its kind's; its kind's as
everybody's; and its own share of first ones as everybody's."""
NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, eq=False)
class Returns:
    """What is known of N items, f64[N] each, as logarithms: how many times likelier than on average who has the item
    meets it again, and one of its kind; and how many times the average is the share of its interactions that are a
    user's first with it.
    """

    again: NDArray[np.float64]
    again_kind: NDArray[np.float64]
    first: NDArray[np.float64]

    @staticmethod
    def of(
        users: NDArray[np.int64], rows: NDArray[np.int64], new: NDArray[np.bool_], kinds: NDArray[np.int64]
    ) -> Returns:
        """From n interactions in time order: whose, of which catalogue rows, and whether it is the user's first with
        the item (`firsts`); kinds i64[N]: a number a kind. Rates are shrunk: an item's to its kind's, a kind's to all.
        """
        items = len(kinds)
        met = np.bincount(rows, minlength=items)
        fresh = np.bincount(rows[new], minlength=items)
        again, chances = met - fresh, np.bincount(rows[new], _after(users)[new], items)
        mean = (again.sum() + 1) / (chances.sum() + 1)
        kind_again, kind_chances = (np.bincount(kinds, weights=v) for v in (again, chances))
        by_kind = ((kind_again + KIND_PRIOR * mean) / (kind_chances + KIND_PRIOR))[kinds]
        own = (again + ITEM_PRIOR * by_kind) / (chances + ITEM_PRIOR)
        share = (fresh.sum() + 1) / (met.sum() + 1)
        first = (fresh + FIRST_PRIOR * share) / (met + FIRST_PRIOR)
        return Returns(np.log(own / mean), np.log(by_kind / mean), np.log(first / share))


def firsts(users: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of n interactions in time order are their user's first with their item, bool[n]."""
    order = np.lexsort((np.arange(len(rows)), rows, users))
    new = np.ones(len(rows), bool)
    new[order[1:]] = (users[order[1:]] != users[order[:-1]]) | (rows[order[1:]] != rows[order[:-1]])
    return new


def _after(users: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many interactions of its user come after each, i64[n]."""
    order = np.argsort(users, kind="stable")
    left = np.empty(len(users), np.int64)
    left[order] = np.searchsorted(users[order], users[order], side="right") - np.arange(len(users)) - 1
    return left


def kinds_of(catalog: Catalog) -> NDArray[np.uint64]:
    """The kind of each item, a hash, u64[N]: items with the same categories are of one."""
    return item_hashes("\0".join(names) for names in catalog.categories)


@dataclass(frozen=True, eq=False)
class Habits:
    """What was learned: weights f32[11] by `NAMES`; of items u64[M] (hashes) again and first f32[M], and of kinds
    u64[K], ascending, again_kind f32[K], as `Returns` has them.
    """

    weights: NDArray[np.float32]
    items: NDArray[np.uint64]
    again: NDArray[np.float32]
    first: NDArray[np.float32]
    kinds: NDArray[np.uint64]
    again_kind: NDArray[np.float32]

    @staticmethod
    def learned(line: Timeline, end: int, catalog: Catalog, weights: NDArray[np.float32] = PRIOR) -> Habits:
        """From the first `end` events: such of known items that are a sign of interest; exact repeats count once."""
        at = liked(line, 0, end)
        at = at[line.fresh[at]]
        users, rows = line.users[at], line.rows[at].astype(np.int64)
        kinds, one, of = np.unique(kinds_of(catalog), return_index=True, return_inverse=True)
        said = Returns.of(users, rows, firsts(users, rows), of)
        again, first, by_kind = (x.astype(np.float32) for x in (said.again, said.first, said.again_kind[one]))
        return Habits(weights, catalog.hashes, again, first, kinds, by_kind)

    def arrays(self) -> dict[str, NDArray]:
        """As named arrays, to be kept."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @staticmethod
    def of(kept: Mapping[str, NDArray]) -> Habits:
        """From `arrays`. Raises ValueError where they were made by other weights."""
        found = Habits(*(kept[name] for name in Habits.__dataclass_fields__))
        if len(found.weights) != len(NAMES):
            raise ValueError(f"{len(found.weights)} weights of habits, and this version reads {len(NAMES)}")
        return found

    def over(self, catalog: Catalog) -> Habitual:
        """Over the rows of a catalogue. An item that was not known then comes back as its kind does; a kind that was
        not, as all do.
        """
        kinds = kinds_of(catalog)
        place = np.minimum(np.searchsorted(self.kinds, kinds), len(self.kinds) - 1)
        again_kind = np.where(self.kinds[place] == kinds, self.again_kind[place], np.float32(0))
        again, first = again_kind.copy(), np.zeros(len(catalog), np.float32)
        at = catalog.index_of(self.items)
        again[at[at >= 0]], first[at[at >= 0]] = self.again[at >= 0], self.first[at >= 0]
        return Habitual(self.weights, again, again_kind, first)


@dataclass(frozen=True, eq=False)
class Habitual:
    """Over one catalogue: weights f32[11]; again, again_kind and first f32[N]."""

    weights: NDArray[np.float32]
    again: NDArray[np.float32]
    again_kind: NDArray[np.float32]
    first: NDArray[np.float32]

    def of(self, h: Histories, rows: NDArray[np.int32], online: OnlineScores) -> Term:
        """What these histories, whose items are catalogue rows i32[B,L], -1 = none, say with the counts of now.
        Signs of no interest (a weight of zero or less) are no habit.
        """
        items = len(self.again)
        user, place = np.nonzero((rows >= 0) & (h.weights > 0))
        keys, which, often = np.unique(user * items + rows[user, place], return_inverse=True, return_counts=True)
        met = PerUser(len(h), items, keys, often.astype(np.float32))
        met_at = np.full(len(keys), NEVER)
        np.maximum.at(met_at, which, h.times[user, place])
        newest = np.full(len(h), NEVER)
        np.maximum.at(newest, met.user, met_at)
        size = np.bincount(user, minlength=len(h))[met.user]
        days = (newest[met.user] - met_at) / DAY_MS
        popular = np.log(online.popularity[met.row])
        facts = [np.ones(len(keys)), np.log(often / np.maximum(size, 1)), np.log1p(size), np.log1p(days), days == 0]
        facts += [popular, self.again[met.row], self.again_kind[met.row]]
        return Term(self, met, np.stack(facts, 1).astype(np.float32), online.popularity)


@dataclass(frozen=True, eq=False)
class Term:
    """Of B users: `met`, what they have met and how often, and facts f32[F,8] of each of these; popularity f32[N]."""

    habits: Habitual
    met: PerUser
    facts: NDArray[np.float32]
    popularity: NDArray[np.float32]

    def over(self, scores: NDArray[np.floating], at: NDArray[np.integer]) -> NDArray[np.float32]:
        """The scores f[B,M] of catalogue rows i[B,M] with what is said here."""
        score, popular, first = self.habits.weights[:EVERY]
        all_of = score * scores + popular * np.log(self.popularity[at]) + first * self.habits.first[at]
        return (all_of + self._own.at(at)).astype(np.float32)

    def returned(self, at: NDArray[np.integer]) -> NDArray[np.float32]:
        """What items gain by having been met, in nats of the score under the term: f32[B,M], 0 for what was not."""
        return self._own.at(at) / max(float(self.habits.weights[0]), 1e-3)

    def features(self, scores: NDArray[np.floating], at: NDArray[np.integer]) -> NDArray[np.float32]:
        """f32[B,M,11]: what the weights are of, by `NAMES`; their sum with these is `over`."""
        place, there = self.met.find(np.arange(len(at))[:, None] * self.met.items + at)
        facts = np.where(there[..., None], self.facts.take(np.maximum(place, 0), 0) if len(self.facts) else 0, 0)
        first = np.where(there, 0, self.habits.first[at])
        every = np.stack([scores, np.log(self.popularity[at]), first], 2)
        return np.concatenate([every, facts], 2).astype(np.float32)

    @cached_property
    def _own(self) -> PerUser:
        weights = self.habits.weights
        own = self.facts @ weights[EVERY:] - weights[EVERY - 1] * self.habits.first[self.met.row]
        return PerUser(self.met.users, self.met.items, self.met.keys, own.astype(np.float32))
