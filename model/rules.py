"""What a shop wants of its lists: who may be shown what, and what a list must keep to. Off unless it is set.

Not a ranking, and not how a list is filled (`arrange.py`): rules are compiled once over a catalogue, and say for a
micro-batch what is `Shown` to whom, and the `Terms` of its lists. What one request asks for (`Ask`) narrows them; it
allows nothing that the rules forbid. Names: B users, N items of the catalogue, -1 = none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.catalog import Catalog
from model.history import ACTION_CODE, Histories, item_hash, seen_hash, spans, weight_table
from model.people import Words
from model.peruser import Narrowed, PerUser, Shown, distinct
from model.terms import Quota, Terms

Seen = Literal["exclude", "allow"]
"""Whether items that a user has met may be shown to them again."""


class Choice(BaseModel):
    """Names of which only some, or all but some, are shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allow: list[str] | None = Field(default=None, min_length=1, description="only these; none: all")
    deny: list[str] = Field(default=[], description="never these")

    @field_validator("allow", "deny", mode="before")
    @classmethod
    def _from_text(cls, names: object) -> object:
        """`film,book`, as the environment has it."""
        return [name.strip() for name in names.split(",")] if isinstance(names, str) else names


class PriceConfig(BaseModel):
    """What an item may cost, in the catalogue's own currency; with a bound, items without a price are not shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: float | None = None
    max: float | None = None


class Boosts(BaseModel):
    """What is added to scores, in nats: 0.7 doubles an item's chances, -0.7 halves them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    items: dict[str, float] = {}
    categories: dict[str, float] = Field(default={}, description="of an item in several of them all are added")


class RulesConfig(BaseModel):
    """What is shown to whom, and what a list must keep to."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    out_of_stock: bool = Field(default=False, description="whether what is out of stock is shown")
    categories: Choice = Choice()
    items: Choice = Choice()
    price: PriceConfig = PriceConfig()
    seen: dict[str, Seen] = Field(
        default={},
        description="by action, where it is not as rank.seen: what was bought may stay away, what was viewed not",
    )
    least: dict[str, int] = Field(default={}, description="category -> at least so many of it in a list")
    most: dict[str, int] = Field(default={}, description="category -> at most so many of it in a list")
    one_of_group: bool = Field(default=False, description="of items that share an item_group_id a list has one")
    pinned: dict[str, int] = Field(default={}, description="item -> the place that it has in every list, 1 = the first")
    boosts: Boosts = Boosts()

    @field_validator("seen")
    @classmethod
    def _known_actions(cls, seen: dict[str, Seen]) -> dict[str, Seen]:
        weight_table(dict.fromkeys(seen, 1.0))  # refuses unknown actions
        return seen

    @field_validator("least", "most")
    @classmethod
    def _counts(cls, counts: dict[str, int]) -> dict[str, int]:
        for name, count in counts.items():
            if count < 0:
                raise ValueError(f"{name} is {count}: a number of items is 0 or more")
        return counts

    @field_validator("pinned")
    @classmethod
    def _places(cls, pinned: dict[str, int]) -> dict[str, int]:
        for item, place in pinned.items():
            if place < 1:
                raise ValueError(f"{item} is pinned to place {place}: the first place is 1")
        if len(set(pinned.values())) < len(pinned):
            raise ValueError("two items are pinned to one place: a place has one item")
        return pinned

    @model_validator(mode="after")
    def _least_below_most(self) -> RulesConfig:
        for name, least in self.least.items():
            if least > self.most.get(name, least):
                raise ValueError(f"{name}: at least {least} and at most {self.most[name]} cannot both be")
        return self


class PriceRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an item may cost; with a bound, items without a price are left out."""

    min: float | None = None
    max: float | None = None


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one list is to be about: the `context` of a request. `category`, `categories`: items of one of these only;
    `only`, `exclude`: these items only, and not these; `item`: the one whose page it is, as if the user had just viewed
    it; it is not in the list.
    """

    category: str | None = None
    categories: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    price: PriceRange | None = None
    item: str | None = None

    @property
    def among(self) -> set[str]:
        """The categories that it is about."""
        return {*self.categories, *([self.category] if self.category is not None else [])}


ANYTHING = Ask()


@dataclass(frozen=True, eq=False)
class Asked:
    """Who of B users asked for something. asks: what, each once; of i32[B]: the number of a user's, -1 = nothing;
    places i32[B]: items that they asked for, 0 = as many as ever; times i64[B]: when, ms.
    """

    asks: tuple[Ask, ...]
    of: NDArray[np.int32]
    places: NDArray[np.int32]
    times: NDArray[np.int64]

    @staticmethod
    def by(users: int, asked: Mapping[int, tuple[Ask, int | None, int]]) -> Asked | None:
        """From what some of so many users asked for: (ask, number of items, time in ms); None where nobody did."""
        if not asked:
            return None
        number: dict[Ask, int] = {}
        of, places, times = np.full(users, -1, np.int32), np.zeros(users, np.int32), np.zeros(users, np.int64)
        for user, (ask, n, time) in asked.items():
            of[user] = number.setdefault(ask, len(number))
            places[user], times[user] = n or 0, time
        return Asked(tuple(number), of, places, times)

    def on_page(self, h: Histories) -> Histories:
        """The histories, as if those who are on an item's page had just viewed it; no state knows of it."""
        pages = np.array([0 if ask.item is None else item_hash(ask.item) for ask in (*self.asks, ANYTHING)], np.uint64)
        items = pages[self.of]  # -1 finds the last, which is no page
        return h.and_then(items, self.times, ACTION_CODE["view"]) if items.any() else h


