"""From fused users to lists on a device: all items compared, what may not be shown masked, the best arranged.

Not the vectors (`Engine.encode`), not reasons, and not what is drawn: an engine that explores makes its lists in numpy.

Where a CPU asks an index for some that are near, and the counts for some that are strong, here one product scores the
whole catalogue: inner products and the log of popularity for all, then what counts say beside that of the few items of
each user of which they say anything. So candidates are the best of all by the score itself.

Names: B users, N items of the catalogue, M candidates, n places, D the length of a vector, -1 = none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.device.arranging import Limits, best_first, filled, reranked
from model.device.arriving import Batch, Known, carried
from model.device.counting import Counted, Numbers, Said
from model.diversity import DiversityConfig
from model.exposure import Bounds
from model.fusion import Fused
from model.history import Histories
from model.mix import Mix
from model.online import OnlineScores
from model.people import Words
from model.peruser import PerUser
from model.rules import SPARE, Asked, Group, Rules, wanted
from model.terms import Terms

if TYPE_CHECKING:
    from model.catalog import Catalog

SCORES = 1 << 28
"""Scores that are held at a time: 1 GB."""


@dataclass(eq=False)
class Shelf:
    """The items of a catalogue on a device: vectors f32[N,D], where they stand, and the counts that were read last. One
    for all engines that share a model's vectors.
    """

    items: Tensor
    known: Known
    profile_dim: int
    _counted: Counted | None = None

    @staticmethod
    def of(catalog: Catalog, items: Tensor, profile_dim: int) -> Shelf:
        """Of an engine's item vectors, and profiles of that length."""
        return Shelf(items, Known(catalog, items.device), profile_dim)

    def batch(self, h: Histories, profiles: list[NDArray[np.float32]]) -> Batch:
        """Histories, and their profiles f32[S,P] where they are wanted, on the device."""
        return self.known.batch(h, profiles, self.profile_dim, self.items.device)

    def counted(self, online: OnlineScores) -> Counted:
        """These counts, copied when they are new."""
        known = self._counted
        if known is None or known.online is not online:
            known = self._counted = Counted(online, self.items.device)
        return known


class Wish(NamedTuple):
    """What is asked of a micro-batch's lists beside the users' vectors. places: of those who ask for no other number;
    popularity f32[B,N]: of items to each user, where that differs; hidden: hashes of items for each user; tired: nats
    that items lose; followers: what follows the windows, where it is known; sought: see `Lists.of`.
    """

    places: int
    sought: int
    popularity: NDArray[np.float32] | None = None
    hidden: Words | None = None
    asked: Asked | None = None
    tired: PerUser | None = None
    followers: PerUser | None = None


