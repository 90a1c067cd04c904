"""The online part: what people do after what, and what is popular now, as pure functions of integer counts.

Not a store of counts (the worker keeps them, sums them over partitions and hands them over as columns) and
nothing learned: the same counts give the same scores wherever they are built.

**The definition of a pair.** When an interaction (time, action, item b) of a user is applied, and it was not
in the user's history already, read the user's kept history (`model/history.py`) as it was before, and of it
the newest `PAIR_STEPS` interactions that are canonically before the new one. Each distinct item a among them
other than b gives one directed pair a -> b in the bucket of the new interaction's time, and b counts once in
that bucket's popularity. An exact repeat counts nothing; a late event counts from what is older than it only.
`pairs` is this rule for one event, `pairs_of` for many: live counts and those of an evaluation come from the
same line. Where that is asked for, what comes like clockwork counts nothing (`steady`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from model.catalog import Catalog
from model.history import spans
from model.kin import Kin
from model.mix import Mix
from model.peruser import PerUser, Shown, first_of

PAIR_STEPS = 20
FEW = 2048
"""Steps a user up to which adding them up by sorting takes less than a sparse product."""
EXPANDED = 4
"""Up to so many entries of the windows' items for each pair that is asked for, all of these are gone through."""
RARE, LOOKED = 0.125, 32
"""Where less than this share of the items may be shown, or more than so many times as many as are wanted were looked
through in vain, the others are left out of the most popular first."""
DAY_MS = 86_400_000


class OnlineParams(BaseModel):
    """How counts become scores. Defaults were chosen on MovieLens-100K, events 72% to 80% in time order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bucket_ms: int = Field(default=7 * DAY_MS, gt=0, description="length of a time bucket of counts, ms")
    half_life_days: float = Field(default=60.0, gt=0, description="age at which a pair counts half")
    popularity_half_life_days: float = Field(default=60.0, gt=0, description="age at which an item's count counts half")
    shrink: float = Field(
        default=20.0, ge=0, description="interactions an item needs before its pairs are half trusted"
    )
    recency: float = Field(
        default=0.85, gt=0, le=1, description="weight of a window position relative to the next newer one"
    )
    kin: float = Field(
        default=0.0, ge=0, description="interactions at which an item borrows half from its kin; 0: none borrows"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Integer counts per time bucket, as columns. The same key may occur many times: counts add up.

    pairs: a u64, b u64 (b was met after a), pair_bucket i32, pair_count u32; items: item u64, item_bucket
    i32, item_count u32.
    """

    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    pair_bucket: NDArray[np.int32]
    pair_count: NDArray[np.uint32]
    item: NDArray[np.uint64]
    item_bucket: NDArray[np.int32]
    item_count: NDArray[np.uint32]

    @staticmethod
    def empty() -> Counts:
        """No counts at all."""
        u64, i32, u32 = np.zeros(0, np.uint64), np.zeros(0, np.int32), np.zeros(0, np.uint32)
        return Counts(u64, u64, i32, u32, u64, i32, u32)

    def __add__(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*(np.concatenate([getattr(self, n), getattr(other, n)]) for n in Counts.__slots__))