class Rules:
    """The rules over one catalogue. Nothing changes after it is made.

    seen: what holds for actions that `config.seen` does not name. `returns`, `all_return`: whether anything that was
    met may be shown again, and whether all may; `again` bool[256]: by action code. `anyone` bool[N]: what may be shown
    at all. `members` bool[Q,N], `boosts` f32[N], `one_of` i32[N]: of the terms. `unknown`: names of items and
    categories in the rules that the catalogue does not have.
    """

    def __init__(self, config: RulesConfig, catalog: Catalog, seen: Seen = "exclude") -> None:
        self._config, self._catalog = config, catalog
        again = np.full(256, seen == "allow")
        for action, policy in config.seen.items():
            again[ACTION_CODE[action]] = policy == "allow"
        known = again[list(ACTION_CODE.values())]
        self.again, self.all_return, self.returns = again, bool(known.all()), bool(known.any())
        self.anyone = self._anyone()
        order = np.argsort(catalog.seen32, kind="stable").astype(np.int32)
        self._seen32, self._seen_row = catalog.seen32[order], order
        self._distinct = len(order) > 0 and bool((self._seen32[1:] != self._seen32[:-1]).all())
        pins = [(row, place) for item, place in config.pinned.items() if (row := self._row(item)) >= 0]
        self._pinned = np.array([row for row, _ in pins], np.int32)
        self._place = np.array([place for _, place in pins], np.int32)
        self._quotas = [
            (name, catalog.in_any([name]), config.least.get(name, 0), config.most.get(name))
            for name in {**config.least, **config.most}
        ]
        self.boosts = self._boosted()
        self.one_of = catalog.group if config.one_of_group and (catalog.group >= 0).any() else None
        self.arranged = bool(pins or self._quotas) or self.boosts is not None or self.one_of is not None

    @property
    def members(self) -> NDArray[np.bool_]:
        """See the class."""
        return np.array([member for _, member, _, _ in self._quotas], bool).reshape(-1, len(self._catalog))

    @cached_property
    def unknown(self) -> list[str]:
        """See the class."""
        c = self._config
        items = {*(c.items.allow or ()), *c.items.deny, *c.pinned, *c.boosts.items}
        categories = {*(c.categories.allow or ()), *c.categories.deny, *c.least, *c.most, *c.boosts.categories}
        lost = [item for item in sorted(items) if self._row(item) < 0]
        return [*lost, *sorted(categories - self._catalog.members.number.keys())]

    # Who may be shown what

    def shown(self, h: Histories, hidden: Words | None = None, asked: Asked | None = None) -> Shown:
        """What may be shown to whom: what the rules leave, less what a user has met (unless it may come back) and what
        is hidden from them, and of that what they ask for. hidden: hashes of items, for each user.
        """
        users, n = len(h), len(self._catalog)
        keys = self._met(h)
        if hidden is not None and len(hidden.words):
            rows = self._catalog.index_of(hidden.words)
            keys = np.concatenate([keys, (hidden.owner * n + rows)[rows >= 0]])
        keys = distinct(keys)
        narrowed = self.narrowed(asked) if asked is not None else None
        return Shown(self.anyone, PerUser(users, n, keys, np.ones(len(keys), np.float32)), narrowed)

    def _met(self, h: Histories) -> NDArray[np.int64]:
        """What users have met and may not be shown again, as keys of `PerUser`. What fell off a history is remembered
        without its action: it stays away if what was met by any action does.
        """
        if self.all_return:
            return np.zeros(0, np.int64)
        row, place = np.nonzero((h.items != 0) & ~self.again[h.actions] if self.returns else h.items)
        user = np.concatenate([row, np.repeat(np.arange(len(h)), np.diff(h.seen_offsets))])
        hashes = np.concatenate([seen_hash(h.items[row, place]), h.seen])
        first = np.searchsorted(self._seen32, hashes, side="left")
        if self._distinct:
            count = (self._seen32[np.minimum(first, len(self._seen32) - 1)] == hashes).astype(np.int64)
        else:
            count = np.searchsorted(self._seen32, hashes, side="right") - first
        return np.repeat(user, count) * len(self._catalog) + self._seen_row[spans(first, count)]

    def narrowed(self, asked: Asked) -> Narrowed | None:
        """A mask for each ask that asks for less than all."""
        masks, number = [], np.full(len(asked.asks) + 1, -1, np.int32)  # the last is that of -1
        for k, ask in enumerate(asked.asks):
            if (mask := self._mask(ask)) is not None:
                number[k] = len(masks)
                masks.append(mask)
        return Narrowed(np.stack(masks), number[asked.of]) if masks else None

    def _mask(self, ask: Ask) -> NDArray[np.bool_] | None:
        c, mask = self._catalog, self.anyone
        if ask.among:
            mask = mask & c.in_any(ask.among)
        if ask.only is not None:
            mask = mask & _rows_mask(c, ask.only)
        if ask.price is not None:
            mask = mask & _within(c.price, ask.price.min, ask.price.max)
        without = [*ask.exclude, *([ask.item] if ask.item is not None else [])]
        if without:
            mask = mask & ~_rows_mask(c, without)
        return None if mask is self.anyone else mask

    def _anyone(self) -> NDArray[np.bool_]:
        config, c = self._config, self._catalog
        mask = np.ones(len(c), bool) if config.out_of_stock else c.in_stock
        if config.categories.allow is not None:
            mask = mask & c.in_any(config.categories.allow)
        if config.categories.deny:
            mask = mask & ~c.in_any(config.categories.deny)
        if config.items.allow is not None:
            mask = mask & _rows_mask(c, config.items.allow)
        if config.items.deny:
            mask = mask & ~_rows_mask(c, config.items.deny)
        return mask & _within(c.price, config.price.min, config.price.max)

    # What a list must keep to

    def terms(self, shown: Shown, places: int, asked: Asked | None = None) -> Terms | None:
        """The terms of lists of so many places; None where they have none but that. Pins hold what may be shown: an
        item that is sold out, or that the user has bought, leaves its place to others. Who asks for a category may have
        as many of it as there are.
        """
        terms = self.unchecked(shown.hidden.users, places, asked)
        if terms is None or not len(self._pinned):
            return terms
        return replace(terms, pinned=np.where(shown.at(terms.pinned), terms.pinned, np.int32(-1)))

    def unchecked(self, users: int, places: int, asked: Asked | None = None) -> Terms | None:
        """`terms` of so many users, whether what is pinned may be shown to them or not."""
        if not self.arranged and asked is None:
            return None
        count = np.full(users, places, np.int32)
        if asked is not None:
            count = np.where(asked.places > 0, asked.places, count).astype(np.int32)
        return Terms(count, self._pins(count), tuple(self._quotas_of(count, asked)), self.boosts, self.one_of)

    def _pins(self, count: NDArray[np.int32]) -> NDArray[np.int32]:
        pinned = np.full((len(count), int(count.max(initial=0))), -1, np.int32)
        inside = self._place <= pinned.shape[1]
        there = self._place[inside] <= count[:, None]
        pinned[:, self._place[inside] - 1] = np.where(there, self._pinned[inside], np.int32(-1))
        return pinned

    def _quotas_of(self, count: NDArray[np.int32], asked: Asked | None) -> Iterator[Quota]:
        for name, member, least, most in self._quotas:
            at_most = count if most is None else np.minimum(count, np.int32(most))
            if asked is not None and most is not None:
                about = np.array([name in ask.among for ask in (*asked.asks, ANYTHING)], bool)
                at_most = np.where(about[asked.of], count, at_most)
            yield Quota(member, np.minimum(np.int32(least), at_most), at_most)

    def _boosted(self) -> NDArray[np.float32] | None:
        boosts, c = self._config.boosts, self._catalog
        total = np.zeros(len(c), np.float32)
        for name, nats in boosts.categories.items():
            total[c.in_any([name])] += nats
        for item, nats in boosts.items.items():
            if (row := self._row(item)) >= 0:
                total[row] += nats
        return total if total.any() else None

    def _row(self, item: str) -> int:
        return int(self._catalog.index_of(np.array([item_hash(item)], np.uint64))[0])


