"""What is known of users beside what they did, as far as it shapes a list: groups as popularity, interests as a vector.

Not where it is known from (`people.py`) and not the score (`mix.py`). Pure functions, the same in a worker and in an
evaluation; only trained models read any of it. It gives way as a history grows: with n interactions known of a user it
weighs w = 1 - n / 8, and nothing from 8 on.

*Groups.* A group's counts of items are taken for a draw from a Dirichlet distribution around everybody's popularity p,
whose concentration k is the most likely one (empirical Bayes): a group that is like all is shrunk to all, one that is
not keeps what is its own. So an item is (c / p + k) / (C + k) times as popular in a group as with all, with c of the
group's C interactions. To a user in several groups, its popularity is what it is just now, times these, each to the
power of `STRENGTH` x w. Groups are learned where a model is trained, and kept in its folder. Items of categories that
a user likes would be `LIKED` nats more popular, before that power; it is 0.

*Interests.* s is what the model makes of a window of the items that are stated and nothing else. The user's vector is
u s + (1 - u) times what it was, u = w m / (m + n), m = `WEIGHT` x how many are stated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

from model.catalog import Catalog
from model.dataset import Events
from model.fusion import Fused
from model.history import WINDOW, item_hashes, weight_table
from model.mix import SHORT
from model.people import About, People

LEAST = 20
"""Users whom a group has at least; one of fewer says more of them than of others."""
MOST = 256
"""Groups that are kept: those with the most interactions."""
STRENGTH = 0.75
"""Of what a user's groups say together: attributes overlap. Chosen on MovieLens-100K, events 85% to 90%."""
LIKED = 0.0
"""Nats, before `STRENGTH`. None: 0.33 is worse for new users where categories are as wide as genres."""
WEIGHT = 0.25
"""Of a stated item beside an interaction, chosen as `STRENGTH` was."""
CONCENTRATIONS = 10.0 ** np.arange(1, 6.75, 0.25)
_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True, eq=False)
class Leanings:
    """What G groups lean to, over M items. groups u64[G], ascending; items u64[M] (hashes); more: CSR f32[G,M],
    log((c / p + k) / k): how much more popular an item is in the group than what the group never met, in nats.
    """

    groups: NDArray[np.uint64]
    items: NDArray[np.uint64]
    more: Any

    @staticmethod
    def learned(
        people: NDArray[np.int64], rows: NDArray[np.integer], about: About, catalog: Catalog
    ) -> Leanings | None:
        """From n interactions that are a sign of interest: whose, rows of `about` i64[n] (-1 = not described), and with
        what, catalogue rows. None where no group is large enough.
        """
        members = np.flatnonzero(np.bincount(people[people >= 0], minlength=len(about)))
        described = about.groups.take(members)
        groups, of = np.unique(described.words, return_inverse=True)
        member = np.repeat(members, np.diff(described.ends))
        belongs = sparse.csr_array((np.ones(len(of)), (of, member)), shape=(len(groups), len(about)))
        known = people >= 0
        met = sparse.csr_array(
            (np.ones(int(known.sum())), (people[known], rows[known])), shape=(len(about), len(catalog))
        )
        counts: Any = belongs @ met
        often = np.asarray(counts.sum(1)).ravel()
        large = np.flatnonzero(np.diff(belongs.indptr) >= LEAST)
        kept = np.sort(large[np.argsort(-often[large], kind="stable")[:MOST]])
        if not len(kept):
            return None
        popular = np.bincount(rows, minlength=len(catalog)) + 1.0
        more = _more(counts[kept].tocsr(), popular / popular.sum())
        return Leanings(groups[kept], catalog.hashes, more)

    def arrays(self) -> dict[str, NDArray]:
        """As named arrays, to be kept."""
        more = self.more
        return {
            "groups": self.groups,
            "items": self.items,
            "ends": more.indptr.astype(np.int64),
            "which": more.indices.astype(np.int32),
            "more": more.data.astype(np.float32),
        }

    @staticmethod
    def of(kept: Mapping[str, NDArray]) -> Leanings:
        """From `arrays`."""
        groups, items = kept["groups"], kept["items"]
        shape = (len(groups), len(items))
        return Leanings(groups, items, sparse.csr_array((kept["more"], kept["which"], kept["ends"]), shape=shape))

    def over(self, catalog: Catalog) -> Any:
        """`more` over the rows of a catalogue, CSR f32[G,N]; items that were not known then are as such that no group
        met.
        """
        row = catalog.index_of(self.items)[self.more.indices]
        group = np.repeat(np.arange(len(self.groups)), np.diff(self.more.indptr))
        there = row >= 0
        shape = (len(self.groups), len(catalog))
        return sparse.csr_array((self.more.data[there], (group[there], row[there])), shape=shape)


def leanings_of(
    events: Events, people: People, catalog: Catalog, action_weights: Mapping[str, float] | None = None
) -> Leanings | None:
    """From events of these people; see `Leanings.learned`."""
    rows = catalog.index_of(item_hashes(events.item))
    liked = np.flatnonzero((rows >= 0) & (weight_table(action_weights)[events.action] > 0))
    return Leanings.learned(people.rows(events.user[liked].tolist()), rows[liked], people.about, catalog)


