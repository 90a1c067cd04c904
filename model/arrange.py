"""From scored candidates to lists: place by place, within the terms of each list.

Not what an item scores (`mix.py`), not which items may be shown at all (`Shown`), and not where terms come from
(`rules.py`). Utilities come in, in whose order items would stand if nothing else were asked: boosts and re-ranking
(`diversity.py`) are in them. Then for each place, of all users at once:

1. A pin stands at its place, whatever it scores; pins are counted by quotas before anything else is chosen.
2. Free are the candidates that are not in the list, of whose `one_of` nothing is in it, and whose quotas have room.
   Where the places left are as many as quotas still want, each an item of its own, only what they want is free.
3. The best of the free ones stands there, or one of them is drawn (`explore.py`).

So a propensity is the probability of the item at its place, given those above it and the terms; 1 for pins and for
what is not drawn. A list is shorter where nothing is free. Names: B users, U of them, M candidates, n places, Q quotas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.diversity import DiversityConfig, reranked
from model.explore import ExploreConfig, chances, drawn, newcomers, uniforms
from model.exposure import Bounds
from model.online import OnlineScores
from model.peruser import Shown, best_first
from model.terms import Quota, Terms

NOBODY = -1
NARROW = 6
"""Candidates that are looked at first, times the places of a list."""


@dataclass(frozen=True, slots=True, eq=False)
class Explored:
    """What lists were drawn from, for whoever asks later what another policy would have done: utilities f32[B,W],
    descending, of the columns that could be drawn, -inf where there are fewer, the first `pool` of them the pool; new
    bool[B,W]: those with few interactions; free bool[B,n,W]: which could stand at each place; at i32[B,n]: which
    stands there, -1 where nothing was drawn (a pin, or the pool was used up).
    """

    utilities: NDArray[np.float32]
    new: NDArray[np.bool_]
    free: NDArray[np.bool_]
    at: NDArray[np.int32]
    pool: int

    def of(self, user: int, items: int) -> Drawn:
        """What the first so many items of a user's list were drawn from."""
        utilities = self.utilities[user]
        many = int(np.isfinite(utilities).sum())
        bit = np.left_shift(1, np.arange(many, dtype=np.int64))
        free = (self.free[user, :items, :many] @ bit).tolist()
        return Drawn(
            utilities[:many].tolist(), self.pool, int(self.new[user, :many] @ bit), free, self.at[user, :items].tolist()
        )


class Drawn(NamedTuple):
    """`Explored` of one list; new, and free at each place, as bits: the first column is the lowest."""

    utilities: list[float]
    pool: int
    new: int
    free: list[int]
    at: list[int]


@dataclass(frozen=True, slots=True, eq=False)
class Arranged:
    """Lists: column i64[B,n], which of a user's candidates stands at each place, -1 behind the last; propensity
    f32[B,n], 0 there.
    """

    column: NDArray[np.int64]
    propensity: NDArray[np.float32]
    explored: Explored | None = None


def arrange(
    rows: NDArray[np.int32],
    utility: NDArray[np.floating],
    terms: Terms,
    bounds: tuple[Quota, ...] = (),
    explore: ExploreConfig | None = None,
    new: NDArray[np.bool_] | None = None,
    seeds: NDArray[np.uint64] | None = None,
) -> Arranged:
    """Lists from catalogue rows i32[B,M], each once, -1 = none, and utilities f[B,M], -inf = not there. Pins must be
    among the rows. bounds: quotas beside those of the terms. new bool[B,M]: items with few interactions. seeds
    u64[B]: what is drawn follows from them.
    """
    order, quotas = best_first(rows, utility), (*terms.quotas, *bounds)
    if explore is not None and explore.on:
        if seeds is None:
            raise ValueError("what is drawn needs a seed for each user: pass `seeds`")
        rows, utility = np.take_along_axis(rows, order, 1), np.take_along_axis(utility, order, 1)
        new = np.zeros(rows.shape, bool) if new is None else np.take_along_axis(new, order, 1)
        chance = _Chance(explore, utility, new, seeds, terms.width)
        return _filled(_Filling(rows, utility, terms, quotas), order, chance)
    some = order[:, : NARROW * terms.width]
    if some.shape < order.shape and not ((terms.pinned >= 0).any() or any(quota.least.any() for quota in quotas)):
        # the first that are free take the places: nobody needs the rest unless these few leave one open
        arranged = _arranged(rows, utility, some, terms, quotas)
        if ((arranged.column >= 0).sum(1) >= terms.places).all():
            return arranged
    return _arranged(rows, utility, order, terms, quotas)