def bucket_of(times: NDArray[np.int64] | np.int64, bucket_ms: int) -> NDArray[np.int32]:
    """The bucket of each time in ms: floor(time / bucket_ms)."""
    return (np.asarray(times, np.int64) // bucket_ms).astype(np.int32)


def pairs(before: NDArray[np.uint64], new: int) -> NDArray[np.uint64]:
    """The items a of the pairs a -> new, ascending.

    before: items of the history canonically before the new interaction, oldest first; 0 = none.
    """
    return pairs_of(before[None], np.array([new], np.uint64))[1]


def pairs_of(before: NDArray[np.uint64], new: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """`pairs` for B events at once: (row, a) of each pair, rows ascending, within a row items ascending.

    before: u64[B,L] as `pairs` wants it for each of the new items u64[B].
    """
    near = np.sort(before[:, -PAIR_STEPS:], axis=1)
    counts = (near != 0) & (near != new[:, None])
    counts[:, 1:] &= near[:, 1:] != near[:, :-1]
    row, place = np.nonzero(counts)
    return row, near[row, place]


NO_TIME = np.iinfo(np.int64).min
"""The time of an interaction that is not there."""


def steady(before: NDArray[np.int64], times: NDArray[np.int64], variation: float) -> NDArray[np.bool_]:
    """Which of B interactions keep to a beat, as no person does: the gaps between them and the PAIR_STEPS before
    vary by less than `variation` of their mean (standard deviation over mean; 1 where events come at random). Gaps of 0
    are no beat: baskets and imports are of one second.

    before: i64[B,L] as `pairs_of` has its items, times in ms, NO_TIME = none; times i64[B].
    """
    if variation <= 0 or before.shape[1] < PAIR_STEPS:
        return np.zeros(len(times), bool)
    near = before[:, -PAIR_STEPS:]
    gaps = np.diff(np.where(near == NO_TIME, 0, near), axis=1, append=times[:, None]).astype(np.float64)
    mean = gaps.mean(1)
    return (near != NO_TIME).all(1) & (mean > 0) & (gaps.std(1) < variation * mean)


@dataclass(frozen=True, eq=False)
class Sums:
    """Decayed counts over the rows of a `catalog`, as of one bucket: they add up. followed f64[N,N] as CSR: how often b
    came after a; met f64[N], decayed as pairs are, and popular f64[N].
    """

    catalog: Catalog
    followed: Any
    met: NDArray[np.float64]
    popular: NDArray[np.float64]

    @staticmethod
    def of(catalog: Catalog, counts: Counts, now_bucket: int, p: OnlineParams) -> Sums:
        """Items outside the catalogue are left out; buckets ahead of now count as now."""
        n, at = len(catalog), catalog.index_of(counts.item)
        known = at >= 0
        by_pair_age = _decayed(counts.item_count, counts.item_bucket, now_bucket, p.half_life_days, p)
        by_age = _decayed(counts.item_count, counts.item_bucket, now_bucket, p.popularity_half_life_days, p)
        a, b = catalog.index_of(counts.a), catalog.index_of(counts.b)
        both = (a >= 0) & (b >= 0)
        often = _decayed(counts.pair_count, counts.pair_bucket, now_bucket, p.half_life_days, p)[both]
        followed: Any = sparse.csr_array((often, (a[both], b[both])), shape=(n, n))
        followed.sum_duplicates()
        return Sums(
            catalog,
            followed,
            np.bincount(at[known], by_pair_age[known], n).astype(np.float64),
            np.bincount(at[known], by_age[known], n).astype(np.float64),
        )

    def __add__(self, other: Sums) -> Sums:
        """Both together; they must be as of the same bucket."""
        return Sums(self.catalog, self.followed + other.followed, self.met + other.met, self.popular + other.popular)

    def scores(self, p: OnlineParams) -> OnlineScores:
        """Shrunk shares, and popularity with one interaction added to each item."""
        steps = self.followed.astype(np.float32)
        per_row = np.diff(steps.indptr)
        steps.data = (self.followed.data / np.repeat(np.maximum(self.met + p.shrink, 1e-9), per_row)).astype(np.float32)
        popular = self.popular + 1.0
        kin = Kin.of(self.catalog, self.met, p.kin) if p.kin else None
        total = max(float(popular.sum()), 1e-9)
        return OnlineScores(steps, (popular / total).astype(np.float32), p, kin, total)


@dataclass(frozen=True, eq=False)
class OnlineScores:
    """Counts turned into scores over the rows of one catalogue snapshot.

    `steps` is a CSR f32[N,N]: the shrunk, decayed share of a's interactions that b followed. `popularity`
    f32[N] sums to 1 and is above 0 everywhere (one interaction is added to each item), so an item that nobody
    has met yet can still be shown. `kin`: items that borrow, where any do; total: the interactions that
    popularity is a share of, with the ones added.
    """

    steps: Any
    popularity: NDArray[np.float32]
    params: OnlineParams
    kin: Kin | None = None
    total: float = 0.0

    @staticmethod
    def empty(catalog: Catalog, params: OnlineParams | None = None) -> OnlineScores:
        """Scores before any event: nothing is related, all items are equally popular."""
        return OnlineScores.build(catalog, Counts.empty(), 0, params)

    @staticmethod
    def build(catalog: Catalog, counts: Counts, now_bucket: int, params: OnlineParams | None = None) -> OnlineScores:
        """Scores as of `now_bucket`. Items outside the catalogue are left out; buckets ahead of now count as
        now.
        """
        p = params or OnlineParams()
        return Sums.of(catalog, counts, now_bucket, p).scores(p)

    def prepared(self) -> OnlineScores:
        """Itself, with all made that is otherwise made when it is first asked for."""
        _ = self._popularity_rank, self._places
        return self

    def related(self, window: NDArray[np.int32]) -> NDArray[np.float32]:
        """How much each item follows those of the windows i32[B,K] (catalogue rows, -1 = none, newest last):
        f32[B,N].

        The mean over the window's items, weighted by recency, of the share of interactions that the item
        followed.
        """
        counted = self._related(window)
        related = counted.toarray()
        if self.kin is not None:
            related[:, self.kin.rows] += self.kin.borrowed(counted)
        return related

    def returned(self, history: NDArray[np.int32], mix: Mix) -> NDArray[np.float32]:
        """What users come back to: the share of each item in the histories i32[B,L] (catalogue rows, -1 = none, newest
        last), an interaction weighing `mix.repeat_recency` of the next newer one: f32[B,N], rows summing to 1 or 0.
        """
        weights, there = _recent(history, mix.repeat_recency), history >= 0
        ends = np.concatenate([[0], np.cumsum(there.sum(1))])
        shape = (len(history), self.steps.shape[0])
        return sparse.csr_array((weights[there], history[there], ends), shape=shape).toarray()

    def followers(self, window: NDArray[np.int32]) -> PerUser:
        """`related` where it is not zero: what follows the windows i32[B,K], and how much."""
        if self.kin is not None:
            related = self.related(window)
            user, row = np.nonzero(related)
            users, items = related.shape
            return PerUser(users, items, user * items + row, related[user, row])
        firsts, there = self.steps.indptr[window], window >= 0
        counts = np.where(there, self.steps.indptr[window + 1] - firsts, 0)
        users, items = len(window), self.steps.shape[1]
        if counts.sum() > FEW * max(users, 1):
            related = self._related(window)
            related.sort_indices()
            user = np.repeat(np.arange(users, dtype=np.int64), np.diff(related.indptr))
            return PerUser(users, items, user * items + related.indices, related.data)
        # what a sparse product finds, without the cost of calling it
        counts = counts.ravel()
        at = spans(firsts.ravel(), counts)
        user = np.repeat(np.repeat(np.arange(users), window.shape[1]), counts)
        share = self.steps.data[at] * np.repeat(self._weights(window).ravel(), counts)
        return PerUser.summed(users, items, user, self.steps.indices[at], share)

    def returning(self, history: NDArray[np.int32], mix: Mix) -> PerUser:
        """`returned` where it is not zero."""
        user, place = np.nonzero(history >= 0)
        weights = _recent(history, mix.repeat_recency)[user, place]
        return PerUser.summed(len(history), self.steps.shape[1], user, history[user, place], weights)

    def strongest(
        self,
        followers: PerUser,
        mix: Mix,
        shown: Shown,
        m: int,
        popularity: NDArray[np.float32] | None = None,
    ) -> NDArray[np.int32]:
        """The m items for each user that may be shown and that the counts say most for, what the user met left aside,
        in no order: i32[B,m], -1 where there are fewer. popularity: how popular items are to each user f32[B,N], where
        that differs.

        What follows nothing in the window counts by its popularity alone, so only what follows something, and the
        most popular, are looked at.
        """
        if popularity is not None:
            score = mix.popular * popularity
            score[followers.user, followers.row] += mix.related * followers.values
            score[~shown.every()] = -np.inf
            rows = np.argpartition(-score, m - 1, axis=1)[:, :m].astype(np.int32)
            return np.where(np.take_along_axis(score, rows, 1) > -np.inf, rows, np.int32(-1))
        score = mix.related * followers.values + mix.popular * self.popularity[followers.row]
        score[~shown.of(followers)] = -np.inf
        often = self._often(followers, shown, m)
        often_score = np.where(often >= 0, mix.popular * self.popularity[often], -np.inf).astype(np.float32)
        rows = np.concatenate([followers.padded(followers.row, -1), often], axis=1)
        score = np.concatenate([followers.padded(score, -np.inf), often_score], axis=1)
        if rows.shape[1] > m:
            best = np.argpartition(-score, m - 1, axis=1)[:, :m]
            rows, score = np.take_along_axis(rows, best, 1), np.take_along_axis(score, best, 1)
        return np.where(score > -np.inf, rows, np.int32(-1))

    def _often(self, followers: PerUser, shown: Shown, m: int) -> NDArray[np.int32]:
        """The m most popular items for each user that may be shown and follow nothing of the window, i32[B,m]; -1 where
        there are fewer.
        """
        out = np.full((followers.users, m), -1, np.int32)

        def looked_through(ordered: NDArray[np.int32], users: NDArray[np.int64], looked: int) -> NDArray[np.int64]:
            """Fill in what is found among the first of `ordered`; returns the users for whom that is too little."""
            often = np.broadcast_to(ordered[:looked], (len(users), min(looked, len(ordered))))
            if ordered is self._by_popularity:  # what is not free is looked up in it, not each of it among these
                free = np.repeat(mask[often[:1]], len(users), axis=0)
                for numbers in (shown.hidden, followers):
                    whose, row = numbers.taken(users)
                    at = self._popularity_rank[row]
                    near = at < free.shape[1]
                    free[whose[near], at[near]] = False
            else:
                free = shown.at(often, users) & ~followers.has(often, users)
            found = first_of(np.where(free, often, np.int32(-1)), m)
            out[users, : found.shape[1]] = found
            return users[free.sum(1) < m]

        for mask, users in shown.groups():
            ordered = self._by_popularity
            if np.count_nonzero(mask) < RARE * len(ordered):
                ordered = ordered[mask[ordered]]  # most of the others are not theirs to see
            looked = 2 * m
            while len(users := looked_through(ordered, users, looked)) and looked < len(ordered):
                looked *= 4
                if looked > LOOKED * m and ordered is self._by_popularity:
                    ordered = ordered[mask[ordered]]
                    looked = 2 * m
        return out

    def most_popular(self, n: int) -> NDArray[np.int32]:
        """Catalogue rows of the n most popular items, best first."""
        return self._by_popularity[:n]

    def few(self, below: float) -> NDArray[np.int32]:
        """Catalogue rows of the items with fewer interactions than that, old ones counting less, the fewest last."""
        of_all = self.total or len(self.popularity)
        fewest_first = self._by_popularity[::-1]
        many = np.searchsorted(self.popularity, np.float32((below + 1) / of_all), sorter=fewest_first)
        return self._by_popularity[len(fewest_first) - int(many) :]

    def contribution(self, window: NDArray[np.int32], candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """The part of `related` that each item of the windows i32[B,K] gives to each candidate i32[B,n]: f32[B,K,n];
        summed over K, `related`.
        """
        share = self._shares(window, candidates)
        if self.kin is not None:
            lent = self.kin.borrowed(self.steps[np.maximum(window, 0).ravel()])
            share = share + self.kin.looked_up(lent.reshape(*window.shape, -1), candidates)
        return np.where((window >= 0)[..., None], share, np.float32(0)) * self._weights(window)[..., None]

    def _shares(self, window: NDArray[np.int32], candidates: NDArray[np.int32]) -> NDArray[np.float32]:
        """The entries of `steps` of each item of the windows i32[B,K] and each candidate i32[B,n]: f32[B,K,n]."""
        (users, wide), size = window.shape, self.steps.shape[1]
        firsts, there = self.steps.indptr[window], window >= 0
        counts = np.where(there, self.steps.indptr[window + 1] - firsts, 0).ravel()
        if counts.sum() > EXPANDED * wide * candidates.size:
            wanted = np.maximum(window, 0).astype(np.int64)[..., None] * size + candidates[:, None]
            at = np.minimum(np.searchsorted(self._places, wanted), len(self._places) - 1)
            return np.where(self._places[at] == wanted, self.steps.data[at], np.float32(0))
        # fewer entries than pairs: each is looked for among the candidates, which fit into a cache
        at = spans(firsts.ravel(), counts)
        user, place = np.divmod(np.repeat(np.arange(users * wide), counts), wide)
        asked, which = np.unique(np.arange(users)[:, None] * size + candidates, return_inverse=True)
        found, has = PerUser(users, size, asked, np.zeros(0, np.float32)).find(user * size + self.steps.indices[at])
        share = np.zeros((len(asked), wide), np.float32)
        share[found[has], place[has]] = self.steps.data[at[has]]
        return share[which.reshape(candidates.shape)].transpose(0, 2, 1)

    def _related(self, window: NDArray[np.int32]) -> Any:
        """`related` as CSR f32[B,N]."""
        weights, there = self._weights(window), window >= 0
        ends = np.concatenate([[0], np.cumsum(there.sum(1))])
        shape = (len(window), self.steps.shape[0])
        return sparse.csr_array((weights[there], window[there], ends), shape=shape) @ self.steps

    @cached_property
    def _by_popularity(self) -> NDArray[np.int32]:
        """Catalogue rows, the most popular first."""
        return np.argsort(-self.popularity, kind="stable").astype(np.int32)

    @cached_property
    def _popularity_rank(self) -> NDArray[np.int32]:
        """The place of each catalogue row in `_by_popularity`."""
        rank = np.empty_like(self._by_popularity)
        rank[self._by_popularity] = np.arange(len(rank), dtype=rank.dtype)
        return rank

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Where `steps` has entries, row x N + column, ascending."""
        n = self.steps.shape[1]
        return np.repeat(np.arange(self.steps.shape[0], dtype=np.int64) * n, np.diff(self.steps.indptr)) + (
            self.steps.indices
        )

    def _weights(self, window: NDArray[np.int32]) -> NDArray[np.float32]:
        """recency^(places from the newest) over the items that are there, f32[B,K], each row summing to 1 (or
        0 where it is empty).
        """
        return _recent(window, self.params.recency)


def _recent(rows: NDArray[np.int32], recency: float) -> NDArray[np.float32]:
    """recency^(places from the newest) over the items that are there, f32[B,K], each row summing to 1 (or 0)."""
    there = rows >= 0
    newer = np.cumsum(there[:, ::-1], axis=1)[:, ::-1] - 1
    weights = np.where(there, recency**newer, 0.0)
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)).astype(np.float32)


def _decayed(
    count: NDArray[np.uint32], bucket: NDArray[np.int32], now: int, half_life_days: float, p: OnlineParams
) -> NDArray[np.float64]:
    age_days = np.maximum(now - bucket.astype(np.int64), 0) * (p.bucket_ms / DAY_MS)
    return count * 0.5 ** (age_days / half_life_days)


def looked_up(popularity: NDArray[np.float32], rows: NDArray[np.integer]) -> NDArray[np.float32]:
    """Popularity of items of each user, catalogue rows i[B,M]: from one of all users f32[N], or of each f32[B,N]."""
    return popularity[rows] if popularity.ndim == 1 else np.take_along_axis(popularity, rows, 1)
