"""What came of each variant of the lists, from what was emitted and what was fed back.

Not a protocol: nothing is ranked here, and nothing is weighed, since users were split at random. An outcome belongs to
the list that its feedback names (last touch); what names none is counted apart. Users, not lists, are independent of
each other, so intervals resample users (`model.metrics`).

Names: V variants; L emitted lists of n places; O outcomes; S shadow lists. Items and users are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.fatigue import OUTCOME_CODE
from model.metrics import Interval, apart, bootstrap, coverage

OUTCOMES = tuple(OUTCOME_CODE)
SHOWN, CLICKED, BOUGHT = range(3)
UNNAMED, UNKNOWN = -1, -2
"""In place of a list: the outcome names none, or one that is not there."""
MISMATCH = 1e-3
"""A sample ratio less likely than this is no chance: find out why before anything is read from the rest."""
CHUNK = 20_000
"""Lists compared together."""


@dataclass(frozen=True, eq=False)
class Logged:
    """Emitted lists: users, variant i64[L], items i32[L,n], -1 behind the last. Outcomes: of i64[O], the list of each,
    `UNNAMED` or `UNKNOWN`; kind i64[O], in `OUTCOMES`; value f64[O], 0 where none is told. Shadows: shadow i64[S], in
    `shadows`; beside i64[S], the emitted list to the same event; shadow_items i32[S,n].
    """

    variants: tuple[str, ...]
    users: NDArray[np.int64]
    variant: NDArray[np.int64]
    items: NDArray[np.int32]
    of: NDArray[np.int64]
    kind: NDArray[np.int64]
    value: NDArray[np.float64]
    shadows: tuple[str, ...] = ()
    shadow: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    beside: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    shadow_items: NDArray[np.int32] = field(default_factory=lambda: np.zeros((0, 0), np.int32))

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Result:
    """One variant's. counts: outcomes by kind. rates: by name, None where nothing tells. over: by how much they are
    above the first variant's. coverage: of all items that any list has, the share that its lists have, over as many
    lists of each variant.
    """

    users: int
    lists: int
    counts: Mapping[str, int]
    rates: Mapping[str, Interval | None]
    over: Mapping[str, Interval | None]
    coverage: float


@dataclass(frozen=True)
class Likeness:
    """Of a shadow's lists and what was emitted to the same events: the share of items in common, and Kendall's tau of
    their order, over lists that have two or more in common.
    """

    lists: int
    overlap: Interval
    tau: Interval | None


@dataclass(frozen=True)
class Comparison:
    """results: by variant. mismatch: the chance of a split at least so uneven under the shares that were meant; None
    where these are not known. crossed: users with lists of more than one variant. unnamed, unknown: outcomes that name
    no list, or none that is there. shadows: by shadow and emitted variant.
    """

    results: Mapping[str, Result]
    mismatch: float | None
    crossed: int
    unnamed: int
    unknown: int
    shadows: Mapping[tuple[str, str], Likeness]


def compare(logged: Logged, shares: Mapping[str, float] | None = None, seed: int = 0) -> Comparison:
    """Every variant against the first by name. shares: what was meant, by variant."""
    measures = [_Measures.of(logged, v) for v in range(len(logged.variants))]
    covered = _covered(logged, seed)
    results = {
        name: Result(
            len(mine.users),
            int((logged.variant == v).sum()),
            mine.counts,
            {rate: mine.rate(rate, seed) for rate in RATES},
            {rate: mine.over(measures[0], rate, seed) for rate in RATES} if v else {},
            covered[v],
        )
        for v, (name, mine) in enumerate(zip(logged.variants, measures, strict=True))
    }
    pairs = np.unique(np.stack([logged.users, logged.variant]), axis=1)
    return Comparison(
        results,
        _mismatch({name: result.users for name, result in results.items()}, shares),
        int((np.unique(pairs[0], return_counts=True)[1] > 1).sum()),
        int((logged.of == UNNAMED).sum()),
        int((logged.of == UNKNOWN).sum()),
        _shadows(logged, seed),
    )


RATES = {
    "ctr": ("clicked", "shown"),
    "clicks per user": ("clicked", "users"),
    "conversions per user": ("bought", "users"),
    "value per user": ("value", "users"),
}
"""A rate's name -> what is summed over users, and what that is divided by."""


