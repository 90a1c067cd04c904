"""Why an item was ranked: computed from the score, not told about it.

Not a second model. Every reason is a number of nats of the item's score (see `mix.py`), and its share is that
number over the sum of all positive ones of this item:

- interaction: what the score loses without one interaction of the window: exactly for the counts, log(p / (p
- its part of p)); for the neural part, over the newest five, by encoding the window without it
(leave-one-out), the weight of the fusion held fixed. Where what was met may be shown again, the item's own interactions
are reasons too, with what habits say of having met it. - taste: how much more the profile's part of the user
vector says for this item than for the user's average candidate. It is named by the item's category that is
strongest in the history. - popular: what the score loses without popularity: all there is to say to a user
without history.

Beside the reasons stands how much they explain: their nats over all that speak for the item. To these belong the
positive ones above, named or not, and what the window's vector gives only as a whole: how much more it says for this
item than for the user's average candidate, less what is lost without one interaction after the other. Where many of
them say the same each can be spared, and none is the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.arrange import Drawn, Explored
from model.catalog import Catalog
from model.fusion import Fused
from model.history import Histories, spans
from model.mix import Mix
from model.online import OnlineScores, looked_up
from model.shortterm.base import NEWEST

MOST = 3
LEAST_SHARE = 0.05
NONE, INTERACTION, TASTE, POPULAR = 0, 1, 2, 3
FLOOR = 1e-3

EncodeWindow = Callable[[Histories, NDArray[np.int32]], NDArray[np.float32]]
"""(windows, catalogue rows i32[B,K]) -> window vectors f32[B,D], without a profile."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason and its share of the positive evidence. `item` (catalogue row) and `action` belong to interactions,
    `taste` to tastes.
    """

    type: Literal["interaction", "taste", "popular"]
    share: float
    item: int = -1
    action: int = 0
    taste: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Reasons:
    """Reasons for n items of B users, the strongest first, as columns [B,n,3]: kind i8 (`NONE` where there are fewer),
    share f32, item i32 (catalogue row) and action u8 of interactions, taste i32 (a row of `names`, -1 = none that the
    history and the item share); explained f32[B,n].
    """

    kind: NDArray[np.int8]
    share: NDArray[np.float32]
    item: NDArray[np.int32]
    action: NDArray[np.uint8]
    taste: NDArray[np.int32]
    explained: NDArray[np.float32]
    names: list[str]

    def of(self, user: int, items: int) -> list[list[Reason]]:
        """Those for the first so many items of a user's list."""
        columns = (self.kind, self.share, self.item, self.action, self.taste)
        rows = zip(*(column[user, :items].tolist() for column in columns), strict=True)
        return [[self._one(*reason) for reason in zip(*row, strict=True) if reason[0] != NONE] for row in rows]

    def _one(self, kind: int, share: float, item: int, action: int, taste: int) -> Reason:
        if kind == INTERACTION:
            return Reason("interaction", share, item, action)
        if kind == TASTE:
            return Reason("taste", share, taste=self.names[taste] if taste >= 0 else "")
        return Reason("popular", share)


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One user's list, best first: catalogue rows i32[n], scores f32[n], reasons for each and the share that they
    explain (both empty where they were not asked for); propensities, 1 each where nothing was arranged.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    reasons: list[list[Reason]]
    explained: list[float]
    propensities: list[float]
    drawn: Drawn | None = None


