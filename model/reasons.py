"""Why an item was ranked: computed from the score, not told about it.

Not a second model. Every reason is a number of nats of the item's score (see `mix.py`), and its share is that
number over the sum of all positive ones of this item:

- interaction: what the score loses without one interaction of the window: exactly for the counts, log(p / (p
- its part of p)); for the neural part, over the newest five, by encoding the window without it
(leave-one-out), the weight of the fusion held fixed. Where what was met may be shown again, the item's own interactions
are reasons too. - taste: how much more the profile's part of the user
vector says for this item than for the user's average candidate. It is named by the item's category that is
strongest in the history. - popular: what the score loses without popularity: all there is to say to a user
without history.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.catalog import Catalog
from model.fusion import Fused
from model.history import Histories
from model.mix import Mix
from model.online import OnlineScores

NEWEST = 5
MOST = 3
LEAST_SHARE = 0.05
TASTE, POPULAR, AGAIN = -1, -2, -3
FLOOR = 1e-3

EncodeWindow = Callable[[Histories, NDArray[np.int32]], NDArray[np.float32]]
"""(windows, catalogue rows i32[B,K]) -> window vectors f32[B,D], without a profile."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason and its share of the positive evidence. `item` (hash) and `action` belong to interactions,
    `taste` to tastes.
    """

    type: Literal["interaction", "taste", "popular"]
    share: float
    item: int = 0
    action: int = 0
    taste: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """One user's list, best first: catalogue rows i32[n], scores f32[n], reasons for each (empty where they
    were not asked for).
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    reasons: list[list[Reason]]


