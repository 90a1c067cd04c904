"""Training data: canonical histories laid end to end, and windows cut from them.

Not the loss and not the loop. Inputs come from the one definition of a history (`model/history.py`); windows
are as long as the served one; a target sees the profile made before the last multiple of 16 interactions, so
one up to 15 interactions old, as a cached profile is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from model.history import HISTORY, Histories, by_user
from model.longterm import SEGMENT, LongTerm
from model.replay import Timeline

CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Sequences:
    """n interactions, grouped by user and canonical in each.

    events i64[n] (index of each in the timeline), rows i64[n] (catalogue), actions i64[n], times i64[n] (ms), values
    f32[n] (NaN = none); wanted bool[n]: a sign of interest; target bool[n]: wanted, and new to its user, unless
    `again`; profile i64[n]: which of `profiles` (f32[S,P] each, the first empty) goes with it as a target; starts and
    ends i64[U].
    """

    events: NDArray[np.int64]
    values: NDArray[np.float32]
    wanted: NDArray[np.bool_]

    rows: NDArray[np.int64]
    actions: NDArray[np.int64]
    times: NDArray[np.int64]
    target: NDArray[np.bool_]
    profile: NDArray[np.int64]
    profiles: list[NDArray[np.float32]]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    again: bool = False
    """Whether what a user has met may come next."""
    baskets: bool = False
    """Whether what a user does at one time is one basket, none of whose items tells of another."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B windows of K positions, left-padded: rows i64[B,K] (-1 = none), actions and times i64[B,K]; following
    i64[B,K]: where the next interaction stands in `Sequences`, -1 = none; asked bool[B,K]: positions where that is a
    target; of these X, in order: target i64[X], profile i64[X], and met bool[X,C], which of the `candidates` (the
    whole catalogue, where they are None) the user had met before it, where these cannot come again; back i64[X]: how
    many positions before the asked one its answer is made, None = none.
    """

    rows: NDArray[np.int64]
    actions: NDArray[np.int64]
    times: NDArray[np.int64]
    asked: NDArray[np.bool_]
    target: NDArray[np.int64]
    profile: NDArray[np.int64]
    met: NDArray[np.bool_]
    following: NDArray[np.int64]
    candidates: Candidates | None
    back: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Candidates:
    """What a sampled softmax is over: rows i64[C] ascending, and the log of each one's chance to be drawn f32[C]."""

    rows: NDArray[np.int64]
    log_chance: NDArray[np.float32]


class Sampler:
    """Mixed negatives (Yang et al. 2020): the targets of the batch, and as many items drawn evenly as `even`.

    The first are hard, for they are popular; the second reach what nobody has met. The chance of an item to be among
    them is known, and the loss corrects for it (logQ; Yi et al. 2019).
    """

    def __init__(self, data: Sequences, items: int, even: int, rng: np.random.Generator) -> None:
        met = np.bincount(data.rows[data.target], minlength=items)
        self._share = np.minimum(met / max(met.sum(), 1), 1 - 1e-9)
        self._items = items
        self._even = even
        self._rng = rng

    def __call__(self, targets: NDArray[np.int64]) -> Candidates:
        drawn = self._rng.integers(self._items, size=self._even)
        rows = np.unique(np.concatenate([targets, drawn]))
        missed = len(targets) * np.log1p(-self._share[rows]) + self._even * np.log1p(-1 / max(self._items, 2))
        return Candidates(rows, np.log(-np.expm1(missed)).astype(np.float32))