@dataclass(frozen=True, eq=False)
class _Measures:
    """Sums of each user of one variant, f64[U] by name: outcomes, `value` of what was bought, and `users`, ones."""

    users: NDArray[np.int64]
    counts: Mapping[str, int]
    sums: Mapping[str, NDArray[np.float64]]

    @staticmethod
    def of(logged: Logged, v: int) -> _Measures:
        mine = logged.variant == v
        users, user = np.unique(logged.users[mine], return_inverse=True)
        row: NDArray[np.int64] = np.full(len(logged) + 1, -1, np.int64)  # the last for outcomes of no list
        row[:-1][mine] = user.astype(np.int64)
        whose = row[np.where(logged.of >= 0, logged.of, len(logged))]
        sums = {
            name: np.bincount(whose[(whose >= 0) & (logged.kind == kind)], minlength=len(users)).astype(np.float64)
            for kind, name in enumerate(OUTCOMES)
        }
        counts = {name: int(each.sum()) for name, each in sums.items()}
        bought = (whose >= 0) & (logged.kind == BOUGHT)
        sums["value"] = np.bincount(whose[bought], logged.value[bought], len(users)).astype(np.float64)
        return _Measures(users, counts, sums | {"users": np.ones(len(users))})

    def parts(self, rate: str) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Users, what a rate is for each, and how much each weighs in it; those who weigh nothing left out."""
        top, bottom = (self.sums[name] for name in RATES[rate])
        some = bottom > 0
        return self.users[some], top[some] / bottom[some], bottom[some]

    def rate(self, rate: str, seed: int) -> Interval | None:
        users, values, weights = self.parts(rate)
        return bootstrap(users, values, seed, weights=weights) if len(users) else None

    def over(self, first: _Measures, rate: str, seed: int) -> Interval | None:
        mine, base = self.parts(rate), first.parts(rate)
        return apart(mine, base, seed) if len(mine[0]) and len(base[0]) else None


def _mismatch(users: Mapping[str, int], shares: Mapping[str, float] | None) -> float | None:
    """Pearson's chi-squared test of how many users each variant has against its share. A mismatch says that users were
    lost or added on the way, not at random, and that rates cannot be compared (Fabijan et al., 2019).
    """
    from scipy.stats import chisquare

    if shares is None or len(shares) < 2:
        return None
    seen = np.array([users.get(name, 0) for name in shares])
    if not seen.sum():
        return None
    return float(chisquare(seen, seen.sum() * np.array(list(shares.values()))).pvalue)


def _covered(logged: Logged, seed: int) -> list[float]:
    """See `Result.coverage`: more lists have more items, so each variant's are as many as the fewest, drawn."""
    rng = np.random.default_rng(seed)
    known = len(np.unique(logged.items[logged.items >= 0]))
    of = [np.flatnonzero(logged.variant == v) for v in range(len(logged.variants))]
    least = min(map(len, of), default=0)
    return [coverage(logged.items[rng.choice(lists, least, replace=False)], known) for lists in of]


def _shadows(logged: Logged, seed: int) -> dict[tuple[str, str], Likeness]:
    overlap, tau = likeness(logged.items[logged.beside], logged.shadow_items)
    users, variant = logged.users[logged.beside], logged.variant[logged.beside]
    found: dict[tuple[str, str], Likeness] = {}
    for s, shadow in enumerate(logged.shadows):
        for v, emitted in enumerate(logged.variants):
            mine = (logged.shadow == s) & (variant == v) & ~np.isnan(overlap)
            ordered = mine & ~np.isnan(tau)
            if mine.any():
                found[shadow, emitted] = Likeness(
                    int(mine.sum()),
                    bootstrap(users[mine], overlap[mine], seed),
                    bootstrap(users[ordered], tau[ordered], seed) if ordered.any() else None,
                )
    return found


def likeness(a: NDArray[np.int32], b: NDArray[np.int32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How alike lists a i32[L,n] and b i32[L,m] of distinct items are, -1 = none, f64[L] each: the items in common over
    the length of the longer, nan where both are empty; Kendall's tau of those in common, nan for fewer than two.
    """
    overlap, tau = np.full(len(a), np.nan), np.full(len(a), np.nan)
    for first in range(0, len(a), CHUNK):
        part = slice(first, first + CHUNK)
        same = (a[part, :, None] == b[part, None, :]) & (a[part, :, None] >= 0)
        common = same.any(2)
        longer = np.maximum((a[part] >= 0).sum(1), (b[part] >= 0).sum(1))
        overlap[part] = np.where(longer > 0, common.sum(1) / np.maximum(longer, 1), np.nan)
        place = np.where(common, same.argmax(2), 0) if same.shape[2] else np.zeros(common.shape, np.int64)
        i, j = np.triu_indices(a.shape[1], 1)
        both = common[:, i] & common[:, j]
        order = (np.sign(place[:, j] - place[:, i]) * both).sum(1)
        tau[part] = np.where(both.any(1), order / np.maximum(both.sum(1), 1), np.nan)
    return overlap, tau


def as_dict(found: Comparison) -> dict[str, Any]:
    """All of it in plain values, an interval as [mean, low, high]."""
    return {
        "variants": {
            name: {
                "users": r.users,
                "lists": r.lists,
                **r.counts,
                **{rate: _plain(interval) for rate, interval in r.rates.items()},
                "over": {rate: _plain(interval) for rate, interval in r.over.items()},
                "coverage": r.coverage,
            }
            for name, r in found.results.items()
        },
        "sample_ratio_p": found.mismatch,
        "crossed": found.crossed,
        "unnamed": found.unnamed,
        "unknown": found.unknown,
        "shadows": [
            {"shadow": s, "emitted": e, "lists": x.lists, "overlap": _plain(x.overlap), "tau": _plain(x.tau)}
            for (s, e), x in found.shadows.items()
        ],
    }


def _plain(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.mean, interval.low, interval.high]
