"""The nearest items that may be shown: an index is asked for more and more; what it cannot reach is compared.

Not an index, and not the rules (`rules.py` says what may be shown to whom). Names: B users, D the length of a vector, N
items of the catalogue, -1 = none.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.peruser import Shown, first_of

MAX_FETCH = 2048
"""Neighbours asked of an index at most: what GPU indexes can return at once. Beyond it, all are compared."""
SCORES = 1 << 24
"""Scores that are held at a time where all are compared: 64 MB."""

Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.float32], NDArray[np.int64]]]
"""(user vectors f32[B,D], k) -> (scores f32[B,k], catalogue rows i64[B,k], -1 = none): what an index over
`item_vectors` answers.
"""
Compare = Callable[[NDArray[np.int64], NDArray[np.int32]], NDArray[np.float32]]
"""(users i64[U] by their number, catalogue rows i32[R]) -> scores f32[U,R] of all of them: an exact comparison."""


def nearest(
    search: Search,
    compare: Compare,
    vectors: NDArray[np.float32],
    shown: Shown,
    m: int,
    least: int,
    one_of: NDArray[np.int32] | None = None,
) -> NDArray[np.int64]:
    """The items nearest to user vectors f32[B,D] that may be shown, i64[B,m], nearest first, -1 where there are fewer.
    one_of: as `Terms` has it; of a group only the nearest counts.

    A few more than m are looked at, since most of what a user may not see is far from what is near; who then has fewer
    than half of m is looked at again, further. So a user has between half of m and m, or all that there are, or `least`
    at least where more is hidden than an index finds at once (`MAX_FETCH`). Where the rules leave so few items that an
    index would hardly meet them, these few are compared instead.
    """
    n = len(shown.anyone)
    near = np.full((len(vectors), m), -1, np.int64)
    left = np.ones(len(vectors), bool)
    for mask, users in shown.groups():
        open_ = int(np.count_nonzero(mask))
        if open_ * MAX_FETCH < n * m:
            near[users] = best_of(compare, np.flatnonzero(mask).astype(np.int32), shown, users, m, one_of)
            left[users] = False
    users, fetch, enough = np.flatnonzero(left), min(m + m // 4, n), max(m // 2, min(least, m))
    while len(users):
        found = search(vectors[users], fetch)[1]
        found = first_of(_once(np.where(shown.at(found, users), found, -1), one_of), m)
        near[users, : found.shape[1]] = found
        users = users[(found >= 0).sum(1) < enough]
        if fetch >= min(n, max(m, MAX_FETCH)):
            break
        fetch = min(4 * fetch, n, max(m, MAX_FETCH))
    few = np.isin(np.arange(len(vectors)), users) & ((near >= 0).sum(1) < min(least, m))
    if fetch < n and few.any():
        for mask, members in shown.groups():
            if len(members := members[few[members]]):
                near[members] = best_of(compare, np.flatnonzero(mask).astype(np.int32), shown, members, m, one_of)
    return near


def best_of(
    compare: Compare,
    rows: NDArray[np.int32],
    shown: Shown,
    users: NDArray[np.int64],
    m: int,
    one_of: NDArray[np.int32] | None = None,
) -> NDArray[np.int64]:
    """Of catalogue rows i32[R], ascending, the m best for each of these users i64[U] that are not hidden from them:
    i64[U,m], best first, -1 where there are fewer. All are compared.
    """
    out = np.full((len(users), m), -1, np.int64)
    if not len(rows):
        return out
    step = max(1, SCORES // len(rows))
    for at in range(0, len(users), step):
        part = users[at : at + step]
        scores = compare(part, rows)
        whose, hidden = shown.hidden.taken(part)
        place = np.minimum(np.searchsorted(rows, hidden), len(rows) - 1)
        here = rows[place] == hidden
        scores[whose[here], place[here]] = -np.inf
        found = _top(scores, rows, m, one_of)
        out[at : at + step, : found.shape[1]] = found
    return out


def _top(
    scores: NDArray[np.float32], rows: NDArray[np.int32], m: int, one_of: NDArray[np.int32] | None
) -> NDArray[np.int64]:
    """The m best of rows i32[R] by scores f32[U,R], best first; -inf is none."""
    fetch = min(m, len(rows))
    while True:
        best = np.argpartition(-scores, fetch - 1, axis=1)[:, :fetch]
        value = np.take_along_axis(scores, best, 1)
        order = np.lexsort((best, -value), axis=1)
        best, value = np.take_along_axis(best, order, 1), np.take_along_axis(value, order, 1)
        found = _once(np.where(np.isfinite(value), rows[best], -1).astype(np.int64), one_of)
        # where variants share a place, more are looked at until there are m others, or none
        if one_of is None or fetch == len(rows) or ((found >= 0).sum(1) >= m).all():
            return first_of(found, m)
        fetch = min(4 * fetch, len(rows))


def _once(rows: NDArray[np.int64], one_of: NDArray[np.int32] | None) -> NDArray[np.int64]:
    """Rows i64[U,F], those of a group but for the first of it made -1."""
    if one_of is None or not rows.shape[1]:
        return rows
    wide = rows.shape[1]
    group = np.where(rows >= 0, one_of.take(rows), -1)
    group = np.where(group >= 0, group, len(one_of) + np.arange(wide))  # alone: no group has such a number
    bits = wide.bit_length()
    ranked = np.sort((group.astype(np.int64) << bits) + np.arange(wide), axis=1)
    user, first = np.nonzero(ranked[:, 1:] >> bits == ranked[:, :-1] >> bits)
    out = rows.copy()
    out[user, ranked[user, first + 1] & ((1 << bits) - 1)] = -1
    return out