class Reasoner:
    """Explains ranked lists over one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        names: dict[str, int] = {}
        pairs = [(i, names.setdefault(c, len(names))) for i, cs in enumerate(catalog.categories) for c in cs]
        at = np.array(pairs, np.int64).reshape(-1, 2)
        shape = (len(catalog), len(names))
        self._names = list(names)
        self._member: Any = sparse.csr_array((np.ones(len(at), np.float32), (at[:, 0], at[:, 1])), shape=shape)
        self._catalog = catalog

    def taste(self, history: NDArray[np.float32], item: int) -> str:
        """The category of `item` (catalogue row) with the greatest weight in `history` f32[C]; "" where it
        has none in common.
        """
        mine = self._member.indices[self._member.indptr[item] : self._member.indptr[item + 1]]
        if not len(mine):
            return ""
        best = mine[np.argmax(history[mine])]
        return self._names[best] if history[best] > 0 else ""

    def categories(self, h: Histories) -> NDArray[np.float32]:
        """How strong each category is in each history, f32[B,C], by action weight."""
        rows = self._catalog.index_of(h.items)
        user, place = np.nonzero(rows >= 0)
        item, member = rows[user, place], self._member
        n = member.indptr[item + 1] - member.indptr[item]
        taken = np.repeat(member.indptr[item] - (np.cumsum(n) - n), n) + np.arange(n.sum())
        kinds = len(self._names)
        met = np.repeat(user * kinds, n) + member.indices[taken]
        weights = np.repeat(np.maximum(h.weights[user, place], 0), n)
        return np.bincount(met, weights, len(h) * kinds).reshape(len(h), kinds).astype(np.float32)

    def explain(
        self,
        h: Histories,
        window: Histories,
        rows: NDArray[np.int32],
        fused: Fused,
        items: NDArray[np.float32],
        tastes: list[NDArray[np.float32]],
        lists: list[NDArray[np.int32]],
        encode_window: EncodeWindow,
        online: OnlineScores,
        mix: Mix,
        popularity: NDArray[np.float32],
    ) -> list[list[list[Reason]]]:
        """Reasons for every item of B users' lists (catalogue rows).

        rows i32[B,K]: the windows' catalogue rows; items f32[N,D]: item vectors; tastes: for each list how much more
        the profile's part of the user vector says for its items than for the average candidate, f32[n]; popularity: of
        items with all f32[N], or to each user f32[B,N].
        """
        lost = left_out(window, rows, fused, items, lists, encode_window)
        strength = self.categories(h)
        met = self._catalog.index_of(h.items) if mix.repeat else None
        out = []
        for b, chosen in enumerate(lists):
            parts = online.contribution(rows[b], chosen) * mix.related
            popular = mix.popular * (popularity if popularity.ndim == 1 else popularity[b])[chosen]
            own = np.zeros(len(chosen), np.float32)
            if met is not None:
                own = mix.repeat * online.returned_at(met[b : b + 1], chosen[None], mix)[0]
            p = np.maximum(parts.sum(0) + popular + own, 1e-30)
            evidence = mix.online * _drop(parts, p) + mix.neural * lost[b]
            again = own if met is None else _placed(rows[b], chosen, mix.online * _drop(own, p), evidence)
            lack = mix.online * _drop(popular, p)
            out.append(self._name(h, window, b, chosen, evidence, again, mix.neural * tastes[b], lack, strength[b]))
        return out

    def _name(
        self,
        h: Histories,
        window: Histories,
        b: int,
        chosen: NDArray[np.int32],
        evidence: NDArray[np.floating],
        again: NDArray[np.floating],
        taste: NDArray[np.floating],
        popular: NDArray[np.floating],
        strength: NDArray[np.float32],
    ) -> list[list[Reason]]:
        """The strongest reasons for each chosen item from nats: evidence [K,n], again [n], taste [n], popular
        [n].
        """
        evidence, taste, popular = (np.maximum(x, 0) for x in (evidence, taste, popular))
        total = np.maximum(evidence.sum(0) + again + taste + popular, 1e-9)
        items, whose = np.unique(window.items[b], return_inverse=True)
        summed = np.zeros((len(items), len(chosen)))
        np.add.at(summed, whose, evidence / total)
        # an item met several times is one reason; its strongest interaction gives the action
        strongest = np.argsort(-summed, axis=0, kind="stable")[:MOST]
        tastes, populars, agains = (taste / total).tolist(), (popular / total).tolist(), (again / total).tolist()
        named: list[list[Reason]] = []
        for i, row in enumerate(chosen.tolist()):
            found = [(float(summed[u, i]), u) for u in strongest[:, i].tolist()]
            found += [(tastes[i], TASTE), (populars[i], POPULAR), (agains[i], AGAIN)]
            reasons: list[Reason] = []
            for share, what in _strongest(found):
                if what == TASTE:
                    reasons.append(Reason("taste", share, taste=self.taste(strength, row)))
                elif what == POPULAR:
                    reasons.append(Reason("popular", share))
                elif what == AGAIN:
                    item = self._catalog.hashes[row]
                    newest = np.flatnonzero(h.items[b] == item)[-1]
                    reasons.append(Reason("interaction", share, int(item), int(h.actions[b, newest])))
                else:
                    place = int(np.argmax(np.where(whose == what, evidence[:, i], -1)))
                    reasons.append(Reason("interaction", share, int(items[what]), int(window.actions[b, place])))
            named.append(reasons)
        return named


def left_out(
    window: Histories,
    rows: NDArray[np.int32],
    fused: Fused,
    items: NDArray[np.float32],
    lists: list[NDArray[np.int32]],
    encode_window: EncodeWindow,
) -> list[NDArray[np.float32]]:
    """What each item's inner product loses without each of the newest five interactions: per user f32[K,n], 0
    for older ones.

    With w the window's weight and h its vector, the loss without interaction j is w (h - h_without_j) . item.
    """
    wide = rows.shape[1]
    user, place = np.nonzero(rows[:, max(wide - NEWEST, 0) :] >= 0)
    place = place + max(wide - NEWEST, 0)
    out = [np.zeros((wide, len(chosen)), np.float32) for chosen in lists]
    if not len(user):
        return out
    # row r of `keep` names the columns of its window without `place`, moved right by one; column 0 is emptied
    columns = np.arange(wide)[None]
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
    short, whole, long = (part.cpu().numpy() for part in (fused.short, fused.vectors, fused.long))
    loss = (whole - long)[user] - short[user, None] * encode_window(shorter, fewer)
    ends = np.searchsorted(user, np.arange(len(lists) + 1))
    for b, chosen in enumerate(lists):
        mine = slice(ends[b], ends[b + 1])
        out[b][place[mine]] = loss[mine] @ items[chosen].T
    return out


def _placed(
    rows: NDArray[np.int32], chosen: NDArray[np.int32], own: NDArray[np.floating], evidence: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Adds what an item's own interactions give it, own [n], to the newest of these in the window, and returns what is
    left: of items that the window does not have.
    """
    same = rows[:, None] == chosen[None]
    there = np.flatnonzero(same.any(0))
    left = own.copy()
    if len(there):
        evidence[len(rows) - 1 - same[::-1, there].argmax(0), there] += own[there]
        left[there] = 0
    return left


def _drop(part: NDArray[np.floating], whole: NDArray[np.floating]) -> NDArray[np.floating]:
    """log(whole / (whole - part)): what the log of a sum loses without a part of it; a part that is all of it
    counts as 99.9%.
    """
    return -np.log(np.maximum(1 - part / whole, FLOOR))


def _strongest(reasons: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """The three strongest of (share, what), those below a share of 0.05 left out; the strongest always stays where it
    says anything.
    """
    ranked = sorted((r for r in reasons if r[0] > 0), key=lambda r: -r[0])
    return [r for i, r in enumerate(ranked[:MOST]) if i == 0 or r[0] >= LEAST_SHARE]