SPARE = 8
"""Members of a group that are sought beyond those that a list is to have: some may share a variant's place."""


class Group(NamedTuple):
    """Items that are in one of some sets bool[N], or in none of them. No set of all items is made for it: a request for
    one user would pay for the whole catalogue.
    """

    sets: tuple[NDArray[np.bool_], ...]
    inside: bool = True

    def has(self, rows: NDArray[np.integer] | slice) -> NDArray[np.bool_]:
        """Which of these catalogue rows are in it."""
        some = self.sets[0][rows]
        for one in self.sets[1:]:
            some = some | one[rows]
        return some if self.inside else ~some


def wanted(terms: Terms) -> Iterator[tuple[Group, NDArray[np.int32]]]:
    """Groups of items of which so many, i32[B], should be among the candidates if a list is to keep to its terms:
    members of quotas, what fills a list when those have taken all that they may, and what is boosted.
    """
    limited: list[Quota] = []
    for quota in terms.quotas:
        if quota.least.any():
            yield Group((quota.member,)), quota.least
        if (quota.most < terms.places).any():
            limited.append(quota)
            yield Group((quota.member,), inside=False), terms.places - quota.most
    if len(limited) > 1:
        taken = np.sum([quota.most for quota in limited], axis=0)
        free = Group(tuple(quota.member for quota in limited), inside=False)
        yield free, np.maximum(terms.places - taken, 0).astype(np.int32)
    if terms.boosts is not None and (up := terms.boosts > 0).any():
        yield Group((up,)), terms.places


def _rows_mask(catalog: Catalog, items: Sequence[str]) -> NDArray[np.bool_]:
    mask = np.zeros(len(catalog), bool)
    mask[catalog.rows_of(items)] = True
    return mask


def _within(price: NDArray[np.float32], low: float | None, high: float | None) -> NDArray[np.bool_] | np.bool_:
    """Of prices f32[N], NaN = none, bool[N]; True where nothing is bound."""
    if low is None and high is None:
        return np.True_
    return (price >= (-np.inf if low is None else low)) & (price <= (np.inf if high is None else high))