def _arranged(
    rows: NDArray[np.int32],
    utility: NDArray[np.floating],
    order: NDArray[np.int64],
    terms: Terms,
    quotas: tuple[Quota, ...],
) -> Arranged:
    """Lists from the columns i64[B,W] in this order, nothing drawn."""
    ordered = np.take_along_axis(rows, order, 1), np.take_along_axis(utility, order, 1)
    return _filled(_Filling(*ordered, terms, quotas), order, None)


def _filled(filling: _Filling, order: NDArray[np.int64], chance: _Chance | None) -> Arranged:
    """Fills all places, and leaves none open before the last item."""
    for place in range(filling.column.shape[1]):
        filling.fill(place, chance)
    there = filling.column >= 0
    column = np.where(there, np.take_along_axis(order, np.maximum(filling.column, 0), 1), -1)
    closed = np.argsort(~there, axis=1, kind="stable")  # a pin behind the last item moves up
    explored = chance.told(closed) if chance is not None else None
    likely = np.take_along_axis(np.where(there, filling.propensity, np.float32(0)), closed, 1)
    return Arranged(np.take_along_axis(column, closed, 1), likely, explored)


class Arranger:
    """What every list of one engine goes through, as it is set. Nothing changes after it is made. items f32[N,D]."""

    def __init__(
        self,
        diversity: DiversityConfig | None,
        explore: ExploreConfig | None,
        bounds: Bounds,
        items: NDArray[np.float32],
    ) -> None:
        self.diversity, self.explore = diversity or DiversityConfig(), explore or ExploreConfig()
        self._bounds, self._items = bounds, items

    @property
    def any(self) -> bool:
        """Whether lists are more than the best candidates within the bounds on exposure."""
        return self.explore.on or self.diversity.method != "none"

    def candidates(
        self,
        found: NDArray[np.int32],
        terms: Terms,
        shown: Shown | None,
        online: OnlineScores,
        seeds: NDArray[np.uint64] | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """Candidates i32[B,M'] with the pins among them and, where places are kept for them, items with few
        interactions that are `shown`; and which those are. What was found twice is -1 but once.
        """
        pins = terms.pinned if (terms.pinned >= 0).any() else terms.pinned[:, :0]
        few = np.zeros((len(found), 0), np.int32)
        if self.explore.new_items and shown is not None and seeds is not None:
            rows = online.few(self.explore.few)
            few = newcomers(rows[shown.anyone[rows]], seeds)
            few = np.where(shown.at(few), few, np.int32(-1))
        if found.shape[1] and not pins.shape[1] and not few.shape[1]:
            return found, np.zeros(found.shape, bool)
        found = found if found.shape[1] else np.full((len(found), 1), -1, np.int32)
        rows = _once(np.concatenate([few, pins, found], axis=1))
        return rows, (np.arange(rows.shape[1]) < few.shape[1]) & (rows >= 0)

    def utilities(self, rows: NDArray[np.int32], scores: NDArray[np.floating], places: int) -> NDArray[np.floating]:
        """By whose order candidates stand, f[B,M]; see `diversity.reranked`."""
        if self.diversity.method == "none":
            return scores
        return reranked(rows, scores, self._items, places, self.diversity)

    def lists(
        self,
        rows: NDArray[np.int32],
        scores: NDArray[np.floating],
        new: NDArray[np.bool_],
        terms: Terms,
        online: OnlineScores,
        seeds: NDArray[np.uint64] | None,
    ) -> Arranged:
        """See `arrange`; scores with the boosts."""
        utilities = self.utilities(rows, scores, terms.pinned.shape[1])
        bounds = self._bounds.quotas(online, terms.places) if self._bounds.any else ()
        return arrange(rows, utilities, terms, bounds, self.explore, new, seeds)


def _once(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    """Rows in their places, -1 for what stands further left already."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, 1)
    ordered[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = -1
    out = np.empty_like(rows)
    np.put_along_axis(out, order, ordered, 1)
    return out


class _Filling:
    """Lists that are being filled, over candidates that stand best first."""

    def __init__(
        self, rows: NDArray[np.int32], utility: NDArray[np.floating], terms: Terms, quotas: tuple[Quota, ...]
    ) -> None:
        users, places = terms.pinned.shape
        at, alone = rows.astype(np.intp), -1 - np.arange(rows.shape[1])
        groups = np.int32(-1) if terms.one_of is None else terms.one_of[at]
        self._alike = np.broadcast_to(np.where(groups >= 0, groups, alone), rows.shape)
        self._member = np.array([q.member[at] for q in quotas], bool).reshape(len(quotas), *rows.shape)
        self._need = np.array([q.least for q in quotas], np.int64).reshape(len(quotas), users)
        self._room = np.array([q.most for q in quotas], np.int64).reshape(len(quotas), users)
        self._wanting = bool((self._need > 0).any())
        self._free = np.isfinite(utility)
        if (full := self._room <= 0).any():
            self._free &= ~(full[..., None] & self._member).any(0)
        self.column = np.full((users, places), -1, np.int64)
        self.propensity = np.ones((users, places), np.float32)
        inside = np.arange(places) < terms.places[:, None]
        pinned = np.where(inside, terms.pinned, NOBODY)
        open_ = inside & (pinned < 0)
        # places that a list has beside its pins, from each place on
        self._left = np.cumsum(open_[:, ::-1], axis=1)[:, ::-1]
        if (pinned >= 0).any():
            self._pin(rows, pinned)
        self._open = inside & (self.column < 0)

    def _pin(self, rows: NDArray[np.int32], pinned: NDArray[np.int32]) -> None:
        for place in range(pinned.shape[1]):
            same = rows == pinned[:, place, None]
            user = np.flatnonzero(same.any(1) & (pinned[:, place] >= 0))
            self._put(user, same[user].argmax(1), place)

    def fill(self, place: int, chance: _Chance | None) -> None:
        """One place of every list that still has one there."""
        free = self._free
        if self._wanting and (self._need > 0).any():
            free = self._wanted(free, self._left[:, place])
        user = np.flatnonzero(self._open[:, place] & free.any(1))
        if not len(user):
            return
        if chance is None:
            column = free[user].argmax(1)
        else:
            column, self.propensity[user, place] = chance.choose(user, free[user], place)
        self._put(user, column, place)

    def _wanted(self, free: NDArray[np.bool_], left: NDArray[np.int64]) -> NDArray[np.bool_]:
        """What is free where quotas want members, bool[B,M]; left i64[B]: places with this one."""
        able = free & self._member
        must = np.minimum(np.maximum(self._need, 0), able.sum(2))
        wanted = (self._member & (must > 0)[..., None]).sum(0)
        # of this place's item so many quotas must want it, or not all can be met with the places behind it
        so_many = np.maximum(must.sum(0) - (left - 1), 0)
        most = np.where(free, wanted, 0).max(1, initial=0)
        free = free & (wanted >= np.minimum(so_many, most)[:, None])
        others = must.sum(0) - must
        tight = np.flatnonzero(((others > 0) & (self._room <= others)).any(0))
        if len(tight):
            free[tight] = self._spared(tight, free[tight], able[:, tight], must[:, tight])
        return free

    def _spared(
        self, users: NDArray[np.int64], free: NDArray[np.bool_], able: NDArray[np.bool_], must: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """A full quota takes nobody any more, so its last places are kept for those whom another one wants from it:
        what is free to these users without who would take these. able bool[Q,U,M], must i64[Q,U]: members that can be
        had, and how many are still wanted.
        """
        member = self._member[:, users]
        by_user = member.transpose(1, 0, 2).astype(np.float32)
        outside = np.matmul(able.transpose(1, 0, 2).astype(np.float32), 1 - by_user.transpose(0, 2, 1))
        kept = np.maximum(must.T[:, :, None] - outside, 0)  # [U,Q,R]: by a quota, of the places of another
        kept[:, np.arange(len(member)), np.arange(len(member))] = 0
        helps = np.matmul((kept > 0).transpose(0, 2, 1).astype(np.float32), by_user).transpose(1, 0, 2) > 0
        shut = ((self._room[:, users] <= kept.sum(1).T)[..., None] & member & ~helps).any(0)
        spared = free & ~shut
        return np.where(spared.any(1, keepdims=True), spared, free)

    def _put(self, user: NDArray[np.int64], column: NDArray[np.int64], place: int) -> None:
        """Items stand at a place; what shares their group, or a quota that they have filled, is not free any more."""
        self.column[user, place] = column
        of = slice(None) if len(user) == len(self._free) else user
        self._free[of] &= self._alike[of] != self._alike[user, column][:, None]
        if not len(self._member):
            return
        taken = self._member[:, user, column]
        self._room[:, of] -= taken
        if self._wanting:
            self._need[:, of] -= taken
        full = taken & (self._room[:, of] <= 0)
        if full.any():
            some = np.flatnonzero(full.any(0))
            self._free[user[some]] &= ~(full[:, some, None] & self._member[:, user[some]]).any(0)


class _Chance:
    """What is drawn: the columns that can be are the first of the pool, and whatever is new."""

    def __init__(
        self,
        config: ExploreConfig,
        utility: NDArray[np.floating],
        new: NDArray[np.bool_],
        seeds: NDArray[np.uint64],
        places: int,
    ) -> None:
        self._config, self._utility = config, utility
        self._numbers = uniforms(seeds, places)
        self._new = new & np.isfinite(utility) if config.new_items else np.zeros_like(new)
        can = self._new | (np.arange(utility.shape[1]) < config.pool)
        wide = int(can.sum(1).max(initial=0))
        # columns that can be drawn, in their order, at the left
        self._columns = np.argsort(~can, axis=1, kind="stable")[:, :wide]
        self._can = np.take_along_axis(can, self._columns, 1)
        self._at = np.full((len(seeds), places), -1, np.int32)
        self._open = np.zeros((len(seeds), places, wide), bool)

    def choose(
        self, user: NDArray[np.int64], free: NDArray[np.bool_], place: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """A column for each of these users, i64[U], and how likely it was; the best that is free, free bool[U,M], where
        nothing of the pool is.
        """
        column, p = free.argmax(1), np.ones(len(user))
        pool = np.flatnonzero(free[:, : self._config.pool].any(1))
        if len(pool):
            who = user[pool]
            open_ = np.take_along_axis(free[pool], self._columns[who], 1) & self._can[who]
            chance = self._chances(who, open_)
            one = drawn(chance, self._numbers[who, place])
            column[pool] = self._columns[who, one]
            p[pool] = chance[np.arange(len(who)), one]
            self._at[who, place], self._open[who, place] = one, open_
        return column, p

    def _chances(self, user: NDArray[np.int64], open_: NDArray[np.bool_]) -> NDArray[np.float64]:
        columns = self._columns[user]
        utility = np.take_along_axis(self._utility[user], columns, 1)
        new, pool = np.take_along_axis(self._new[user], columns, 1), np.arange(columns.shape[1]) < self._config.pool
        return chances(utility, open_, pool, new, self._config)

    def told(self, closed: NDArray[np.int64]) -> Explored:
        """What was drawn from, places closed up as the lists are."""
        utility = np.where(self._can, np.take_along_axis(self._utility, self._columns, 1), -np.inf)
        return Explored(
            utility.astype(np.float32),
            np.take_along_axis(self._new, self._columns, 1) & self._can,
            np.take_along_axis(self._open, closed[..., None], 1),
            np.take_along_axis(self._at, closed, 1),
            self._config.pool,
        )
