"""Rows of the window table as MessagePack: what its changelog holds, and what two states are compared by.

A packed row is (version, {topic: applied}, interactions, seen set); its interactions are 21 bytes each, oldest
first. Packing is canonical: equal rows give equal bytes. What is in a row is decided in `stream.windows.window`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from operator import methodcaller

import msgpack
import msgspec
import numpy as np

from stream.windows.columns import Columns

ROW_VERSION = 1
PACKED = 4096
"""Rows that are packed at a time: this bounds the memory that a flush needs beside the rows."""

INTERACTION = np.dtype([("item", "<u8"), ("time", "<i8"), ("weight", "<f4"), ("action", "u1")])

_ROW = msgspec.msgpack.Decoder(tuple[int, dict[str, int], bytes, bytes])


def pack(columns: Columns, rows: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """(user, packed row) of rows i64[n], in no promised order.

    Rows of like length are gathered together, so that what is copied is what is written.
    """
    packer = msgpack.Packer()
    rows = rows[np.argsort(columns.count[rows], kind="stable")]
    for start in range(0, len(rows), PACKED):
        yield from _pack_alike(columns, rows[start : start + PACKED], packer)


def _pack_alike(columns: Columns, rows: np.ndarray, packer: msgpack.Packer) -> Iterator[tuple[str, bytes]]:
    values, lengths = columns.interactions(rows)
    interactions = np.empty(len(values["item"]), INTERACTION)
    for name, column in values.items():
        interactions[name] = column
    whole, ends = interactions.tobytes(), np.cumsum(lengths) * INTERACTION.itemsize
    at = zip((ends - lengths * INTERACTION.itemsize).tolist(), ends.tolist(), strict=True)
    in_set = columns.has_seen(rows).tolist()
    seen = (columns.seen(r).tobytes() if some else b"" for r, some in zip(rows.tolist(), in_set, strict=True))
    topics = columns.topics
    for name, (start, end), offsets, beyond in zip(
        columns.encoded(rows), at, columns.applied[rows].tolist(), seen, strict=True
    ):
        applied = {topic: offset for topic, offset in zip(topics, offsets, strict=True) if offset >= 0}
        yield name.decode(), packer.pack((ROW_VERSION, applied, whole[start:end], beyond))


def unpack(columns: Columns, partition: int, packed: Mapping[str, bytes]) -> None:
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
    rows = columns.rows(partition, list(packed))
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
            total.update(user.encode() + b"\0" + packed)
    return total.hexdigest()
