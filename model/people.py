"""Users as they describe themselves: attributes, and interests that they state.

Not what follows from it (`leaning.py`, `rules.py`), and not where it comes from: a file of a data set, or the `users`
topic. Of a user three sets of words are kept, as 64-bit hashes: the groups that the attributes put them into, their
interests, and the items that they do not want to see.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.history import item_hash

Value = str | int | float | bool | None


class Person(msgspec.Struct, omit_defaults=True):
    """One user as their owner describes them: a line of `users.csv`, or a record of the `users` topic. Interests are
    ids of items, or categories as the catalogue writes them; `hidden` are ids of items that are never shown to them.
    """

    user: str
    attributes: dict[str, Value] = {}
    interests: list[str] = []
    hidden: list[str] = []


def group_of(attribute: str, value: Value) -> str | None:
    """The group that an attribute puts its user into: "age 20"; None where there is no value.

    Numbers are cut to their first digit (24 and 29 are 20, 85711 is 80000), so that groups are of some size and one
    value's group depends on no other value: it is the same in a file, and in a topic that is never finished.
    """
    text = str(value).strip() if value is not None else ""
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        return f"{attribute} {text}"
    if number == 0 or not math.isfinite(number) or isinstance(value, bool):
        return f"{attribute} {text}"
    size = 10.0 ** math.floor(math.log10(abs(number)))
    return f"{attribute} {math.trunc(number / size) * size:g}"


def words(person: Person) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.uint64]]:
    """Hashes of the person's groups, interests and hidden items, each distinct and ascending."""
    groups = {g for name, value in person.attributes.items() if (g := group_of(name, value)) is not None}
    return _hashed(groups), _hashed(person.interests), _hashed(person.hidden)


def _hashed(texts: Iterable[str]) -> NDArray[np.uint64]:
    return np.unique(np.array([item_hash(text) for text in texts], np.uint64))


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """A set of words for each of B users: row b's are words[ends[b]:ends[b + 1]], u64; ends i64[B+1]."""

    words: NDArray[np.uint64]
    ends: NDArray[np.int64]

    @staticmethod
    def of(rows: Sequence[NDArray[np.uint64]]) -> Words:
        """One row of each array."""
        return Words(
            np.concatenate([np.zeros(0, np.uint64), *rows]),
            np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        )

    def row(self, b: int) -> NDArray[np.uint64]:
        """The words of one user."""
        return self.words[self.ends[b] : self.ends[b + 1]]

    def take(self, rows: NDArray[np.integer]) -> Words:
        """These rows, in this order; -1 is a row without words."""
        none = self.words[:0]
        return Words.of([self.row(b) if b >= 0 else none for b in rows.tolist()])

    @property
    def owner(self) -> NDArray[np.int64]:
        """Whose each word is, i64[W]."""
        return np.repeat(np.arange(len(self.ends) - 1), np.diff(self.ends))


@dataclass(frozen=True, slots=True, eq=False)
class About:
    """What is known of B users: their groups, their interests, and what is hidden from them."""

    groups: Words
    interests: Words
    hidden: Words

    def __len__(self) -> int:
        return len(self.groups.ends) - 1

    @property
    def nothing(self) -> bool:
        """Whether nothing is known of any of them that speaks for an item."""
        return not len(self.groups.words) and not len(self.interests.words)

    def take(self, rows: NDArray[np.integer]) -> About:
        """These users, in this order; -1 is one of whom nothing is known."""
        return About(self.groups.take(rows), self.interests.take(rows), self.hidden.take(rows))


@dataclass(frozen=True, eq=False)
class People:
    """The users of a data set who are described, row by row: `row` says which row is whose."""

    row: Mapping[str, int]
    about: About

    @staticmethod
    def empty() -> People:
        """Nobody."""
        return People.of([])

    @staticmethod
    def of(people: Iterable[Person]) -> People:
        """Of one user's descriptions the last counts."""
        known = {person.user: words(person) for person in people}
        sets = (Words.of([parts[i] for parts in known.values()]) for i in range(3))
        return People({user: n for n, user in enumerate(known)}, About(*sets))

    def __len__(self) -> int:
        return len(self.row)

    def rows(self, users: Iterable[str]) -> NDArray[np.int64]:
        """The row of each user, -1 where they are not described."""
        return np.array([self.row.get(user, -1) for user in users], np.int64)
