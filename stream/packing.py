"""Rows of the window table as MessagePack: what its changelog holds, and what two states are compared by.

A packed row is (version, {topic: applied}, interactions, seen set); its interactions are 21 bytes each, oldest
first. Packing is canonical: equal rows give equal bytes. What is in a row is decided in `stream.window`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import msgpack
import numpy as np

from stream.columns import Columns

ROW_VERSION = 1
PACKED = 4096
"""Rows that are packed at a time: this bounds the memory that a flush needs beside the rows."""

INTERACTION = np.dtype([("item", "<u8"), ("time", "<i8"), ("weight", "<f4"), ("action", "u1")])


def pack(columns: Columns, rows: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """(user, packed row) of rows i64[n], in no promised order.

    Rows of a size class are gathered together, so that what is copied is what is written.
    """
    packer = msgpack.Packer()
    for ring in range(len(columns.rings)):
        alike = rows[columns.ring[rows] == ring]
        for start in range(0, len(alike), PACKED):
            yield from _pack_alike(columns, alike[start : start + PACKED], packer)


def _pack_alike(columns: Columns, rows: np.ndarray, packer: msgpack.Packer) -> Iterator[tuple[str, bytes]]:
    h = columns.histories(rows, seen=False)
    n, width = h.items.shape
    interactions = np.empty((n, width), INTERACTION)
    for name, column in (("item", h.items), ("action", h.actions), ("time", h.times), ("weight", h.weights)):
        interactions[name] = column
    whole, size = interactions.tobytes(), INTERACTION.itemsize
    ends = np.arange(1, n + 1) * width
    at = zip(((ends - h.lengths) * size).tolist(), (ends * size).tolist(), strict=True)
    in_set = (columns.seen_pool[rows] >= 0).tolist()
    seen = (columns.seen(r).tobytes() if some else b"" for r, some in zip(rows.tolist(), in_set, strict=True))
    names, topics = columns.names, columns.topics
    for row, (start, end), offsets, beyond in zip(rows.tolist(), at, columns.applied[rows].tolist(), seen, strict=True):
        applied = {topic: offset for topic, offset in zip(topics, offsets, strict=True) if offset >= 0}
        yield names[row], packer.pack((ROW_VERSION, applied, whole[start:end], beyond))


def unpack(columns: Columns, partition: int, packed: Mapping[str, bytes]) -> None:
    """Replace the rows of users by packed ones.

    Raises:
        ValueError: a row that this version, or this length of history, cannot hold.
    """
    if not packed:
        return
    read = list(map(msgpack.unpackb, packed.values()))
    if wrong := {row[0] for row in read} - {ROW_VERSION}:
        raise ValueError(f"a window row of version {min(wrong)}; this eddyline reads {ROW_VERSION}")
    _, applied, interactions, seen = zip(*read, strict=True)
    lengths = np.array(list(map(len, interactions))) // INTERACTION.itemsize
    if lengths.max() > columns.history:
        raise ValueError(f"a window row of {lengths.max()} interactions; state.history is {columns.history}")
    rows = columns.rows(partition, list(packed))
    joined = np.frombuffer(b"".join(interactions), INTERACTION)
    columns.put(rows, lengths, {name: joined[name] for name in INTERACTION.fields or ()})
    columns.applied[rows] = [[offsets.get(topic, -1) for topic in columns.topics] for offsets in applied]
    for row, items in zip(rows.tolist(), seen, strict=True):
        columns.put_seen(row, np.frombuffer(items, np.uint32))
    columns.dirty[rows] = False


def digest(columns: Columns) -> str:
    """One hash of all rows, sorted by user: two states are equal when these are."""
    total = hashlib.sha256()
    everyone = sorted((user, row) for users in columns.users.values() for user, row in users.items())
    for start in range(0, len(everyone), PACKED):
        part = np.array([row for _, row in everyone[start : start + PACKED]], np.int64)
        for user, packed in sorted(pack(columns, part)):
            total.update(user.encode() + b"\0" + packed)
    return total.hexdigest()
