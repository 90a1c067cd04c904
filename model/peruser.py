"""Numbers for some items of each user, in columns.

Not a matrix library: what lists need of sparse rows (sums, lookups, a padded view), without a Python step per user and
without a place for every item of a large catalogue. Names: B users, N items of the catalogue, F numbers in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from model.history import spans
from model.slots import Slots

MANY = 32
"""Users from whom on a table is made of what they have: for few, a search in order takes less time."""
SCATTER = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio: times this, neighbours differ in their first bits (Knuth, 1973); no two become one."""
Value = TypeVar("Value", bound=np.generic)
Row = TypeVar("Row", bound=np.integer)


@dataclass(frozen=True, eq=False)
class PerUser:
    """keys i64[F], ascending and distinct: user x N + catalogue row; values f32[F]: the number of each. Every other
    item of a user has 0.
    """

    users: int
    items: int
    keys: NDArray[np.int64]
    values: NDArray[np.float32]

    @staticmethod
    def summed(
        users: int,
        items: int,
        user: NDArray[np.integer],
        row: NDArray[np.integer],
        values: NDArray[np.floating],
    ) -> PerUser:
        """From numbers in any order, (user, catalogue row, value) each; those of one item of a user add up."""
        keys, which = np.unique(user.astype(np.int64) * items + row, return_inverse=True)
        return PerUser(users, items, keys, np.bincount(which, values, len(keys)).astype(np.float32))

    @cached_property
    def user(self) -> NDArray[np.int64]:
        """i64[F]: whose each number is."""
        return self.keys // max(self.items, 1)

    @cached_property
    def row(self) -> NDArray[np.int32]:
        """i32[F]: the catalogue row that each number is for."""
        return (self.keys - self.user * self.items).astype(np.int32)

    def at(self, rows: NDArray[np.integer], of: NDArray[np.integer] | None = None) -> NDArray[np.float32]:
        """The numbers for catalogue rows i[B,M] (-1 = none, which has 0), f32[B,M]. of: whose the rows are; row
        b is user b's where it is not given.
        """
        place, found = self._sought(rows, of)
        return np.where(found, self.values.take(place), np.float32(0)) if len(self.values) else found.astype(np.float32)

    def has(self, rows: NDArray[np.integer], of: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
        """Whether there are numbers for catalogue rows i[B,M]: bool[B,M]."""
        return self._sought(rows, of)[1]

    def padded(self, values: NDArray[Value], nothing: float) -> NDArray[Value]:
        """Values [F] that go with the numbers, a row for each user, [B,widest]; `nothing` where a row has fewer."""
        place, wide = self._places
        out = np.full((self.users, wide), nothing, values.dtype)
        out[self.user, place] = values
        return out

    @cached_property
    def _slots(self) -> Slots:
        return Slots(_scattered(self.keys))

    @cached_property
    def _places(self) -> tuple[NDArray[np.int64], int]:
        """Where each number stands among its user's, i64[F], and how many a user has at most."""
        firsts = np.searchsorted(self.user, np.arange(self.users + 1))
        return np.arange(len(self.keys)) - firsts[self.user], int(np.diff(firsts).max(initial=0))

    def _sought(
        self, rows: NDArray[np.integer], of: NDArray[np.integer] | None
    ) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        of = np.arange(len(rows)) if of is None else of
        place, found = self.find(of[:, None] * self.items + rows)
        return place, found & (rows >= 0)

    def taken(self, users: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Of these users i[U], ascending: whose number (0..U) each is that they have, and its catalogue row."""
        first = np.searchsorted(self.keys, users * self.items)
        count = np.searchsorted(self.keys, (users + 1) * self.items) - first
        return np.repeat(np.arange(len(users)), count), self.row[spans(first, count)]

    def find(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Where these keys are among its own, and whether they are."""
        if not len(self.keys):
            return np.zeros(keys.shape, np.int64), np.zeros(keys.shape, bool)
        if self.users >= MANY:
            place = self._slots.find(_scattered(keys))
            return place, place >= 0
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return place, self.keys.take(place) == keys


@dataclass(frozen=True, eq=False)
class Narrowed:
    """Users who asked for less than all: masks bool[K,N], what may be shown by each; of i32[B], the number of each
    user's mask, -1 = none.
    """

    masks: NDArray[np.bool_]
    of: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Shown:
    """Which items may be shown to whom. anyone bool[N]: what may be shown to those who did not ask for less; hidden:
    what a user may not see all the same.
    """

    anyone: NDArray[np.bool_]
    hidden: PerUser
    narrowed: Narrowed | None = None

    def at(self, rows: NDArray[np.integer], of: NDArray[np.integer] | None = None) -> NDArray[np.bool_]:
        """Of catalogue rows i[B,M], -1 = none: bool[B,M]. `of` as in `PerUser.at`."""
        users = np.arange(len(rows)) if of is None else of
        return (rows >= 0) & self._open(rows, users[:, None]) & ~self.hidden.has(rows, of)

    def of(self, numbers: PerUser) -> NDArray[np.bool_]:
        """Of each item that has a number for a user, bool[F]."""
        return self._open(numbers.row, numbers.user) & ~self.hidden.find(numbers.keys)[1]

    def every(self) -> NDArray[np.bool_]:
        """Of all items, bool[B,N]: for a small catalogue, or few users."""
        out = np.repeat(self.anyone[None], self.hidden.users, axis=0)
        for mask, users in self.groups():
            out[users] = mask
        out[self.hidden.user, self.hidden.row] = False
        return out

    def groups(self) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
        """Each mask bool[N], and the users for whom it holds, ascending."""
        if self.narrowed is None:
            yield self.anyone, np.arange(self.hidden.users)
            return
        for number in np.unique(self.narrowed.of).tolist():
            mask = self.anyone if number < 0 else self.narrowed.masks[number]
            yield mask, np.flatnonzero(self.narrowed.of == number)

    def _open(self, rows: NDArray[np.integer], users: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Of rows for users, arrays that fit each other, by the masks alone."""
        out = self.anyone[rows]
        if self.narrowed is not None:
            which = np.broadcast_to(self.narrowed.of[users], out.shape)
            asked = which >= 0
            out[asked] = self.narrowed.masks[which[asked], rows[asked]]
        return out


def _scattered(keys: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Keys as hashes, distinct where they are."""
    return keys.view(np.uint64) * SCATTER


def distinct(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each once, ascending. For thousands numpy's `unique` takes several times as long."""
    ranked = np.sort(keys)
    return ranked[np.concatenate([ranked[:1] == ranked[:1], ranked[1:] != ranked[:-1]])]


def first_of(rows: NDArray[Row], m: int) -> NDArray[Row]:
    """The first m of each row [B,M] that are not -1, in order; -1 where there are fewer."""
    there = rows >= 0
    number = np.cumsum(there, axis=1, dtype=np.int32)
    out = np.full((len(rows), min(m, rows.shape[1])), -1, rows.dtype)
    out[np.arange(1, out.shape[1] + 1) <= number[:, -1:]] = rows[there & (number <= m)]
    return out


def best_first(rows: NDArray[np.integer], scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Columns by scores f[B,M], best first, ties by catalogue row i[B,M]: i64[B,M]. Single-precision scores and rows go
    into one word each, which numpy sorts several times as fast as two columns.
    """
    if scores.dtype != np.float32:
        return np.lexsort((rows, -scores), axis=1)
    bits = (np.float32(0) - scores).view(np.int32)  # 0 - x has no -0 where x is 0, as -x would
    rising = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits).astype(np.int64)
    return np.argsort((rising << 32) + rows, axis=1)
