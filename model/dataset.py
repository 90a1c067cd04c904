"""What a data set is: events in time order, items, users, and a licence. Where they come from is `model.datasets`."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model.catalog import Item
from model.history import item_hashes
from model.people import Person


class DatasetError(ValueError):
    """A data set that cannot be found, fetched or read; the message says which file and what to do."""


@dataclass(frozen=True, eq=False)
class Events:
    """Columns of n events in time order: user and item are object arrays of str, action u8[n], ts i64[n] in
    ms, value f32[n] (NaN = none).
    """

    user: NDArray[np.object_]
    item: NDArray[np.object_]
    action: NDArray[np.uint8]
    ts: NDArray[np.int64]
    value: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, rows: slice | NDArray[np.integer]) -> Events:
        """These events, in this order."""
        return Events(self.user[rows], self.item[rows], self.action[rows], self.ts[rows], self.value[rows])


def numbered(names: NDArray[np.object_]) -> tuple[NDArray[np.int64], list[str]]:
    """The number of each name i64[n], and the distinct names in their order, which gives the numbers."""
    given = names.tolist()
    distinct = sorted(set(given))
    number = {name: n for n, name in enumerate(distinct)}
    return np.fromiter(map(number.__getitem__, given), np.int64, len(given)), distinct


def as_history(events: Events) -> Events:
    """The same in the order of histories (`model/history.py`): by time, then user, action and item; of exact repeats
    the first. It follows from what happened and not from how it came: events in a file, and the same out of the topics
    that they were published to, are one sequence.
    """
    users, items = numbered(events.user)[0], item_hashes(events.item)
    order = np.lexsort((items, events.action, users, events.ts))
    distinct = np.ones(len(order), bool)
    distinct[1:] = np.logical_or.reduce([np.diff(c[order]) != 0 for c in (users, items, events.action, events.ts)])
    return events.take(order[distinct])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Events in time order, items and people by id, and what a reader must be told about all of it."""

    name: str
    licence: str
    events: Events
    items: dict[str, Item]
    notes: tuple[str, ...] = ()
    people: dict[str, Person] = field(default_factory=dict)
