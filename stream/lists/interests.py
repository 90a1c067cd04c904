"""What a list is made of: copies of the touched users' rows, in memory or as a message between two workers.

Where ingest and recommend run in one process, rows are copied from the window table (`OwnRows`). Where they run
apart, the copy is a message on the `interests` topic: many users, as columns, so that the other side makes
tensors of it without a loop. Who waits, and what becomes of a copy, is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import msgpack
import msgspec
import numpy as np

from model.history import Histories
from stream.answers.progress import Progress, Trigger, Waiting
from stream.requests import Request
from stream.windows.packing import INTERACTION

if TYPE_CHECKING:
    from stream.answers.debts import Debts
    from stream.answers.emission import Key
    from stream.state import State

VERSION, ASKING = 1, 2
"""Of messages; in the second, triggers carry what was asked for."""


@dataclass(frozen=True, slots=True)
class Interests:
    """Rows of n users: `histories` with what they have seen, `counts` of the interactions they ever had, and `applied`,
    the last offset of each input topic that each row knows of.
    """

    users: list[Waiting]
    histories: Histories
    counts: list[int]
    applied: list[dict[str, int]]

    def take(self, at: np.ndarray) -> Interests:
        """Some of the users i64[n], in this order."""
        rows = at.tolist()
        return Interests(
            [self.users[i] for i in rows],
            self.histories.take(at),
            [self.counts[i] for i in rows],
            [self.applied[i] for i in rows],
        )

    def and_strangers(self, users: Sequence[Waiting]) -> Interests:
        """These, and users of whom there is no row: they asked, and get a list all the same."""
        n = len(users)
        nothing = Histories.empty(n)
        return Interests(
            [*self.users, *users],
            Histories.concat([self.histories, nothing]) if self.users else nothing,
            [*self.counts, *[0] * n],
            [*self.applied, *({} for _ in users)],
        )


class Source(Protocol):
    """Where users who wait and their rows are."""

    progress: Progress

    def interests(self, users: Sequence[Waiting], now: float) -> Interests | None:
        """Copies of their rows, and the users with their triggers; without those who are not ours to answer any more,
        or answered already. None where nobody is left.
        """
        ...

    def known(self, keys: Sequence[Key]) -> tuple[list[Key], Histories, list[int]]:
        """Histories and counts of these users, as far as they are there."""
        ...

    def answered(self, ticket: int, n: int = 1) -> None:
        """n users of a ticket have their list."""
        ...


class OwnRows:
    """Rows of this worker's own window table."""

    def __init__(self, state: State, debts: Debts) -> None:
        self._state = state
        self._debts = debts
        self.progress = state.progress
        self.answered = state.answered

    def interests(self, users: Sequence[Waiting], now: float) -> Interests | None:
        columns = self._state.columns
        kept: list[Waiting] = []
        rows: list[int] = []
        strangers: list[Waiting] = []
        for w in users:
            row = columns.row(w.partition, w.user)
            if row is None and w.request is not None:
                strangers.append(w)
            elif row is None or (w.trigger is None and self._debts.answered_since(w, row)):
                self.answered(w.ticket)
            else:
                kept.append(w if w.trigger else w._replace(trigger=self._debts.trigger(row, now)))
                rows.append(row)
        if not kept and not strangers:
            return None
        at = np.array(rows, np.int64)
        found = Interests(
            kept,
            columns.histories(at),
            columns.count[at].tolist(),
            [
                {topic: offset for topic, offset in zip(columns.topics, applied, strict=True) if offset >= 0}
                for applied in columns.applied[at].tolist()
            ],
        )
        return found.and_strangers(strangers) if strangers else found

    def known(self, keys: Sequence[Key]) -> tuple[list[Key], Histories, list[int]]:
        columns = self._state.columns
        found = [(key, row) for key in keys if (row := columns.row(*key)) is not None]
        at = np.array([row for _, row in found], np.int64)
        return [key for key, _ in found], columns.histories(at, seen=False), columns.count[at].tolist()


# As a message


class Row(NamedTuple):
    """One user's row out of a message. A copy: a view would keep the whole message as long as its last user waits."""

    interactions: np.ndarray
    seen: np.ndarray
    ever: int
    applied: dict[str, int]