def _more(counts: Any, popularity: NDArray[np.float64]) -> Any:
    """`Leanings.more` from counts CSR[G,M] and everybody's popularity f64[M], which sums to 1."""
    data = np.empty(counts.nnz, np.float32)
    for first, end in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        c, p = counts.data[first:end], popularity[counts.indices[first:end]]
        data[first:end] = np.log1p(c / p / concentration(c, p))
    return sparse.csr_array((data, counts.indices, counts.indptr), shape=counts.shape)


def concentration(counts: NDArray[np.floating], popularity: NDArray[np.floating]) -> float:
    """The most likely concentration of the Dirichlet distribution that a group's counts are a draw of, around the
    popularity of the same items with all (f[n] each, those that were met); on a grid of quarters of a decade.
    """
    k = CONCENTRATIONS[:, None]
    likely = gammaln(k[:, 0]) - gammaln(counts.sum() + k[:, 0])
    likely += (gammaln(counts + k * popularity) - gammaln(k * popularity)).sum(1)
    return float(CONCENTRATIONS[np.argmax(likely)])


@dataclass(frozen=True, slots=True, eq=False)
class Lean:
    """What is known of B users beside their histories, and still weighs: vectors f32[B,D] of stated interests, None
    where there are none, with their weights f32[B]; and popularity f32[B,N] as it is to each of them, None where it is
    as it is to all.
    """

    vectors: NDArray[np.float32] | None
    weights: NDArray[np.float32]
    popularity: NDArray[np.float32] | None

    def fused(self, fused: Fused) -> Fused:
        """User vectors with the interests in them, as a part of what lasts."""
        if self.vectors is None:
            return fused
        weight = fused.vectors.new_tensor(self.weights)
        added = weight[:, None] * fused.vectors.new_tensor(self.vectors)
        rest = 1 - weight
        return Fused(
            rest[:, None] * fused.vectors + added,
            rest.to(fused.short) * fused.short,
            rest[:, None] * fused.long + added,
            fused.without,
        )


Read = Callable[[NDArray[np.int32]], NDArray[np.float32]]
"""Windows of catalogue rows i32[B,K], left-padded with -1 -> user vectors f32[B,D], as if these were clicked."""


class Leaner:
    """Over one catalogue, for one model that reads windows so and learned what groups lean to."""

    def __init__(self, catalog: Catalog, read: Read, leanings: Leanings | None) -> None:
        self._catalog, self._read = catalog, read
        self._groups = leanings.groups if leanings is not None else np.zeros(0, np.uint64)
        self._more = leanings.over(catalog) if leanings is not None else None
        names = sorted({name for names in catalog.categories for name in names})
        self._categories = item_hashes(names)
        place = {name: n for n, name in enumerate(names)}
        pairs = [(place[name], row) for row, names in enumerate(catalog.categories) for name in names]
        at = np.array(pairs, np.int64).reshape(-1, 2)
        shape = (len(place), len(catalog))
        self._members: Any = sparse.csr_array((np.ones(len(at), np.float32), (at[:, 0], at[:, 1])), shape=shape)

    def lean(self, about: About, lengths: NDArray[np.integer], popularity: NDArray[np.float32]) -> Lean | None:
        """Of B users, whose histories have so many interactions, where items are this popular f32[N] with all. None
        where nothing of what is known of them still weighs.
        """
        left = np.maximum(1 - lengths / SHORT, 0).astype(np.float32)
        light = np.flatnonzero(left).tolist()
        stated = [self._stated(about.interests.row(b))[-WINDOW:] if b in light else _NONE for b in range(len(about))]
        count = WEIGHT * np.array([len(rows) for rows in stated])
        vectors, asked = None, np.flatnonzero(count)
        if len(asked):
            wide = np.full((len(asked), max(map(len, stated))), -1, np.int32)
            for at, b in enumerate(asked.tolist()):
                wide[at, wide.shape[1] - len(stated[b]) :] = stated[b]
            read = self._read(wide)
            vectors = np.zeros((len(about), read.shape[1]), np.float32)
            vectors[asked] = read
        popular: NDArray[np.float32] | None = None
        for b in light:
            more = self._preferred(about.groups.row(b), about.interests.row(b))
            if more is not None:
                popular = np.repeat(popularity[None], len(about), axis=0) if popular is None else popular
                popular[b] *= np.exp(STRENGTH * left[b] * more)
                popular[b] /= popular[b].sum()
        if vectors is None and popular is None:
            return None
        weight = left * count / np.maximum(count + lengths, WEIGHT)
        return Lean(vectors, weight.astype(np.float32), popular)

    def _stated(self, words: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The items among stated interests: catalogue rows, in the order of their hashes."""
        rows = self._catalog.index_of(words)
        return rows[rows >= 0]

    def _preferred(self, groups: NDArray[np.uint64], interests: NDArray[np.uint64]) -> NDArray[np.float32] | None:
        """How much more popular each item is to a user, f32[N] in nats; None where nothing says so."""
        said: list[NDArray[np.float32]] = []
        if self._more is not None and (known := np.flatnonzero(np.isin(self._groups, groups))).size:
            said.append(np.asarray(self._more[known].sum(0), np.float32).ravel())
        if LIKED and (liked := np.flatnonzero(np.isin(self._categories, interests))).size:
            said.append(LIKED * (np.asarray(self._members[liked].sum(0)).ravel() > 0).astype(np.float32))
        return np.stack(said).sum(0) if said else None