def shuffled(data: Sequences, rng: np.random.Generator) -> Sequences:
    """The same, with interactions of one user and second in another order: nobody knows which came first.

    None leaves its segment: the profile that goes with a later target must not know it.
    """
    user = np.repeat(np.arange(len(data.starts)), data.ends - data.starts)
    place = np.arange(len(data.rows)) - data.starts[user]
    order = np.lexsort((rng.random(len(user)), place // SEGMENT, data.times // 1000, user))
    columns = {c: getattr(data, c)[order] for c in ("events", "values", "wanted", "rows", "actions", "times")}
    able = (place > 0) & columns["wanted"]
    return replace(data, **columns, target=able if data.again else able & _first_of(user, columns["rows"]))


def _first_of(user: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a user meets an item for the first time."""
    first = np.zeros(len(rows), bool)
    first[np.unique(np.stack([user, rows]), axis=1, return_index=True)[1]] = True
    return first


Cut = tuple[int, int, int]
"""(start of the user, first input, end): the inputs are first..end-2 and their targets first+1..end-1."""


def sequences(
    line: Timeline,
    end: int,
    long_term: LongTerm,
    dim: int,
    values: NDArray[np.float32] | None = None,
    again: bool = False,
    baskets: bool = False,
) -> Sequences:
    """The first `end` events as canonical histories, items outside the catalogue left out. values f32[n]: of all
    events of the timeline. again, baskets: see `Sequences`.
    """
    known = np.flatnonzero(line.rows[:end] >= 0)
    order, users = by_user(line.users[known], line.times[known], line.actions[known], line.items[known])
    at = known[order]
    starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(at) else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], len(at)].astype(np.int64)
    place = np.arange(len(at)) - np.repeat(starts, ends - starts)
    wanted = line.weights[at] > 0
    target = wanted & (place > 0)
    profile = np.zeros(len(at), np.int64)
    made = np.flatnonzero((place % SEGMENT == 0) & (place > 0))
    profile[made] = np.arange(1, len(made) + 1)
    profile = np.where(place < SEGMENT, 0, np.maximum.accumulate(profile))
    found: list[NDArray[np.float32]] = []
    for some in np.split(made, range(CHUNK, len(made), CHUNK)):
        found += long_term.profiles(*_before(line, at, some, place[some]))
    return Sequences(
        rows=line.rows[at].astype(np.int64),
        actions=line.actions[at].astype(np.int64),
        times=line.times[at],
        events=at,
        values=np.full(len(at), np.nan, np.float32) if values is None else values[at],
        wanted=wanted,
        target=target if again else target & _first_of(users, line.rows[at].astype(np.int64)),
        profile=profile,
        profiles=[np.zeros((0, dim), np.float32), *found],
        starts=starts,
        ends=ends,
        again=again,
        baskets=baskets,
    )


def _before(
    line: Timeline, at: NDArray[np.int64], made: NDArray[np.int64], older: NDArray[np.int64]
) -> tuple[Histories, NDArray[np.int32]]:
    """The history before each place in `made` (indices into `at`), `older` interactions long before the
    limit; and its rows.
    """
    back = np.arange(-HISTORY, 0)[None]
    there = -back <= older[:, None]
    source = at[np.maximum(made[:, None] + back, 0)]

    def column(values: NDArray) -> NDArray:
        return np.where(there, values[source], np.zeros((), values.dtype))

    histories = Histories(
        column(line.items),
        column(line.actions),
        column(line.times),
        column(line.weights),
        there.sum(1).astype(np.int32),
        np.zeros(0, np.uint32),
        np.zeros(len(made) + 1, np.int64),
    )
    return histories, np.where(there, line.rows[source], -1).astype(np.int32)


def windows(data: Sequences, length: int, rng: np.random.Generator) -> list[Cut]:
    """Each user's history cut from the newest end into windows of `length`, after a random number of the
    newest is left off, so that cuts fall elsewhere in each epoch.
    """
    cuts = []
    for start, end in zip(data.starts.tolist(), data.ends.tolist(), strict=True):
        if end - start > length:
            end -= int(rng.integers(min(length, end - start - 1)))
        while end - start >= 2:
            cuts.append((start, max(start, end - 1 - length), end))
            end -= length
    return cuts


def batch(data: Sequences, cuts: list[Cut], length: int, items: int, sampler: Sampler | None = None) -> Batch:
    """These windows as columns, padded to `length`, over a catalogue of `items` or what the sampler draws of it."""
    first, end = (np.array([c[i] for c in cuts])[:, None] for i in (1, 2))
    place = end - 1 - length + np.arange(length)[None]
    there = place >= first
    place = np.maximum(place, 0)
    following = np.minimum(place + 1, len(data.rows) - 1)
    asked = there & data.target[following]
    back = None
    if data.baskets:
        within = _within(data, following)
        asked &= np.arange(length)[None] - within >= np.argmax(there, axis=1)[:, None]
        back = within[asked]
    rows = np.where(there, data.rows[place], -1)
    target = data.rows[following[asked]]
    candidates = sampler(target) if sampler is not None else None
    column = np.arange(items)
    if candidates is not None:  # one column more for all that was not drawn
        column = np.full(items, len(candidates.rows))
        column[candidates.rows] = np.arange(len(candidates.rows))
    return Batch(
        rows=rows,
        actions=np.where(there, data.actions[place], 0),
        times=np.where(there, data.times[place], 0),
        asked=asked,
        target=target,
        profile=data.profile[following[asked] - (0 if back is None else back)],
        met=_met(data, cuts, rows, asked, column, items if candidates is None else len(candidates.rows)),
        following=np.where(there, following, -1),
        candidates=candidates,
        back=back,
    )


def _within(data: Sequences, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of a basket come before these interactions of it."""
    new = np.ones(len(data.times), bool)
    new[1:] = data.times[1:] != data.times[:-1]
    new[data.starts] = True
    return at - np.maximum.accumulate(np.where(new, np.arange(len(new)), 0))[at]


def _met(
    data: Sequences,
    cuts: list[Cut],
    rows: NDArray[np.int64],
    asked: NDArray[np.bool_],
    column: NDArray[np.int64],
    width: int,
) -> NDArray[np.bool_]:
    """bool[X,width]: what the user had met before each target, and so cannot be it; `column` says where each item of
    the catalogue is.
    """
    if data.again:
        return np.zeros((int(asked.sum()), width), bool)
    before = np.zeros((len(cuts), width + 1), bool)
    for b, (start, first, _) in enumerate(cuts):
        before[b, column[data.rows[start:first]]] = True
    row, place = np.nonzero(asked)
    met = before[row]
    target, older = np.nonzero(np.arange(rows.shape[1])[None] <= place[:, None])
    item = rows[row[target], older]
    met[target[item >= 0], column[item[item >= 0]]] = True
    return met[:, :width]