def pack(interests: Interests, members: Sequence[int]) -> bytes:
    """A message of some of the users, all of one partition.

    (version, users, topics, applied i64[n, topics], counts i64[n], triggers, lengths i32[n], interactions, seen
    lengths i32[n], seen u32): columns as bytes, little-endian; interactions oldest first, user by user. Triggers are
    (topic, offset, ts, trace) each, and where somebody asked all carry what for: None, or a request as MessagePack.
    """
    at = np.array(members)
    h, waiting = interests.histories, [interests.users[i] for i in members]
    topics = sorted({topic for i in members for topic in interests.applied[i]})
    applied = np.array([[interests.applied[i].get(topic, -1) for topic in topics] for i in members], "<i8")
    lengths = h.lengths[at].astype("<i4")
    there = np.arange(h.items.shape[1]) >= h.items.shape[1] - lengths[:, None]
    interactions = np.empty(int(lengths.sum()), INTERACTION)
    for name, column in (("item", h.items), ("action", h.actions), ("time", h.times), ("weight", h.weights)):
        interactions[name] = column[at][there]
    seen = [h.seen[h.seen_offsets[i] : h.seen_offsets[i + 1]] for i in members]
    triggers: list[tuple] = [(t.topic, t.offset, t.ts, t.trace) for w in waiting if (t := w.trigger) is not None]
    asking = any(w.request is not None for w in waiting)
    if asking:
        asked = [None if w.request is None else msgspec.msgpack.encode(w.request) for w in waiting]
        triggers = [(*trigger, request) for trigger, request in zip(triggers, asked, strict=True)]
    return cast(
        bytes,
        msgpack.packb(
            (
                ASKING if asking else VERSION,
                [w.user for w in waiting],
                topics,
                applied.tobytes(),
                np.array([interests.counts[i] for i in members], "<i8").tobytes(),
                triggers,
                lengths.tobytes(),
                interactions.tobytes(),
                np.array(list(map(len, seen)), "<i4").tobytes(),
                np.concatenate(seen).astype("<u4").tobytes(),
            )
        ),
    )


def unpack(message: bytes, arrived: float) -> list[tuple[str, Trigger]]:
    """The users of a message, each with its trigger, which carries the row.

    Raises:
        ValueError: not a message of ours, or of another version.
    """
    try:
        version, *columns = msgpack.unpackb(message)
        if version not in (VERSION, ASKING):
            raise ValueError(f"interests of version {version}; this eddyline reads {VERSION} and {ASKING}: update it")
        users, topics, applied, counts, triggers, lengths, interactions, seen_lengths, seen = columns
    except (TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"no interests of ours: {error}") from error
    offsets = np.frombuffer(applied, "<i8").reshape(len(users), len(topics)).tolist()
    ends = np.cumsum(np.frombuffer(lengths, "<i4"))
    seen_ends = np.cumsum(np.frombuffer(seen_lengths, "<i4"))
    rows = zip(
        users,
        triggers,
        np.split(np.frombuffer(interactions, INTERACTION), ends[:-1]),
        np.split(np.frombuffer(seen, "<u4"), seen_ends[:-1]),
        np.frombuffer(counts, "<i8").tolist(),
        offsets,
        strict=True,
    )
    return [
        (
            user,
            Trigger(
                topic,
                offset,
                ts,
                arrived,
                trace,
                Row(met.copy(), more.copy(), count, {t: o for t, o in zip(topics, known, strict=True) if o >= 0}),
                msgspec.msgpack.decode(asked[0], type=Request) if asked and asked[0] is not None else None,
            ),
        )
        for user, (topic, offset, ts, trace, *asked), met, more, count, known in rows
    ]


def joined(rows: Sequence[Row]) -> Histories:
    """Rows as `Histories`: left-padded columns, the newest at index -1."""
    lengths = np.array([len(row.interactions) for row in rows], np.int64)
    width = int(lengths.max(initial=0))
    there = np.arange(width) >= width - lengths[:, None]
    flat = np.concatenate([row.interactions for row in rows]) if rows else np.zeros(0, INTERACTION)
    seen = np.concatenate([row.seen for row in rows]) if rows else np.zeros(0, np.uint32)

    def column(name: str, dtype: Any) -> np.ndarray:
        out = np.zeros((len(rows), width), dtype)
        out[there] = flat[name]
        return out

    return Histories(
        items=column("item", np.uint64),
        actions=column("action", np.uint8),
        times=column("time", np.int64),
        weights=column("weight", np.float32),
        lengths=lengths.astype(np.int32),
        seen=seen.astype(np.uint32),
        seen_offsets=np.concatenate([[0], np.cumsum([len(row.seen) for row in rows])]).astype(np.int64),
    )
