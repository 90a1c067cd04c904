"""Trends: what is met after what, and how often anything is met; integer counts per time bucket.

Counts are kept per input partition, beside the windows of that partition, and written to a changelog
in the same transaction, so a count is there exactly when the event behind it is in its window. Every
worker reads the changelogs of all partitions and sums them: N workers see the same trends as one.
Decay and scores are not here: they are computed when counts are read (`model.online`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import msgpack
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class TrendsConfig(BaseModel):
    """How trends are counted and how often they are read."""

    model_config = ConfigDict(extra="forbid")

    bucket_ms: int = Field(default=7 * 86_400_000, ge=1000)
    buckets: int = Field(default=52, ge=1, description="buckets kept, counted back from the newest event")
    refresh_s: float = Field(default=2.0, gt=0, description="how often scores are computed anew from counts")


class PairTable:
    """u64 pair -> u32 count, by open addressing in two numpy arrays: 24 bytes a pair at most.

    A pair of local item numbers is packed into one word; the word 0 is empty, so numbers start at 1.
    """

    def __init__(self) -> None:
        self._keys = np.zeros(1024, np.uint64)
        self._counts = np.zeros(1024, np.uint32)
        self._used = 0

    def add(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Add to distinct keys u64[n] their counts u32[n]."""
        while 2 * (self._used + len(keys)) > len(self._keys):
            self._grow()
        self._counts[self._place(keys)] += counts

    def put(self, keys: np.ndarray, counts: np.ndarray) -> None:
        """Set distinct keys to their counts, as a changelog tells them."""
        while 2 * (self._used + len(keys)) > len(self._keys):
            self._grow()
        self._counts[self._place(keys)] = counts

    def items(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys and counts."""
        used = np.flatnonzero(self._keys)
        return self._keys[used], self._counts[used]

    def _place(self, keys: np.ndarray) -> np.ndarray:
        """The slot of each distinct key, claimed where it is new: linear probing, all keys at once."""
        mask = np.uint64(len(self._keys) - 1)
        shift = np.uint64(64 - (len(self._keys) - 1).bit_length())
        slots = (keys * _GOLDEN) >> shift
        pending = np.arange(len(keys))
        while len(pending):
            at, wanted = slots[pending], keys[pending]
            empty = self._keys[at] == 0
            # Several keys may claim one empty slot: the last one written has it, the others go on.
            self._keys[at[empty]] = wanted[empty]
            landed = self._keys[at] == wanted
            self._used += int(np.count_nonzero(landed & empty))
            pending = pending[~landed]
            slots[pending] = (slots[pending] + np.uint64(1)) & mask
        return slots.astype(np.int64)

    def _grow(self) -> None:
        keys, counts = self.items()
        self._keys = np.zeros(2 * len(self._keys), np.uint64)
        self._counts = np.zeros(len(self._keys), np.uint32)
        self._used = 0
        self._counts[self._place(keys)] = counts


@dataclass(frozen=True, slots=True)
class Counted:
    """Summed counts as columns: `a` u64[n] was met before `b` u64[n] (0: `a` itself was met), in `bucket` i32[n]."""

    a: np.ndarray
    b: np.ndarray
    bucket: np.ndarray
    count: np.ndarray


class PartitionTrends:
    """The counts of one input partition."""

    def __init__(self, config: TrendsConfig) -> None:
        self._config = config
        self._number: dict[int, int] = {0: 0}  # item hash -> local number; a pair (a, 0) counts a itself
        self._hash: list[int] = [0]
        self._buckets: dict[int, PairTable] = {}
        self._touched: dict[int, set[int]] = {}
        self._newest = -(2**31)

    def count(self, items: np.ndarray, times: np.ndarray, pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Count items u64[n] met at times i64[n], and pairs (before, item, time)."""
        before, after, pair_times = pairs
        a = self._numbers(np.concatenate([before, items]))
        b = np.concatenate([self._numbers(after), np.zeros(len(items), np.uint64)])
        bucket = np.concatenate([pair_times, times]) // self._config.bucket_ms
        for when in np.unique(bucket).tolist():
            if not self._keeps(when):
                continue
            here = bucket == when
            keys, counts = np.unique((a[here] << np.uint64(32)) | b[here], return_counts=True)
            self._table(when).add(keys, counts.astype(np.uint32))
            self._touched.setdefault(when, set()).update(np.unique(keys >> np.uint64(32)).tolist())

    def flush(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of each row that changed since the last `settled`: one row per (item, bucket)."""
        for when, touched in self._touched.items():
            if when not in self._buckets:
                continue
            keys, counts = self._buckets[when].items()
            owners = keys >> np.uint64(32)
            mine = np.isin(owners, np.fromiter(touched, np.uint64, len(touched)))
            keys, counts, owners = keys[mine], counts[mine], owners[mine]
            order = np.argsort(keys)
            keys, counts, owners = keys[order], counts[order], owners[order]
            starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
            others = np.array(self._hash, np.uint64)[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)]
            for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(keys)], strict=True):
                item = self._hash[int(owners[start])]
                yield (
                    cast(bytes, msgpack.packb((item, when))),
                    cast(bytes, msgpack.packb((VERSION, others[start:end].tobytes(), counts[start:end].tobytes()))),
                )

    def settled(self) -> None:
        """What `flush` gave is durable."""
        self._touched.clear()

    @property
    def dirty(self) -> bool:
        return bool(self._touched)

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """Take in changelog rows (key -> value): each replaces what was counted of its item in its bucket."""
        keys = [msgpack.unpackb(key) for key in rows]
        values = [msgpack.unpackb(value) for value in rows.values()]
        if wrong := {version for version, _, _ in values} - {VERSION}:
            raise ValueError(f"a trends row of version {min(wrong)}; this eddyline reads {VERSION}")
        lengths = [len(others) // 8 for _, others, _ in values]
        owners = np.repeat(np.array([item for item, _ in keys], np.uint64), lengths)
        buckets = np.repeat(np.array([when for _, when in keys], np.int64), lengths)
        others = np.frombuffer(b"".join(others for _, others, _ in values), np.uint64)
        counts = np.frombuffer(b"".join(counts for _, _, counts in values), np.uint32)
        pairs = (self._numbers(owners) << np.uint64(32)) | self._numbers(others)
        for when in np.unique(buckets).tolist():
            if self._keeps(when):
                here = buckets == when
                self._table(when).put(pairs[here], counts[here])

    def counted(self) -> Counted:
        """All counts as columns."""
        hashes = np.array(self._hash, np.uint64)
        parts = [(when, *table.items()) for when, table in self._buckets.items()]
        if not parts:
            nothing = np.zeros(0, np.uint64)
            return Counted(nothing, nothing, np.zeros(0, np.int32), np.zeros(0, np.uint32))
        keys = np.concatenate([keys for _, keys, _ in parts])
        return Counted(
            hashes[(keys >> np.uint64(32)).astype(np.int64)],
            hashes[(keys & np.uint64(0xFFFFFFFF)).astype(np.int64)],
            np.concatenate([np.full(len(keys), when, np.int32) for when, keys, _ in parts]),
            np.concatenate([counts for _, _, counts in parts]),
        )

    def _numbers(self, hashes: np.ndarray) -> np.ndarray:
        distinct, inverse = np.unique(hashes, return_inverse=True)
        known, out = self._number, np.empty(len(distinct), np.uint64)
        for i, hashed in enumerate(distinct.tolist()):
            number = known.get(hashed)
            if number is None:
                number = known[hashed] = len(self._hash)
                self._hash.append(hashed)
            out[i] = number
        return out[inverse]

    def _keeps(self, when: int) -> bool:
        """False for a bucket that is too old; a newer one than any before sends the oldest away."""
        if when > self._newest:
            self._newest = when
            for old in [w for w in self._buckets if w <= when - self._config.buckets]:
                del self._buckets[old]
                self._touched.pop(old, None)
        return when > self._newest - self._config.buckets

    def _table(self, when: int) -> PairTable:
        return self._buckets.setdefault(when, PairTable())


class Trends:
    """The counts of all partitions that this worker knows: its own, and those it follows."""

    def __init__(self, config: TrendsConfig) -> None:
        self.config = config
        self._partitions: dict[int, PartitionTrends] = {}
        self.version = 0

    def __getitem__(self, partition: int) -> PartitionTrends:
        return self._partitions.setdefault(partition, PartitionTrends(self.config))

    def drop(self, partition: int) -> None:
        self._partitions.pop(partition, None)

    def changed(self) -> None:
        """Scores computed from the counts before are stale."""
        self.version += 1

    def counted(self) -> Counted:
        """The counts of all partitions, not yet summed."""
        parts = [p.counted() for p in self._partitions.values()]
        if not parts:
            return PartitionTrends(self.config).counted()
        return Counted(*(np.concatenate([getattr(p, name) for p in parts]) for name in Counted.__slots__))
