"""Who is served how well, and which items are shown: quality by groups of users, exposure by groups of items.

Not a verdict: a group may be shown more because it is taken more, so beside what is shown stands what is taken. Items
belong to a tenth of the catalogue by how often they were met before the first test, and to their categories; users to
what is said of them. A bound on exposure is `model/exposure.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.catalog import Catalog
from model.dataset import DatasetError
from model.evaluation.tables import Table
from model.metrics import Interval, hits
from model.people import Value, group_of

FEWEST_USERS = 10
"""Users of a group who were asked; of fewer nothing can be said."""
CATEGORIES = 20
"""The largest that are shown."""

Attributes = Mapping[str, Mapping[str, Value]]
"""By user what is said of them, by name."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A group of items: its share of the catalogue, of what the test's users took, and of the places in the lists of
    each method; and each method's HR@k where the item that was taken is of the group (none where none was).
    """

    catalog: float
    taken: float
    places: dict[str, float]
    hr: dict[str, float]


def exposure(table: Table, catalog: Catalog) -> dict[str, Shown]:
    """By group of items. An item of several categories counts in each."""
    groups = {**tenths(table.learned), **_categories(catalog)}
    of_target = {name: group[table.asks.targets] for name, group in groups.items()}
    found = {}
    for name, group in groups.items():
        places, hr = {}, {}
        for method, answers in table.answers.items():
            lists = answers.lists
            places[method] = float(group[lists[lists >= 0]].mean()) if (lists >= 0).any() else 0.0
            if of_target[name].any():
                hr[method] = float(hits(answers.ranks[:, of_target[name]], table.k).mean())
        found[name] = Shown(float(group.mean()), float(of_target[name].mean()), places, hr)
    return found


def tenths(learned: NDArray[np.integer]) -> dict[str, NDArray[np.bool_]]:
    """Tenths of N items, the first the most popular, by how often they were met i64[N]: bool[N] each."""
    place = np.empty(len(learned), np.int64)
    place[np.argsort(-learned, kind="stable")] = np.arange(len(learned))
    tenth = place * 10 // max(len(learned), 1)
    return {f"popularity {t + 1}": tenth == t for t in range(10) if (tenth == t).any()}


def _categories(catalog: Catalog) -> dict[str, NDArray[np.bool_]]:
    members: dict[str, list[int]] = {}
    for row, names in enumerate(catalog.categories):
        for name in set(names):
            members.setdefault(name, []).append(row)
    largest = sorted(members, key=lambda name: (-len(members[name]), name))[:CATEGORIES]
    found = {}
    for name in largest:
        found[name] = np.zeros(len(catalog), bool)
        found[name][members[name]] = True
    return found


@dataclass(frozen=True, slots=True)
class Served:
    """A group of users: how many were asked, how often, and each method's HR@k and NDCG@k."""

    users: int
    questions: int
    quality: dict[str, dict[str, Interval]]


def require(said: Attributes, names: list[str]) -> None:
    """Raises DatasetError where one of these attributes is not known of anybody."""
    known = {name for one in said.values() for name in one}
    for attribute in names:
        if attribute not in known:
            there = ", ".join(sorted(known)) or "nothing: write it into users.csv"
            raise DatasetError(f"nobody's {attribute!r} is known; known of users: {there}")


def quality(table: Table, users: NDArray[np.str_], said: Attributes, names: list[str]) -> dict[str, Served]:
    """By group of users, "gender F" or "age 20", by these attributes. users: the name of each code. Raises DatasetError
    where an attribute is not known of anybody.
    """
    require(said, names)
    asked = users[table.asks.users]
    measures = {m: table.metrics(m) for m in table.answers}
    found = {}
    for attribute in names:
        group = np.array([group_of(attribute, said.get(u, {}).get(attribute)) for u in asked.tolist()], object)
        for name in sorted({g for g in group.tolist() if g}):
            keep = group == name
            count = len(np.unique(table.asks.users[keep]))
            if count >= FEWEST_USERS:
                wanted = (f"hr@{table.k}", f"ndcg@{table.k}")
                by_method = {m: {w: table.interval(v[w], keep) for w in wanted} for m, v in measures.items()}
                found[name] = Served(count, int(keep.sum()), by_method)
    return found