@dataclass(frozen=True, slots=True, eq=False)
class RankedLists:
    """Lists of B users, best first: items i32[B,n], catalogue rows, -1 behind the last; scores f32[B,n]; reasons, where
    they were asked for; propensity f32[B,n], where it is not 1 throughout, and what was drawn from, where anything was
    (`arrange.py`). As a sequence, one `Ranked` a user.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    reasons: Reasons | None
    propensity: NDArray[np.float32] | None = None
    explored: Explored | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, user: int) -> Ranked:
        n = int((self.items[user] >= 0).sum())
        items, scores = self.items[user, :n], self.scores[user, :n]
        likely = [1.0] * n if self.propensity is None else self.propensity[user, :n].tolist()
        drawn = None if self.explored is None else self.explored.of(user, n)
        if self.reasons is None:
            return Ranked(items, scores, [], [], likely, drawn)
        explained = self.reasons.explained[user, :n].tolist()
        return Ranked(items, scores, self.reasons.of(user, n), explained, likely, drawn)

    def __iter__(self) -> Iterator[Ranked]:
        return (self[user] for user in range(len(self)))


class Reasoner:
    """Explains ranked lists over one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._names = list(catalog.members.number)
        self._member = catalog.members.table(len(catalog))
        self._catalog = catalog

    def tastes(
        self, strength: NDArray[np.float32], user: NDArray[np.integer], item: NDArray[np.integer]
    ) -> NDArray[np.int32]:
        """For R pairs of a user and an item (catalogue row) the category of the item that is strongest in the user's
        history, strength f32[B,C]: i32[R]; -1 where they have none in common.
        """
        pair, kinds = self._kinds(item)
        weight = strength[user[pair], kinds]
        best = np.lexsort((-weight, pair))
        best = best[np.concatenate([[True], pair[best][1:] != pair[best][:-1]])] if len(best) else best
        best = best[weight[best] > 0]
        out = np.full(len(item), -1, np.int32)
        out[pair[best]] = kinds[best]
        return out

    def categories(self, h: Histories) -> NDArray[np.float32]:
        """How strong each category is in each history, f32[B,C], by action weight."""
        rows = self._catalog.index_of(h.items)
        user, place = np.nonzero(rows >= 0)
        which, kinds = self._kinds(rows[user, place])
        met = user[which] * len(self._names) + kinds
        weights = np.maximum(h.weights[user, place], 0)[which]
        size = len(h) * len(self._names)
        return np.bincount(met, weights, size).reshape(len(h), len(self._names)).astype(np.float32)

    def _kinds(self, items: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The categories of R items: (place of the item, category) each, places ascending."""
        member = self._member
        n = member.indptr[items + 1] - member.indptr[items]
        return np.repeat(np.arange(len(items)), n), member.indices[spans(member.indptr[items], n)]

    def explain(
        self,
        h: Histories,
        window: Histories,
        rows: NDArray[np.int32],
        fused: Fused,
        items: NDArray[np.float32],
        lists: NDArray[np.int32],
        tastes: NDArray[np.float32],
        windows: NDArray[np.float32],
        encode_window: EncodeWindow,
        online: OnlineScores,
        mix: Mix,
        popularity: NDArray[np.float32],
        habit: NDArray[np.float32] | None = None,
    ) -> Reasons:
        """Reasons for every item of B users' lists i32[B,n] (catalogue rows, -1 = none).

        rows i32[B,K]: the windows' catalogue rows; items f32[N,D]: item vectors; tastes, windows f32[B,n]: how much
        more the profile's part of the user vector, and the window's, say for an item than for the average candidate;
        popularity: of items with all f32[N], or to each user f32[B,N]; habit f32[B,n]: nats that they gain by having
        been met, beside what `mix.repeat` says.
        """
        chosen = np.maximum(lists, 0)
        lost = left_out(window, rows, fused, items, chosen, encode_window)
        parts = online.contribution(rows, chosen) * mix.related
        popular = mix.popular * looked_up(popularity, chosen)
        own = np.zeros(chosen.shape, np.float32)
        if mix.repeat:
            own = mix.repeat * online.returning(self._catalog.index_of(h.items), mix).at(chosen)
        p = np.maximum(parts.sum(1) + popular + own, 1e-30)
        evidence = mix.online * _drop(parts, p[:, None]) + mix.neural * lost
        again = mix.online * _drop(own, p) if mix.repeat else own
        again = again if habit is None else np.maximum(again + habit, 0)
        again = _placed(rows, chosen, again, evidence) if mix.repeat or habit is not None else again
        taste, lack = mix.neural * np.maximum(tastes, 0), np.maximum(mix.online * _drop(popular, p), 0)
        together = mix.neural * np.maximum(windows - np.maximum(lost, 0).sum(1), 0)
        others = np.stack([taste, lack, again], axis=1)
        return self._named(h, window, rows, lists, np.maximum(evidence, 0), others, together)

    def _named(
        self,
        h: Histories,
        window: Histories,
        rows: NDArray[np.int32],
        lists: NDArray[np.int32],
        evidence: NDArray[np.floating],
        others: NDArray[np.floating],
        together: NDArray[np.floating],
    ) -> Reasons:
        """The strongest reasons for each item of the lists, and the share that they explain, from nats: evidence
        [B,K,n] of the window's interactions, others [B,3,n]: taste, popularity, what came back from before it; together
        [B,n]: what no reason can be given for.
        """
        wide = rows.shape[1]
        same = (rows[:, :, None] == rows[:, None, :]) & (rows >= 0)[:, None, :]
        # an item met several times is one reason, at its newest place
        newest = rows >= 0
        if wide:
            newest &= wide - 1 - same[..., ::-1].argmax(2) == np.arange(wide)
        summed = np.where(newest[..., None], same.astype(np.float32) @ evidence, 0)
        total = np.maximum(evidence.sum(1) + others.sum(1), 1e-9)
        shares = np.concatenate([summed, others], axis=1) / total[:, None]
        share, best = _most(np.ascontiguousarray(shares.transpose(0, 2, 1)))
        named = share >= LEAST_SHARE
        named[..., 0] = share[..., 0] > 0
        named &= (lists >= 0)[..., None]
        kinds = np.array([*[INTERACTION] * wide, TASTE, POPULAR, INTERACTION], np.int8)
        out = Reasons(
            kind=np.where(named, kinds[best], NONE).astype(np.int8),
            share=np.where(named, share, 0).astype(np.float32),
            item=np.full(best.shape, -1, np.int32),
            action=np.zeros(best.shape, np.uint8),
            taste=np.full(best.shape, -1, np.int32),
            explained=((share * named).sum(2) * total / (total + together)).astype(np.float32),
            names=self._names,
        )
        user, place, _ = at = np.nonzero(named & (best < wide))
        out.item[at] = rows[user, best[at]]
        out.action[at] = _strongest_action(window, user, same[user, best[at]], evidence[user, :, place])
        user, place, _ = at = np.nonzero(named & (best == wide + 2))
        out.item[at] = lists[user, place]
        out.action[at] = _newest_action(h, user, self._catalog.hashes[lists[user, place]])
        user, place, _ = at = np.nonzero(out.kind == TASTE)
        if len(user):
            out.taste[at] = self.tastes(self.categories(h), user, lists[user, place])
        return out


def left_out(
    window: Histories,
    rows: NDArray[np.int32],
    fused: Fused,
    items: NDArray[np.float32],
    chosen: NDArray[np.int32],
    encode_window: EncodeWindow,
) -> NDArray[np.float32]:
    """What the inner product of each chosen item, catalogue rows i32[B,n], loses without each of the newest five
    interactions: f32[B,K,n], 0 for older ones.

    With w the window's weight and h its vector, the loss without interaction j is w (h - h_without_j) . item.
    """
    wide = rows.shape[1]
    first = max(wide - NEWEST, 0)
    out = np.zeros((len(rows), wide, chosen.shape[1]), np.float32)
    there = rows[:, first:] >= 0
    user, place = np.nonzero(there)
    if not len(user):
        return out
    short, whole, long = (part.cpu().numpy() for part in (fused.short, fused.vectors, fused.long))
    if fused.without is not None:
        others = fused.without.cpu().numpy()
    else:
        others = np.zeros((*there.shape, whole.shape[1]), np.float32)
        others[user, place] = encode_window(*_without(window, rows, user, place + first))
    loss = (whole - long)[:, None] - short[:, None, None] * others
    out[:, first:] = np.where(there[..., None], loss @ items.take(chosen, 0).transpose(0, 2, 1), 0)
    return out


def _without(
    window: Histories, rows: NDArray[np.int32], user: NDArray[np.integer], place: NDArray[np.integer]
) -> tuple[Histories, NDArray[np.int32]]:
    """Windows of R users without one place each, with their catalogue rows."""
    # row r of `keep` names the columns of its window without `place`, moved right by one; column 0 is emptied
    columns = np.arange(rows.shape[1])[None]
    keep = np.maximum(np.where(columns <= place[:, None], columns - 1, columns), 0)

    def without(column: NDArray) -> NDArray:
        return np.take_along_axis(column[user], keep, 1)

    shorter = Histories(
        without(window.items),
        without(window.actions),
        without(window.times),
        without(window.weights),
        window.lengths[user] - 1,
        np.zeros(0, np.uint32),
        np.zeros(len(user) + 1, np.int64),
    )
    fewer = without(rows)
    fewer[:, 0] = -1
    return shorter, fewer


def _most(shares: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """The greatest of shares f[B,n,R] and their places, [B,n,MOST] each, the first of equal ones first."""
    left, best = shares.copy(), np.empty((*shares.shape[:2], MOST), np.int64)
    for place in range(MOST):
        best[..., place] = left.argmax(2)
        np.put_along_axis(left, best[..., place : place + 1], -1, 2)
    return np.take_along_axis(shares, best, 2), best


def _placed(
    rows: NDArray[np.int32], chosen: NDArray[np.int32], own: NDArray[np.floating], evidence: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Adds what items' own interactions give them, own [B,n], to the newest of these in the window, evidence [B,K,n],
    and returns what is left: of items that the window does not have.
    """
    same = rows[:, :, None] == chosen[:, None]
    user, item = np.nonzero(same.any(1))
    left = own.copy()
    if not len(user):
        return left
    newest = rows.shape[1] - 1 - same[user, ::-1, item].argmax(1)
    evidence[user, newest, item] += own[user, item]
    left[user, item] = 0
    return left


def _strongest_action(
    window: Histories, user: NDArray[np.integer], places: NDArray[np.bool_], evidence: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """The action of that one of some places of a window, bool[R,K], whose evidence [R,K] is the strongest."""
    if not len(user):
        return np.zeros(0, np.uint8)
    return window.actions[user, np.where(places, evidence, -1).argmax(1)]


def _newest_action(h: Histories, user: NDArray[np.integer], items: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """What each of R users, rows of h, last did with an item (hashes u64[R]) of their history."""
    if not len(user):
        return np.zeros(0, np.uint8)
    newest = h.items.shape[1] - 1 - (h.items[user] == items[:, None])[:, ::-1].argmax(1)
    return h.actions[user, newest]


def _drop(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    """log(whole / (whole - part)): what the log of a sum loses without a part of it; a part that is all of it
    counts as 99.9%.
    """
    return -np.log(np.maximum(1 - part / whole, FLOOR))
