"""Rows of the window table as MessagePack: what its changelog holds, and what two states are compared by.

A packed row is (version, {topic: applied}, interactions, seen set); its interactions are 21 bytes each, oldest
first. Packing is canonical: equal rows give equal bytes. What is in a row is decided in `stream.windows.window`.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from operator import methodcaller
from typing import NamedTuple

import msgpack
import msgspec
import numpy as np

from stream.windows.columns import Columns

ROW_VERSION = 1
PACKED = 4096
"""Rows that are copied together."""

INTERACTION = np.dtype([("item", "<u8"), ("time", "<i8"), ("weight", "<f4"), ("action", "u1")])

_ROW = msgspec.msgpack.Decoder(tuple[int, dict[str, int], bytes, bytes])


class _Copies(NamedTuple):
    """Some rows as they were, each column of all of them in one piece, and `ends` i64[n] of each row's part of it."""

    applied: np.ndarray
    names: bytes
    name_ends: np.ndarray
    interactions: bytes
    interaction_ends: np.ndarray
    seen: np.ndarray
    seen_ends: np.ndarray


def pack(columns: Columns, rows: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    """(user, packed row) of rows i64[n], in no promised order, as the rows are at the call.

    They are copied at once, column by column, and packed one by one as the iterator is walked: so a flush does not
    keep its caller waiting while hundreds of thousands are packed, and never are all of them objects. Rows of like
    length are copied together, so that what is copied is what is written.
    """
    rows = rows[np.argsort(columns.count[rows], kind="stable")]
    copies = deque(_copied(columns, rows[start : start + PACKED]) for start in range(0, len(rows), PACKED))
    return _packed(columns, copies)


def _copied(columns: Columns, rows: np.ndarray) -> _Copies:
    values, lengths = columns.interactions(rows)
    interactions = np.empty(len(values["item"]), INTERACTION)
    for name, column in values.items():
        interactions[name] = column
    names, name_lengths = columns.joined(rows)
    seen, seen_lengths = columns.seen_as_kept(rows)
    return _Copies(
        columns.applied[rows],
        names,
        np.cumsum(name_lengths),
        interactions.tobytes(),
        np.cumsum(lengths) * INTERACTION.itemsize,
        seen,
        np.cumsum(seen_lengths),
    )


def _packed(columns: Columns, copies: deque[_Copies]) -> Iterator[tuple[bytes, bytes]]:
    packer = msgpack.Packer()
    while copies:
        some = copies.popleft()
        name_at = interactions_at = seen_at = 0
        for offsets, name_end, interactions_end, seen_end in zip(
            some.applied.tolist(),
            some.name_ends.tolist(),
            some.interaction_ends.tolist(),
            some.seen_ends.tolist(),
            strict=True,
        ):
            applied = {topic: offset for topic, offset in zip(columns.topics, offsets, strict=True) if offset >= 0}
            seen = columns.seen_set(some.seen[seen_at:seen_end]).tobytes() if seen_end > seen_at else b""
            row = packer.pack((ROW_VERSION, applied, some.interactions[interactions_at:interactions_end], seen))
            yield some.names[name_at:name_end], row
            name_at, interactions_at, seen_at = name_end, interactions_end, seen_end


class Opened(NamedTuple):
    """A packed row's parts: `applied` by topic, `interactions` (of the dtype INTERACTION), and the seen set (u4)."""

    version: int
    applied: dict[str, int]
    interactions: bytes
    seen: bytes


def opened(packed: bytes) -> Opened:
    """A packed row, taken apart. Raises ValueError where it is none."""
    try:
        return Opened(*_ROW.decode(packed))
    except msgspec.MsgspecError as error:
        raise ValueError(f"a window row that this eddyline cannot read: {error}") from error


def unpack(columns: Columns, partition: int, packed: Mapping[bytes, bytes]) -> None:
    """Replace the rows of users by packed ones.

    Raises:
        ValueError: a row that this version, or this length of history, cannot hold.
    """
    if not packed:
        return
    try:
        versions, applied, interactions, seen = zip(*map(_ROW.decode, packed.values()), strict=True)
    except msgspec.MsgspecError as error:
        raise ValueError(f"a window row that this eddyline cannot read: {error}") from error
    if wrong := set(versions) - {ROW_VERSION}:
        raise ValueError(f"a window row of version {min(wrong)}; this eddyline reads {ROW_VERSION}")
    lengths = np.fromiter(map(len, interactions), np.int64) // INTERACTION.itemsize
    if lengths.max() > columns.history:
        raise ValueError(f"a window row of {lengths.max()} interactions; state.history is {columns.history}")
    rows = columns.rows(partition, [user.decode() for user in packed])
    joined = np.frombuffer(b"".join(interactions), INTERACTION)
    columns.put(rows, lengths, {name: joined[name] for name in INTERACTION.names or ()})
    for number, topic in enumerate(columns.topics):
        columns.applied[rows, number] = list(map(methodcaller("get", topic, -1), applied))
    with_set = np.fromiter(map(len, seen), np.int64) > 0
    columns.drop_seen(rows[~with_set])
    for i in np.flatnonzero(with_set).tolist():
        columns.put_seen(int(rows[i]), np.frombuffer(seen[i], np.uint32))
    columns.dirty[rows] = False
    columns.moved_on(partition, int(joined["time"].max(initial=0)))


def digest(columns: Columns) -> str:
    """One hash of all rows, sorted by user: two states are equal when these are. Rows that should have left count as
    gone.
    """
    total = hashlib.sha256()
    everyone: list[tuple[bytes, int]] = []
    for partition in columns.partitions():
        rows = columns.of(partition)
        rows = rows[~columns.idle(partition, rows)]
        everyone += zip(columns.encoded(rows), rows.tolist(), strict=True)
    everyone.sort()
    for start in range(0, len(everyone), PACKED):
        part = np.array([row for _, row in everyone[start : start + PACKED]], np.int64)
        for user, packed in sorted(pack(columns, part)):
            total.update(user + b"\0" + packed)
    return total.hexdigest()
