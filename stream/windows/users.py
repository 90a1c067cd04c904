"""Names of users <-> row numbers, without a Python object a user.

An open-addressing hash table over Python's own string hash, probed for a whole batch at once; a name is compared
byte by byte before it is taken for found. Rows are numbered by the caller; what is in them is not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model.history import spans
from stream.windows.blocks import Blocks, grown

NAME_SIZES = (8, 12, 16, 20, 24, 28, 32, 36, 40, 48, 64, 96, 128, 256, 512, 1024, 2048, 4096)
"""Bytes; the longest id of `stream.events` fits."""
FEW = 24
"""Names, or places, up to so many are looked at one by one, which then costs less."""
EMPTY, GONE = -1, -2
FULL, SPARSE = 0.5, 0.38
"""Share of the table that is filled when it is made anew, and then."""

_ALL = (1 << 64) - 1
_OF_PARTITION = 0x9E3779B97F4A7C15
_SPREAD = 0xD6E8FEB86659FD93


class Text(NamedTuple):
    """Names of one partition: hashes u64[n], their bytes one after the other u8[m], offsets and lengths i64[n]."""

    hashes: np.ndarray
    joined: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray

    def of(self, which: np.ndarray) -> np.ndarray:
        """The bytes of some of the names, one after the other."""
        return self.joined[spans(self.offsets[which], self.lengths[which])]


class Users:
    """The users of all partitions of a worker. The same name in two partitions is two users."""

    def __init__(self) -> None:
        self._names = Blocks(NAME_SIZES, {"byte": np.uint8})
        self._length = np.zeros(0, np.uint16)
        self._hash = np.zeros(0, np.uint64)
        self._table = np.full(64, EMPTY, np.int32)
        self._filled = 0  # places of the table that are not EMPTY
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def reserve(self, rows: int) -> None:
        """Row numbers are below this from now on."""
        self._names.reserve(rows)
        self._length, self._hash = grown(self._length, rows), grown(self._hash, rows)

    def find(self, partition: int, names: Sequence[str]) -> np.ndarray:
        """i64[n]: the row of each user, -1 where there is none."""
        if len(names) <= FEW:
            return np.array([self.row(partition, name) for name in names], np.int64)
        if not len(self):
            return np.full(len(names), -1, np.int64)
        text = _text(partition, names)
        rows, places = self._probe(text.hashes, self._first(text.hashes))
        while len(other := self._others(rows, text)):
            # Another name of the same hash: the one that is looked for may come after it.
            rows[other], places[other] = self._probe(text.hashes[other], self._next(places[other]))
        return rows

    def row(self, partition: int, name: str) -> int:
        """`find` for one user."""
        hashed = (hash(name) ^ (partition + 1) * _OF_PARTITION) & _ALL
        size = len(self._table)
        place = ((hashed * _SPREAD & _ALL) >> 32) * size >> 32
        while (row := self._table.item(place)) != EMPTY:
            if row >= 0 and self._hash.item(row) == hashed and self.encoded(row) == name.encode():
                return row
            place = (place + 1) % size
        return -1

    def add(self, partition: int, rows: np.ndarray, names: Sequence[str]) -> None:
        """Name rows i64[n] for distinct users who are not there yet.

        Raises:
            ValueError: a name of more than 4,096 bytes.
        """
        text = _text(partition, names)
        if len(names) and text.lengths.max() > NAME_SIZES[-1]:
            raise ValueError(f"a user's name of {text.lengths.max()} bytes; {NAME_SIZES[-1]} is the most")
        self._names.take(rows, self._names.fitting(text.lengths))
        self._names.data["byte"][spans(self._names.starts(rows), text.lengths)] = text.joined
        self._length[rows], self._hash[rows] = text.lengths, text.hashes
        self._count += len(rows)
        if self._filled + len(rows) > FULL * len(self._table):
            held = self._table[self._table >= 0]
            self._table = np.full(max(64, int(self._count / SPARSE)), EMPTY, np.int32)
            self._filled = 0
            self._insert(held)
        self._insert(rows)

    def remove(self, rows: np.ndarray) -> None:
        """Forget the users of distinct rows."""
        self._names.give_back(rows)
        self._count -= len(rows)
        places = self._first(self._hash[rows])
        while len(rows):
            here = self._table[places] == rows
            self._table[places[here]] = GONE
            rows, places = rows[~here], self._next(places[~here])

    def encoded(self, row: int) -> bytes:
        """The name of a row as UTF-8."""
        start = self._names.start(row)
        return self._names.data["byte"][start : start + self._length.item(row)].tobytes()

    def all_encoded(self, rows: np.ndarray) -> list[bytes]:
        """The names of rows i64[n] as UTF-8."""
        joined, lengths = self.joined(rows)
        ends = np.cumsum(lengths)
        return [joined[a:b] for a, b in zip((ends - lengths).tolist(), ends.tolist(), strict=True)]

    def joined(self, rows: np.ndarray) -> tuple[bytes, np.ndarray]:
        """The names of rows i64[n] as UTF-8, one after the other, and their lengths i64[n]."""
        lengths = self._length[rows].astype(np.int64)
        return self._names.data["byte"][spans(self._names.starts(rows), lengths)].tobytes(), lengths

    @property
    def nbytes(self) -> int:
        return self._names.nbytes + self._length.nbytes + self._hash.nbytes + self._table.nbytes

    def _others(self, rows: np.ndarray, text: Text) -> np.ndarray:
        """Which of the rows that were found have another name than the one that was looked for."""
        found = np.flatnonzero(rows >= 0)
        at, lengths = rows[found], text.lengths[found]
        differ = self._length[at] != lengths
        if differ.any():
            wrong = found[differ]
            found, at, lengths = found[~differ], at[~differ], lengths[~differ]
        else:
            wrong = found[:0]
        theirs = self._names.data["byte"][spans(self._names.starts(at), lengths)]
        unequal = theirs != (text.joined if len(found) == len(rows) else text.of(found))
        if unequal.any():
            owner = np.repeat(found, lengths)
            wrong = np.union1d(wrong, owner[unequal])
        return wrong

    def _first(self, hashes: np.ndarray) -> np.ndarray:
        """i64[n]: where the search for a hash begins."""
        mixed = (hashes * np.uint64(_SPREAD)) >> np.uint64(32)
        return ((mixed * np.uint64(len(self._table))) >> np.uint64(32)).astype(np.int64)

    def _next(self, places: np.ndarray) -> np.ndarray:
        after = places + 1
        after[after == len(self._table)] = 0
        return after

    def _probe(self, hashes: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The first row of each hash at or after its place, -1 where none is, and its place."""
        rows, found_at = np.full(len(hashes), -1, np.int64), places.copy()
        which = np.arange(len(hashes))
        while len(which) > FEW:
            there = self._table[places]
            hit = (there >= 0) & (self._hash[there] == hashes)
            rows[which[hit]], found_at[which[hit]] = there[hit], places[hit]
            on = np.flatnonzero(~hit & (there != EMPTY))
            which, hashes, places = which[on], hashes[on], self._next(places[on])
        for i, hashed, place in zip(which.tolist(), hashes.tolist(), places.tolist(), strict=True):
            while (row := self._table.item(place)) != EMPTY:
                if row >= 0 and self._hash.item(row) == hashed:
                    rows[i], found_at[i] = row, place
                    break
                place = (place + 1) % len(self._table)
        return rows, found_at

    def _insert(self, rows: np.ndarray) -> None:
        """Put rows that are not in the table into it."""
        self._filled += len(rows)
        places = self._first(self._hash[rows])
        while len(rows) > FEW:
            free = self._table[places] == EMPTY
            self._table[places[free]] = rows[free]
            # Of several that meant the same place, one has it.
            lost = self._table[places] != rows
            rows, places = rows[lost], self._next(places[lost])
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            while self._table.item(place) != EMPTY:
                place = (place + 1) % len(self._table)
            self._table[place] = row


def _text(partition: int, names: Sequence[str]) -> Text:
    hashes = np.fromiter(map(hash, names), np.int64, len(names)).view(np.uint64)
    hashes ^= np.uint64((partition + 1) * _OF_PARTITION & _ALL)
    joined = "".join(names).encode()
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    if len(joined) != lengths.sum():  # not ASCII alone
        lengths = np.fromiter((len(name.encode()) for name in names), np.int64, len(names))
    return Text(hashes, np.frombuffer(joined, np.uint8), np.cumsum(lengths) - lengths, lengths)
