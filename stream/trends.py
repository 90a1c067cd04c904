"""Trends: what is met after what, and how often anything is met; integer counts per time bucket.

Counts are kept per input partition, beside the windows of that partition, and written to a changelog
in the same transaction, so a count is there exactly when the event behind it is in its window. Every
worker reads the changelogs of all partitions and sums them: N workers see the same trends as one.
Decay and scores are not here: they are computed when counts are read (`model.online`).

The changelog is a log-structured merge tree (O'Neil et al., 1996) in a compacted topic: a flush writes
what was counted since the last one as a new run of sorted columns, and when `FAN` runs of like size have
come together they are merged into one, and their records deleted. A popular item so costs a few bytes a
flush, not all that ever followed it, and a restore reads columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import msgpack
import numpy as np
from pydantic import BaseModel, ConfigDict, Field

VERSION = 1
FAN = 8
"""Runs of like size that are merged into one."""
LARGEST_MERGE = 1 << 23
"""Pairs in a merge: 160 MB in one transaction. What is larger stays as it is; sums do not depend on it."""
CHUNK = 32_768
"""Pairs in a record: 640 kB, below what brokers take by default."""


class TrendsConfig(BaseModel):
    """How trends are counted and how often they are read."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(
        default=True, description="count what follows what, and what is popular; without, lists are the model's alone"
    )
    bucket_ms: int = Field(default=7 * 86_400_000, ge=1000)
    buckets: int = Field(default=52, ge=1, description="buckets kept, counted back from the newest event")
    refresh_s: float = Field(default=2.0, gt=0, description="how often scores are computed anew from counts")
    variation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="what comes like clockwork counts nothing: the least standard deviation of a user's newest 20 gaps "
        "between interactions, as a share of their mean; 0.3 leaves bots out and no people, 0 counts all",
    )
    kin: float = Field(
        default=0.0,
        ge=0,
        description="interactions at which an item borrows half from the counts of its categories; 0: none does",
    )


class Counted(NamedTuple):
    """Counts as columns: `a` u64[n] met before `b` u64[n] (0: `a` itself met), in `bucket` i32[n], `count` u32[n]."""

    a: np.ndarray
    b: np.ndarray
    bucket: np.ndarray
    n: np.ndarray


class Run(NamedTuple):
    """A run's place: its bucket, and its number, which no other run of the partition has."""

    bucket: int
    number: int


class Pairs(NamedTuple):
    """Distinct pairs of one bucket, a u64[n] and b u64[n], and their counts u32[n]. Never changed once made."""

    a: np.ndarray
    b: np.ndarray
    n: np.ndarray


class Snapshot(NamedTuple):
    """Counts of one partition at one moment: pairs by bucket, what was counted since the last flush, and the newest
    bucket that is too old to count.
    """

    made: list[tuple[int, Pairs]]
    pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    too_old: int


Rows = dict[bytes, bytes | None]
"""Changelog rows: key -> value, None where the row is deleted."""


