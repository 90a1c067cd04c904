"""What a user's history is: the one definition shared by the live windows, the training set and the
evaluation.

Not a store (the worker keeps columns of its own) and not a model: only hashes, order, length limits and the
columns they travel in.

An interaction is the tuple (time in ms, action code, item hash). A history is a *set* of interactions, read
in the order of the tuples:

    older <-------------------------------------------------------------> newer
    | items remembered only as seen |  history: the newest 128               |
                                    |              | window: the newest 32   |

Exact repeats vanish, so the order in which events arrive never shows in a history. A weight is carried beside
each interaction but is no part of it: of two repeats the greater weight stays.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

HISTORY = 128
WINDOW = 32

ACTION_CODE: Mapping[str, int] = MappingProxyType(
    {
        "view": 1,
        "click": 2,
        "buy": 3,
        "rating": 4,
        "favorite": 5,
        "share": 6,
        "add_to_cart": 7,
        "remove_from_cart": 8,
        "return": 9,
        "purchase": 3,
    }
)
"""Codes are written into state and model folders: never renumber. `purchase` is another word for `buy`."""

ACTION_NAME: Mapping[int, str] = MappingProxyType({c: n for n, c in ACTION_CODE.items() if n != "purchase"})

ACTION_WEIGHT: Mapping[str, float] = MappingProxyType(
    {
        "view": 1.0,
        "click": 2.0,
        "buy": 5.0,
        "rating": 3.0,
        "favorite": 4.0,
        "share": 4.0,
        "add_to_cart": 3.0,
        "remove_from_cart": -1.0,
        "return": -3.0,
    }
)
"""Default weights. A weight of zero or less marks an interaction that is remembered and filtered, but is no
sign of interest.
"""


def item_hash(item: str) -> int:
    """The stable 64-bit name of an item id, 1..2^64-1; 0 is kept for "no item"."""
    return int.from_bytes(blake2b(item.encode(), digest_size=8).digest(), "little") or 1


def item_hashes(items: Iterable[str]) -> NDArray[np.uint64]:
    """`item_hash` of each id, u64[n]; a repeated id is hashed once."""
    known: dict[str, int] = {}
    return np.fromiter((known.get(i) or known.setdefault(i, item_hash(i)) for i in items), np.uint64)


def seen_hash(hashes: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """The 4-byte form kept in a seen set: the low 32 bits. Where two items share one, both count as seen."""
    return (hashes & np.uint64(0xFFFFFFFF)).astype(np.uint32)


def weight_table(weights: Mapping[str, float] | None = None) -> NDArray[np.float32]:
    """f32[256] to be indexed by action code. `weights` overrides `ACTION_WEIGHT` by action name."""
    table = np.zeros(256, np.float32)
    for name, weight in {**ACTION_WEIGHT, **(weights or {})}.items():
        if name not in ACTION_CODE:
            raise ValueError(f"unknown action {name!r}: use one of {', '.join(ACTION_CODE)}")
        table[ACTION_CODE[name]] = weight
    return table


def canonical(times: NDArray[np.int64], actions: NDArray[np.uint8], items: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Indices of the distinct interactions in canonical order (time, action, item), oldest first."""
    return by_user(np.zeros(len(times), np.int64), times, actions, items)[0]