class Made(NamedTuple):
    """Lists, as `RankedLists` has them, and for reasons how much more the profile's part of the user's vector, and the
    window's, say for each item than for the average candidate: f32[B,n]. arranged: whether propensities are to be told.
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    tastes: NDArray[np.float32]
    windows: NDArray[np.float32]
    arranged: bool


class Lists:
    """What every list of one engine goes through. Nothing changes after it is made but what is remembered."""

    def __init__(self, shelf: Shelf, rules: Rules, bounds: Bounds, diversity: DiversityConfig, mix: Mix) -> None:
        self._shelf, self._rules, self._bounds, self._diversity, self._mix = shelf, rules, bounds, diversity, mix
        self._n, self._device = len(rules.anyone), shelf.items.device
        self._again, self._anyone, self._member = self._carried(rules.again, rules.anyone, rules.members)
        self._boosts = None if rules.boosts is None else self._carried(rules.boosts)[0]
        self._one_of = None if rules.one_of is None else self._carried(rules.one_of)[0].long()

    def of(self, batch: Batch, window: Tensor, fused: Fused, online: OnlineScores, wish: Wish) -> Made:
        """Lists for B users whose windows are of catalogue rows i64[B,K]: of twice `sought` candidates."""
        users, counts, mix = len(batch.rows), self._shelf.counted(online), self._mix
        terms = self._rules.unchecked(users, wish.places, wish.asked)
        arranged = terms is not None or self._diversity.method != "none"
        popularity = counts.popularity if wish.popularity is None else self._carried(wish.popularity)[0]
        follows = window if wish.followers is None else Numbers.of(wish.followers, self._device)
        said = counts.said(follows, batch.rows, mix.repeat_recency if mix.repeat else None)
        tired = None if wish.tired is None else Numbers.of(wish.tired, self._device)
        hidden, masks = self._hidden(batch, wish.hidden), self._masks(wish.asked)
        terms = terms or Terms.plain(users, wish.places)
        limits = self._limits(terms, hidden, masks, counts)
        scored = _Scored(self, fused, popularity, said, tired)
        found = [limits.pinned] if limits.pins else []
        found += [self._best(scored, hidden, masks, max(wish.sought, terms.width), terms)]
        rows = _distinct(torch.cat(found, 1))
        there = rows >= 0
        scores, neural, tastes = scored.of(rows, self._boosts)
        if arranged:
            utility = reranked(rows, scores, self._shelf.items, terms.width, self._diversity)
            column = filled(rows, utility, limits)
        else:
            there &= self._within(rows, scores, limits)
            scores = torch.where(there, scores, -torch.inf)
            column = best_first(rows, scores)[:, : wish.places]
            column = torch.where(there.gather(1, column), column, -1)
        at, listed = column.clamp(min=0), column >= 0
        share = torch.where(listed, _softmax(scores).gather(1, at), 0)
        items = torch.where(listed, rows.gather(1, at), -1).int()
        taste, rest = (_centred(part, there).gather(1, at) for part in (tastes, neural - tastes))
        items, share, taste, rest = (part.cpu().numpy() for part in (items, share, taste, rest))
        return Made(items, share, taste, rest, arranged)

    def _carried(self, *columns: NDArray) -> list[Tensor]:
        return carried(columns, self._device)

    # Who may be shown what

    def _hidden(self, batch: Batch, words: Words | None) -> Tensor:
        """Keys user x N + row, ascending, of what a user has met and may not be shown again, or has hidden."""
        keys = []
        if not self._rules.all_return:
            met = (batch.hashes != 0) & ~self._again[batch.actions]
            owner = torch.arange(len(met), device=met.device)[:, None].expand(met.shape)[met]
            seen = torch.cat([batch.hashes[met] & 0xFFFFFFFF, batch.seen])
            keys.append(self._shelf.known.keys(seen, torch.cat([owner, batch.owner])))
        if words is not None and len(words.words):
            hashes, owner = self._carried(words.words, words.owner)
            rows = self._shelf.known.rows(hashes)
            keys.append((owner * self._n + rows)[rows >= 0])
        return torch.cat(keys).sort().values if keys else batch.rows.new_zeros(0)

    def _masks(self, asked: Asked | None) -> tuple[Tensor, Tensor] | None:
        """What those who asked for less may be shown, bool[K+1,N], the last for who did not; whose each is, i64[B]."""
        narrowed = self._rules.narrowed(asked) if asked is not None else None
        if narrowed is None:
            return None
        masks, of = self._carried(np.concatenate([narrowed.masks, self._rules.anyone[None]]), narrowed.of)
        return masks, torch.where(of >= 0, of, len(masks) - 1).long()

    # What a list must keep to

    def _limits(self, terms: Terms, hidden: Tensor, masks: tuple[Tensor, Tensor] | None, counts: Counted) -> Limits:
        bounds = self._bounds.quotas(counts.online, terms.places) if self._bounds.any else ()
        quotas, empty = (*terms.quotas, *bounds), np.zeros((0, len(terms.places)), np.int32)
        least = np.stack([quota.least for quota in quotas]) if quotas else empty
        most = np.stack([quota.most for quota in quotas]) if quotas else empty
        places, pinned, least, most, *members = self._carried(
            terms.places, terms.pinned, least, most, *(quota.member for quota in bounds)
        )
        member = torch.cat([self._member[: len(terms.quotas)], *(member[None] for member in members)])
        pins = bool((terms.pinned >= 0).any())
        pinned = self._checked(pinned.long(), hidden, masks) if pins else pinned.long()
        wanting = any(quota.least.any() for quota in quotas)
        one_of = self._one_of if terms.one_of is not None else None
        return Limits(places.long(), pinned, member, least.long(), most.long(), one_of, wanting, pins)

    def _checked(self, pinned: Tensor, hidden: Tensor, masks: tuple[Tensor, Tensor] | None) -> Tensor:
        """Pins i64[B,n] without what a user may not be shown."""
        at = pinned.clamp(min=0)
        shown = self._anyone[at] if masks is None else masks[0][masks[1][:, None], at]
        away = Numbers(self._n, hidden, torch.ones(len(hidden), device=hidden.device)).at(at) > 0
        return torch.where(shown & ~away, pinned, -1)

    # Candidates

    def _best(
        self, scored: _Scored, hidden: Tensor, masks: tuple[Tensor, Tensor] | None, sought: int, terms: Terms
    ) -> Tensor:
        """The best by score for each user of what they may be shown, i64[B,M], and of each group of which a list is to
        have some; a part of the users at a time, for memory's sake.
        """
        found, groups = [], list(self._groups(terms))
        for part, scores in scored.parts(self._boosts, hidden):
            if masks is not None:
                scores.masked_fill_(~masks[0][masks[1][part]], -torch.inf)
            rows = _top(scores, min(2 * sought, self._n), max(sought // 2, terms.width), self._one_of_in(terms))
            found.append(torch.cat([rows, *self._more(scores, rows, groups, part, terms)], 1))
        wide = max(rows.shape[1] for rows in found)
        return torch.cat([torch.nn.functional.pad(rows, (0, wide - rows.shape[1]), value=-1) for rows in found])

    def _groups(self, terms: Terms) -> Iterator[tuple[Group, Tensor, NDArray[np.int32]]]:
        """As `wanted` has them, and which items are in each, bool[N]. By boosts all are sought as it is."""
        number = {id(quota.member): place for place, quota in enumerate(terms.quotas)}
        for group, least in wanted(replace(terms, boosts=None)):
            if least.any():
                some = self._member[[number[id(one)] for one in group.sets]].any(0)
                yield group, some if group.inside else ~some, least

    def _more(
        self,
        scores: Tensor,
        rows: Tensor,
        groups: list[tuple[Group, Tensor, NDArray[np.int32]]],
        part: slice,
        terms: Terms,
    ) -> Iterator[Tensor]:
        """More of those groups of which too few are among rows i64[B,M] for someone of this part."""
        if not groups:
            return
        least = self._carried(*(least[part] for _, _, least in groups))
        have = [(member[rows.clamp(min=0)] & (rows >= 0)).sum(1) for _, member, _ in groups]
        short = torch.stack([((n > 0) & (h < n + SPARE)).any() for n, h in zip(least, have, strict=True)]).tolist()
        for (_, member, wants), wanting in zip(groups, short, strict=True):
            if wanting:
                k = min(int(wants.max()) + SPARE, self._n)
                yield _top(torch.where(member, scores, -torch.inf), k, k, self._one_of_in(terms))

    def _one_of_in(self, terms: Terms) -> Tensor | None:
        return self._one_of if terms.one_of is not None else None

    def _within(self, rows: Tensor, scores: Tensor, limits: Limits) -> Tensor:
        """`Bounds.kept`, bool[B,M]: bounds one after the other, without a place for what another has left out."""
        kept = rows >= 0
        if not len(limits.member):
            return kept
        order = best_first(rows, scores)
        ordered, kept = rows.gather(1, order).clamp(min=0), scores.gather(1, order).isfinite()
        for member, most in zip(limits.member, limits.most, strict=True):
            mine = member[ordered] & kept
            kept &= ~mine | (mine.cumsum(1) <= most[:, None])
        return torch.zeros_like(kept).scatter(1, order, kept)

    @property
    def parts(self) -> tuple[Tensor, Tensor, Mix]:
        """Item vectors f32[N,D], who may be shown at all bool[N], and the weights of the score."""
        return self._shelf.items[: self._n], self._anyone, self._mix


class _Scored:
    """The score of `mix.combined`, of all items and of some."""

    def __init__(self, of: Lists, fused: Fused, popularity: Tensor, said: Said, tired: Numbers | None) -> None:
        self._items, self._anyone, self._mix = of.parts
        self._fused, self._popularity, self._said, self._tired = fused, popularity, said, tired

    def parts(self, boosts: Tensor | None, hidden: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Parts of the users, and scores f32[U,N] of all items for them, -inf where the rules of all or `hidden`, keys
        that ascend, forbid an item; boosts f32[N] are in them. What is yielded may be written to.
        """
        users, n, mix = len(self._fused.vectors), len(self._items), self._mix
        base = mix.online * (mix.popular * self._popularity).log()
        base = torch.where(self._anyone, base if boosts is None else base + boosts, -torch.inf)
        vectors, more = mix.neural * self._fused.vectors, self._beyond()
        step = max(1, SCORES // n)
        starts = [*range(0, users, step), users]
        ends = torch.tensor(starts, device=vectors.device) * n
        cut = [torch.searchsorted(keys, ends).tolist() for keys in (*(numbers.keys for numbers in more), hidden)]
        for number, (first, last) in enumerate(pairwise(starts)):
            part, at = slice(first, last), [slice(c[number], c[number + 1]) for c in cut]
            scores = torch.addmm(base if base.ndim == 1 else base[part], vectors[part], self._items.T)
            flat = scores.view(-1)
            for numbers, mine in zip(more, at, strict=False):
                flat.index_add_(0, numbers.keys[mine] - first * n, numbers.values[mine])
            flat[hidden[at[-1]] - first * n] = -torch.inf
            yield part, scores

    def _beyond(self) -> list[Numbers]:
        """What some items have beside their inner product and popularity."""
        keys, n = self._said.related.keys, len(self._items)
        user = keys // n
        row = keys - user * n
        popularity = self._popularity[row] if self._popularity.ndim == 1 else self._popularity[user, row]
        said = self._counted(self._said.related.values, popularity, self._said.own.values)
        found = [Numbers(n, keys, self._mix.online * (said / (self._mix.popular * popularity)).log())]
        return [*found, replace(self._tired, values=-self._tired.values)] if self._tired is not None else found

    def of(self, rows: Tensor, boosts: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Scores f32[B,M] of catalogue rows i64[B,M], -inf where there is none; the inner products in them, and the
        profile's part of these.
        """
        at, mix = rows.clamp(min=0), self._mix
        products = self._items[at] @ torch.stack([self._fused.vectors, self._fused.long], 2)
        neural, tastes = products.unbind(2)
        popularity = self._popularity[at] if self._popularity.ndim == 1 else self._popularity.gather(1, at)
        said = self._counted(self._said.related.at(at), popularity, self._said.own.at(at))
        scores = mix.neural * neural + mix.online * said.log()
        if self._tired is not None:
            scores = scores - self._tired.at(at)
        if boosts is not None:
            scores = scores + boosts[at]
        return torch.where(rows >= 0, scores, -torch.inf), neural, tastes

    def _counted(self, related: Tensor, popularity: Tensor, own: Tensor) -> Tensor:
        """`mix.counted`, in tensors."""
        return self._mix.related * related + self._mix.popular * popularity + self._mix.repeat * own


def _top(scores: Tensor, m: int, enough: int, one_of: Tensor | None) -> Tensor:
    """The m best of scores f32[B,N], i64[B,M], -1 where there are fewer that are finite. Of a group only one counts:
    where they share places, more are looked at until there are `enough`, or none.
    """
    value, rows = scores.topk(m, dim=1)
    rows = best = torch.where(value.isfinite(), rows, -1)
    while one_of is not None:
        found = _once(rows, one_of)
        short = ((found >= 0).sum(1) < enough) & value[:, -1].isfinite()
        if rows.shape[1] == scores.shape[1] or not bool(short.any()):
            return best if rows is best else torch.cat([best, _first_of(found, enough)], 1)
        value, rows = scores.topk(min(4 * rows.shape[1], scores.shape[1]), dim=1)
        rows = torch.where(value.isfinite(), rows, -1)
    return best


def _once(rows: Tensor, one_of: Tensor) -> Tensor:
    """Rows i64[B,F], those of a group but for the first of it made -1."""
    place = torch.arange(rows.shape[1], device=rows.device)
    group = torch.where(rows >= 0, one_of[rows.clamp(min=0)], -1)
    group = torch.where(group >= 0, group, -1 - place)
    ranked, order = group.sort(stable=True, dim=1)
    again = torch.nn.functional.pad(ranked[:, 1:] == ranked[:, :-1], (1, 0))
    return torch.where(torch.zeros_like(again).scatter(1, order, again), -1, rows)


def _first_of(rows: Tensor, m: int) -> Tensor:
    """The first m of each row i64[B,F] that are not -1, in order; -1 where there are fewer."""
    order = (rows < 0).to(torch.uint8).argsort(stable=True, dim=1)[:, :m]
    return rows.gather(1, order)


def _distinct(rows: Tensor) -> Tensor:
    """Each row's distinct values, descending, -1 for what was there before."""
    ranked = rows.sort(1, descending=True).values
    again = torch.nn.functional.pad(ranked[:, 1:] == ranked[:, :-1], (1, 0))
    return torch.where(again, -1, ranked)


def _centred(values: Tensor, there: Tensor) -> Tensor:
    """Less the mean of what is there in each row, f32[B,M]."""
    return values - (values * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)


def _softmax(scores: Tensor) -> Tensor:
    """Row by row; -inf gives 0, and a row of nothing else gives zeros."""
    return torch.nan_to_num(scores.softmax(1))