class PartitionTrends:
    """The counts of one input partition: what is in the changelog, and what was counted since."""

    def __init__(self, config: TrendsConfig) -> None:
        self._config = config
        self._chunks: dict[Run, dict[int, Pairs]] = {}
        self._pending: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._next = 0
        self._newest = -(2**62)

    def count(self, items: np.ndarray, times: np.ndarray, pairs: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
        """Count items u64[n] met at times i64[n], and pairs (before, item, time)."""
        before, after, pair_times = pairs
        bucket = np.concatenate([pair_times, times]) // self._config.bucket_ms
        if not len(bucket):
            return
        self._newest = max(self._newest, int(bucket.max()))
        self._pending.append(
            (np.concatenate([before, items]), np.concatenate([after, np.zeros(len(items), np.uint64)]), bucket)
        )

    @property
    def dirty(self) -> bool:
        return bool(self._pending)

    def flush(self) -> Rows:
        """Rows that make durable what was counted since the last flush, and delete what has become too old."""
        rows: Rows = {}
        for run in [run for run in self._chunks if not self._keeps(run.bucket)]:
            rows |= self._deleted(run)
        if self._pending:
            a, b, bucket = (np.concatenate(column) for column in zip(*self._pending, strict=True))
            self._pending.clear()
            only = int(bucket[0]) if (bucket == bucket[0]).all() else None
            for when in [only] if only is not None else np.unique(bucket).tolist():
                if self._keeps(when):
                    here = slice(None) if only is not None else bucket == when
                    rows |= self._added(when, summed(a[here], b[here]))
        return rows

    def crowded(self) -> list[Run]:
        """Runs of like size in one bucket that are to be merged; none while there are few."""
        tiers: dict[tuple[int, int], list[Run]] = defaultdict(list)
        for run, chunks in self._chunks.items():
            size = sum(len(pairs.a) for pairs in chunks.values())
            if size * FAN <= LARGEST_MERGE:
                tiers[run.bucket, _tier(size)].append(run)
        return next((runs for runs in tiers.values() if len(runs) >= FAN), [])

    def parts(self, runs: Sequence[Run]) -> list[Pairs]:
        """What is in these runs, to be merged by `merged`, on any thread."""
        return [pairs for run in runs for pairs in self._chunks[run].values()]

    def replace(self, runs: Sequence[Run], by: Pairs) -> Rows:
        """Rows that put one run into the place of several."""
        rows: Rows = {}
        for run in runs:
            rows |= self._deleted(run)
        return rows | self._added(runs[0].bucket, by)

    def restore(self, rows: Mapping[bytes, bytes | None]) -> None:
        """Take in changelog rows, in the order of the log or the last of each key.

        Raises:
            ValueError: a row that this version cannot read.
        """
        for key, value in rows.items():
            bucket, number, chunk = msgpack.unpackb(key)
            run = Run(bucket, number)
            self._next = max(self._next, number + 1)
            if value is None:
                chunks = self._chunks.get(run, {})
                chunks.pop(chunk, None)
                if not chunks:
                    self._chunks.pop(run, None)
                continue
            version, *columns = msgpack.unpackb(value)
            if version != VERSION:
                raise ValueError(f"a trends row of version {version}; this eddyline reads {VERSION}")
            a, b, count = columns
            pairs = Pairs(np.frombuffer(a, np.uint64), np.frombuffer(b, np.uint64), np.frombuffer(count, np.uint32))
            self._chunks.setdefault(run, {})[chunk] = pairs
            self._newest = max(self._newest, bucket)

    def snapshot(self) -> Snapshot:
        """All counts as of now. Nothing is copied: what it refers to never changes."""
        kept = [
            (run.bucket, pairs)
            for run, chunks in self._chunks.items()
            if self._keeps(run.bucket)
            for pairs in chunks.values()
        ]
        return Snapshot(kept, list(self._pending), self._newest - self._config.buckets)

    def counted(self) -> Counted:
        """All counts as columns; a pair may be there more than once, and its counts add up."""
        return joined([self.snapshot()])

    def _keeps(self, bucket: int) -> bool:
        return bucket > self._newest - self._config.buckets

    def _added(self, bucket: int, pairs: Pairs) -> Rows:
        run = Run(bucket, self._next)
        self._next += 1
        self._chunks[run] = {
            chunk: Pairs(*(column[start : start + CHUNK] for column in pairs))
            for chunk, start in enumerate(range(0, len(pairs.a), CHUNK))
        }
        return {
            _key(run, chunk): _packed((VERSION, *(column.tobytes() for column in part)))
            for chunk, part in self._chunks[run].items()
        }

    def _deleted(self, run: Run) -> Rows:
        return {_key(run, chunk): None for chunk in self._chunks.pop(run)}


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

    def snapshot(self) -> list[Snapshot]:
        """The counts of all partitions as of now, for `joined` on any thread."""
        return [p.snapshot() for p in self._partitions.values()]

    def counted(self) -> Counted:
        """The counts of all partitions, not yet summed."""
        return joined(self.snapshot())


def joined(snapshots: Sequence[Snapshot]) -> Counted:
    """Counts as columns, not yet summed."""
    nothing = np.zeros(0, np.uint64)
    parts = [Counted(nothing, nothing, np.zeros(0, np.int32), np.zeros(0, np.uint32))]
    for made, pending, too_old in snapshots:
        parts += [Counted(pairs.a, pairs.b, np.full(len(pairs.a), bucket, np.int32), pairs.n) for bucket, pairs in made]
        for a, b, bucket in pending:
            kept = bucket > too_old
            parts.append(Counted(a[kept], b[kept], bucket[kept].astype(np.int32), np.ones(int(kept.sum()), np.uint32)))
    return Counted(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def merged(parts: Sequence[Pairs]) -> Pairs:
    """The sum of parts of one bucket."""
    return summed(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def summed(a: np.ndarray, b: np.ndarray, count: np.ndarray | None = None) -> Pairs:
    """Distinct pairs with their counts added up; without counts, each pair is one.

    Sorted by one mixed word, which is far cheaper than by two, and whose lowest bits give way to the place it came
    from: words sort three times as fast as places do by them.
    """
    if not len(a):
        return Pairs(a, b, np.zeros(0, np.uint32))
    places = np.uint64((1 << max(len(a) - 1, 1).bit_length()) - 1)
    words = a * np.uint64(0x9E3779B97F4A7C15) ^ b * np.uint64(0xC2B2AE3D27D4EB4F)
    words = np.sort(words & ~places | np.arange(len(a), dtype=np.uint64))
    order = (words & places).astype(np.int64)
    words &= ~places
    a, b = a[order], b[order]
    differ = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    if (clash := differ & (words[1:] == words[:-1])).any():
        # Pairs that share a word may lie in and out: these few are sorted by themselves.
        at = np.flatnonzero(np.isin(words, words[1:][clash]))
        again = at[np.lexsort((b[at], a[at], words[at]))]
        a[at], b[at], order[at] = a[again], b[again], order[again]
        differ = (a[1:] != a[:-1]) | (b[1:] != b[:-1])
    starts = np.flatnonzero(np.r_[True, differ])
    if count is None:
        sums = np.diff(starts, append=len(a)).astype(np.uint32)
    else:
        sums = np.add.reduceat(count[order], starts, dtype=np.uint32)
    return Pairs(a[starts], b[starts], sums)


def _tier(size: int) -> int:
    """0 up to FAN pairs, 1 up to FAN^2 ..."""
    return max(size - 1, 1).bit_length() // (FAN.bit_length() - 1)


def _key(run: Run, chunk: int) -> bytes:
    return _packed((run.bucket, run.number, chunk))


def _packed(value: object) -> bytes:
    return cast(bytes, msgpack.packb(value))