def spans(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """i64[sum of lengths]: starts[0], starts[0] + 1, ... of each span, one span after the other."""
    offsets = np.cumsum(lengths) - lengths
    return np.repeat(starts - offsets, lengths) + np.arange(lengths.sum())


def by_user(
    users: NDArray[np.int64],
    times: NDArray[np.int64],
    actions: NDArray[np.uint8],
    items: NDArray[np.uint64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Canonical order of many users' interactions at once.

    Returns `order`, the indices of the distinct interactions grouped by user (ascending) and canonical within
    each, and the user of each, i64 alike. Of exact repeats the first in the input is kept.
    """
    order = np.lexsort((items, actions, times, users))
    u, t, a, i = users[order], times[order], actions[order], items[order]
    new = np.ones(len(order), bool)
    new[1:] = (u[1:] != u[:-1]) | (t[1:] != t[:-1]) | (a[1:] != a[:-1]) | (i[1:] != i[:-1])
    return order[new], u[new]


@dataclass(frozen=True, slots=True)
class Histories:
    """Columns of B users' histories, left-padded: the newest interaction of each row is at index -1.

    items u64[B,L] (0 = none), actions u8[B,L], times i64[B,L] (ms), weights f32[B,L], lengths i32[B]; `seen`
    u32[S] with `seen_offsets` i64[B+1]: row b's items that fell off its history are
    seen[seen_offsets[b]:seen_offsets[b+1]].
    """

    items: NDArray[np.uint64]
    actions: NDArray[np.uint8]
    times: NDArray[np.int64]
    weights: NDArray[np.float32]
    lengths: NDArray[np.int32]
    seen: NDArray[np.uint32]
    seen_offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    @staticmethod
    def empty(rows: int, length: int = 0) -> Histories:
        """Rows without any interaction."""
        return Histories(
            np.zeros((rows, length), np.uint64),
            np.zeros((rows, length), np.uint8),
            np.zeros((rows, length), np.int64),
            np.zeros((rows, length), np.float32),
            np.zeros(rows, np.int32),
            np.zeros(0, np.uint32),
            np.zeros(rows + 1, np.int64),
        )

    @staticmethod
    def concat(parts: Sequence[Histories]) -> Histories:
        """The rows of all parts, padded on the left to the longest."""
        if not parts:
            return Histories.empty(0)
        wide = max(p.items.shape[1] for p in parts)

        def pad(column: str) -> NDArray:
            arrays = [getattr(p, column) for p in parts]
            return np.concatenate([np.pad(a, ((0, 0), (wide - a.shape[1], 0))) for a in arrays])

        counts = np.concatenate([np.diff(p.seen_offsets) for p in parts])
        return Histories(
            pad("items"),
            pad("actions"),
            pad("times"),
            pad("weights"),
            np.concatenate([p.lengths for p in parts]),
            np.concatenate([p.seen for p in parts]),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        )

    def take(self, rows: NDArray[np.integer] | slice | Sequence[int]) -> Histories:
        """These rows, in this order."""
        r = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows, np.int64)
        starts, counts = self.seen_offsets[:-1][r], np.diff(self.seen_offsets)[r]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(
            self.items[r],
            self.actions[r],
            self.times[r],
            self.weights[r],
            self.lengths[r],
            self.seen[spans(starts, counts)],
            offsets,
        )

    def only(self, kept: NDArray[np.bool_]) -> Histories:
        """Of the interactions, those of bool[B,L] alone, moved to the right in their order; the seen set as it is."""
        order = np.argsort(kept, axis=1, kind="stable")
        kept = np.take_along_axis(kept, order, 1)

        def moved(column: NDArray) -> NDArray:
            return np.where(kept, np.take_along_axis(column, order, 1), np.zeros((), column.dtype))

        return Histories(
            moved(self.items),
            moved(self.actions),
            moved(self.times),
            moved(self.weights),
            kept.sum(1).astype(np.int32),
            self.seen,
            self.seen_offsets,
        )

    def and_then(self, items: NDArray[np.uint64], times: NDArray[np.int64], action: int) -> Histories:
        """With one more interaction for each row that has an item u64[B] (0 = none), by an action's code: the newest,
        at its time i64[B] or that of the newest before it.
        """
        more = items != 0
        newest = self.times[:, -1] if self.times.shape[1] else np.zeros(len(self), np.int64)

        def put(column: NDArray, last: NDArray | float) -> NDArray:
            wide = np.pad(column, ((0, 0), (1, 0)))
            wide[more, :-1] = wide[more, 1:]
            wide[more, -1] = np.broadcast_to(np.asarray(last, column.dtype), len(self))[more]
            return wide

        return Histories(
            put(self.items, items),
            put(self.actions, action),
            put(self.times, np.maximum(times, newest)),
            put(self.weights, float(weight_table()[action])),
            (self.lengths + more).astype(np.int32),
            self.seen,
            self.seen_offsets,
        )

    def window(self, k: int = WINDOW, ttl_ms: int | None = None) -> Histories:
        """The newest k interactions, of these only such within `ttl_ms` of the row's newest. The seen set is
        dropped: a window is for reading.
        """
        wide = min(k, self.items.shape[1])
        cut = slice(self.items.shape[1] - wide, None)
        items, times = self.items[:, cut], self.times[:, cut]
        keep = np.arange(wide) >= wide - np.minimum(self.lengths, wide)[:, None]
        if ttl_ms is not None and wide:
            keep &= times >= times[:, -1:] - ttl_ms
        return Histories(
            np.where(keep, items, np.uint64(0)),
            np.where(keep, self.actions[:, cut], np.uint8(0)),
            np.where(keep, times, np.int64(0)),
            np.where(keep, self.weights[:, cut], np.float32(0)),
            keep.sum(1).astype(np.int32),
            np.zeros(0, np.uint32),
            np.zeros(len(self) + 1, np.int64),
        )

    def seen_by(self, row: int) -> NDArray[np.uint32]:
        """Every item this user is known to have met, in 4-byte form: the history and what fell off it."""
        kept = self.items[row, self.items.shape[1] - int(self.lengths[row]) :]
        beyond = self.seen[self.seen_offsets[row] : self.seen_offsets[row + 1]]
        return np.concatenate([seen_hash(kept), beyond])


def pack(rows: Sequence[tuple[Sequence[tuple[int, int, int, float]], Sequence[int]]]) -> Histories:
    """Columns from plain rows: each is (interactions (time, action, item, weight) in canonical order, items
    seen beyond them as u32).
    """
    wide = max((len(r[0]) for r in rows), default=0)
    h = Histories.empty(len(rows), wide)
    for b, (interactions, _) in enumerate(rows):
        if interactions:
            times, actions, items, weights = zip(*interactions, strict=True)
            cut = slice(wide - len(interactions), None)
            h.times[b, cut], h.actions[b, cut], h.items[b, cut], h.weights[b, cut] = (
                times,
                actions,
                items,
                weights,
            )
            h.lengths[b] = len(interactions)
    seen = np.fromiter((s for r in rows for s in r[1]), np.uint32)
    offsets = np.concatenate([[0], np.cumsum([len(r[1]) for r in rows])]).astype(np.int64)
    return Histories(h.items, h.actions, h.times, h.weights, h.lengths, seen, offsets)


class HistoryLog:
    """The plain form of the definition, one user at a time, in any order of arrival: for evaluation, and to
    check faster stores against.

    Users are any hashable keys. Memory grows with every event: it forgets nothing, the limits apply when it
    is read.
    """

    def __init__(self, keep: int = HISTORY) -> None:
        self.keep = keep
        self._rows: dict[object, list[tuple[int, int, int]]] = {}
        self._weights: dict[object, dict[tuple[int, int, int], float]] = {}

    def add(self, user: object, time: int, action: int, item: int, weight: float = 1.0) -> bool:
        """Adds one interaction (item = hash). False where it was there before."""
        key = (int(time), int(action), int(item))
        weights = self._weights.setdefault(user, {})
        known = key in weights
        weights[key] = max(weights.get(key, weight), weight)
        if not known:
            bisect.insort(self._rows.setdefault(user, []), key)
        return not known

    def items_before(self, user: object, time: int, action: int, item: int) -> NDArray[np.uint64]:
        """Items of the kept history that are canonically before this interaction, oldest first: what
        `online.pairs` reads.
        """
        return np.array([i for _, _, i in self._before(user, time, action, item)], np.uint64)

    def times_before(self, user: object, time: int, action: int, item: int) -> NDArray[np.int64]:
        """When these were, ms."""
        return np.array([t for t, _, _ in self._before(user, time, action, item)], np.int64)

    def _before(self, user: object, time: int, action: int, item: int) -> list[tuple[int, int, int]]:
        row = self._rows.get(user, [])[-self.keep :]
        return row[: bisect.bisect_left(row, (int(time), int(action), int(item)))]

    def histories(self, users: Sequence[object]) -> Histories:
        """Columns of these users as of now; a user never heard of is an empty row."""
        return pack([self._row(u) for u in users])

    def _row(self, user: object) -> tuple[list[tuple[int, int, int, float]], list[int]]:
        row, weights = self._rows.get(user, []), self._weights.get(user, {})
        kept = row[-self.keep :]
        inside = {i for _, _, i in kept}
        beyond = {i & 0xFFFFFFFF for _, _, i in row[: -self.keep] if i not in inside}
        return [(*key, weights[key]) for key in kept], sorted(beyond)
