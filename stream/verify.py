"""Whether two state versions are the same: their rows, user by user, and their counts, as their changelogs have them.

What is compared is canonical (`stream.windows.packing`), so equal knowledge has equal bytes. Rows that have taken in
different offsets are apart in time, not in content, unless the version that lacks an event has read past it. One
partition is held in memory at a time, of both versions. Nothing is written, and no worker is asked.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream.errors import StateError
from stream.kafka.clients import consumer
from stream.kafka.debts import offsets
from stream.kafka.fetch import batches_of
from stream.kafka.topics import partitions, topic_partitions
from stream.settings import Settings
from stream.trends import Counted, PartitionTrends, TrendsConfig, joined
from stream.windows.comparing import Compared, Rows
from stream.windows.comparing import compare as compare_rows
from stream.windows.packing import opened

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""How long a transaction that is under way at the end of a changelog is waited for."""


@dataclass(slots=True)
class Verified:
    """What a comparison has found: of rows; of counts, how many there are, how many differ, and the partitions of which
    nothing can be said, as one version has read more; of profiles, where any were asked for.
    """

    rows: Compared = field(default_factory=Compared)
    counts: int = 0
    counts_different: int = 0
    counts_apart: list[int] = field(default_factory=list)
    profiles: int = 0
    least_cosine: float | None = None

    @property
    def same(self) -> bool:
        """Whether nothing differs, and something could be compared where there is anything."""
        close = self.least_cosine is None or self.least_cosine >= LEAST_COSINE
        said = self.rows.equal > 0 or self.rows.apart == 0
        return not self.rows.wrong and not self.counts_different and close and said

    def lines(self, here: str, there: str) -> Iterator[str]:
        """For a person."""
        rows = self.rows
        yield f"{rows.equal:,} users are equal, byte for byte; {rows.different:,} differ"
        if rows.only_here or rows.only_there:
            yield f"{rows.only_here:,} are in {here} only, {rows.only_there:,} in {there} only"
        if rows.apart:
            yield f"{rows.apart:,} have been read to other offsets in one than in the other: apart in time"
        if rows.idle:
            yield f"{rows.idle:,} have been idle for longer than state.history_ttl_ms, and count as gone"
        yield f"{self.counts:,} counts of trends: {self.counts_different:,} differ"
        if self.counts_different and not rows.different:
            yield "  pairs are counted as events come: where a user's come out of time order, counts may differ"
        if self.counts_apart:
            parts = ", ".join(map(str, self.counts_apart))
            yield f"  not compared in the partitions {parts}: one version has read more of them"
        if self.least_cosine is not None:
            yield f"profiles of {self.profiles:,} users, computed from both: cosine {self.least_cosine:.6f} at least"
        yield f"{here} and {there} are {'equal' if self.same else 'different'}"

    def told(self) -> dict[str, Any]:
        """As JSON-able values."""
        rows = self.rows
        out: dict[str, Any] = {
            "same": self.same,
            "users": {
                "equal": rows.equal,
                "different": rows.different,
                "only_as": rows.only_here,
                "only_against": rows.only_there,
                "apart": rows.apart,
                "idle": rows.idle,
            },
            "trends": {"counts": self.counts, "different": self.counts_different, "apart": self.counts_apart},
            "differences": [difference.told() for difference in rows.differences],
        }
        if self.least_cosine is not None:
            out["profiles"] = {"users": self.profiles, "least_cosine": self.least_cosine}
        return out


LEAST_COSINE = 0.9999
"""Of a profile that is computed again, from the same row, in another batch."""


class Pair(NamedTuple):
    """One user's rows of equal knowledge, packed."""

    partition: int
    user: bytes
    here: bytes
    there: bytes


async def compare(here: Settings, there: Settings, show: int = 3, profiles: int = 0, trends: bool = True) -> Verified:
    """`verify`, and the profiles of so many users from both."""
    found, pairs = await verify(here, there, show, profiles, trends)
    if pairs:
        found.least_cosine = await least_cosine(here, pairs)
        found.profiles = len(pairs)
    return found


async def verify(
    here: Settings, there: Settings, show: int = 3, sample: int = 0, trends: bool = True
) -> tuple[Verified, list[Pair]]:
    """Compare the state of `here` with that of `there`; both are settings of one deployment. At most `show`
    differences are kept, and `sample` pairs of rows that have read the same.

    Raises:
        StateError: one of them is not there, or they are not of the same partitions.
    """
    count = await _alike(here, there)
    read_here, read_there = await _read(here), await _read(there)  # first: rows are only newer than these
    found, pairs = Verified(), []
    ends = await _ends(here, there)
    async with consumer(here.kafka) as client:

        async def newest(topic: str, partition: int) -> Rows:
            tp = TopicPartition(topic, partition)
            return await _newest(client, tp, ends[tp])

        for p in range(count):
            # Counts first: what is flushed meanwhile is then in rows, and shows there as apart.
            counts = [await newest(s.topics.trends(s.state.name), p) for s in (here, there)] if trends else []
            rows, others = [await newest(s.topics.windows(s.state.name), p) for s in (here, there)]
            pairs += _sampled(p, rows, others, -(-sample // count))
            ttl, apart = here.state.history_ttl_ms, found.rows.apart
            idle_ms = None if ttl is None else ttl + here.state.allowed_lateness_ms
            compare_rows(found.rows, p, rows, others, read_here.get(p, {}), read_there.get(p, {}), idle_ms, show)
            del rows, others
            if counts and (read_here.get(p) != read_there.get(p) or found.rows.apart > apart):
                found.counts_apart.append(p)
            elif counts:
                total, differ = differing(*(_counted(here.trends, rows) for rows in counts))
                found.counts += total
                found.counts_different += differ
    return found, pairs[:sample]


# Counts


def differing(here: Counted, there: Counted) -> tuple[int, int]:
    """How many distinct (item, next item, bucket) are counted in two versions together, and how many of them not
    alike. Counts of one pair add up, however they are spread.
    """
    a, b, bucket = (np.concatenate([getattr(here, name), getattr(there, name)]) for name in ("a", "b", "bucket"))
    n = np.concatenate([here.n.astype(np.int64), -there.n.astype(np.int64)])
    if not len(n):
        return 0, 0
    order = np.lexsort((b, a, bucket))
    a, b, bucket, n = a[order], b[order], bucket[order], n[order]
    new = np.r_[True, (a[1:] != a[:-1]) | (b[1:] != b[:-1]) | (bucket[1:] != bucket[:-1])]
    left = np.add.reduceat(n, np.flatnonzero(new))
    return len(left), int(np.count_nonzero(left))


def _counted(config: TrendsConfig, rows: Rows) -> Counted:
    trends = PartitionTrends(config)
    trends.restore(rows)
    return joined([trends.snapshot()])


# Reading


async def _alike(here: Settings, there: Settings) -> int:
    """The partitions that both are of."""
    counts: dict[str, int] = {}
    for s in (here, there):
        names = [s.topics.windows(s.state.name), s.topics.trends(s.state.name)]
        found = await partitions(s.kafka, names)
        if set(names) - set(found):
            raise StateError(
                f"there is no state {s.state.name}: it has no changelogs", "name a version that has been run"
            )
        counts[s.state.name] = found[names[0]]
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} of {n}" for name, n in counts.items())
        raise StateError(
            f"these states are of different partitions ({told}): their offsets are not of the same events",
            "build one anew from the topics as they are: eddyline backfill --as NAME",
        )
    return next(iter(counts.values()))


async def _read(settings: Settings) -> dict[int, dict[str, int]]:
    """partition -> input topic -> next offset that the version has committed; 0 where it has committed none."""
    found = await offsets(settings.kafka, settings.group)
    out: dict[int, dict[str, int]] = {}
    for tp in await topic_partitions(settings.kafka, settings.input.names):
        out.setdefault(tp.partition, {})[tp.topic] = max(0, found[tp].offset) if tp in found else 0
    return out


async def _ends(here: Settings, there: Settings) -> dict[TopicPartition, int]:
    """Where the changelogs end, whether or not what is last is committed yet."""
    names = [name(s.state.name) for s in (here, there) for name in (s.topics.windows, s.topics.trends)]
    tps = await topic_partitions(here.kafka, names)
    async with consumer(here.kafka, isolation_level="read_uncommitted") as client:
        return await client.end_offsets(tps)


async def _newest(client: AIOKafkaConsumer, tp: TopicPartition, end: int) -> Rows:
    """The newest record of each key of a changelog's partition, without those that were deleted."""
    rows: Rows = {}
    async for records in _records(client, tp, end):
        for record in records:
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
    return rows


async def _records(client: AIOKafkaConsumer, tp: TopicPartition, end: int) -> AsyncIterator[Any]:
    """Committed records of a partition up to offset `end`, in batches. What a transaction under way has written is
    waited for a little: it may be all but committed.
    """
    client.assign([tp])
    await client.seek_to_beginning(tp)
    moved = monotonic()
    while await client.position(tp) < end:
        if monotonic() - moved > PATIENCE_S and await client.position(tp) >= (await client.end_offsets([tp]))[tp]:
            log.warning("%s/%d ends with a transaction that is not done; what it wrote is left out", *tp)
            return
        batches = await batches_of(client, {tp}, 0.2)
        if batches:
            moved = monotonic()
        for records in batches.values():
            yield records


# Profiles


def _sampled(partition: int, here: Rows, there: Rows, n: int) -> list[Pair]:
    """n users of a partition who have read the same in both, evenly drawn and always the same."""
    if not n:
        return []
    both = sorted(here.keys() & there.keys(), key=zlib.crc32)
    pairs = (Pair(partition, user, here[user], there[user]) for user in both)
    return [pair for pair, _ in zip(filter(_level, pairs), range(n), strict=False)]


def _level(pair: Pair) -> bool:
    return pair.here == pair.there or opened(pair.here).applied == opened(pair.there).applied


async def least_cosine(settings: Settings, pairs: Sequence[Pair]) -> float | None:
    """The profiles of both rows of each pair, computed by the model that is served, in batches of other sizes; the
    least cosine of any two that belong together. None where there is nothing to compare, or no catalogue.
    """
    from stream.lists.profiling import reader  # torch is behind it

    profiles = await reader(settings)
    if profiles is None or not pairs:
        return None
    together = profiles([(pair.partition, pair.user, pair.here) for pair in pairs])
    least = 1.0
    for pair, vectors in zip(pairs, together, strict=True):
        alone = profiles([(pair.partition, pair.user, pair.there)])[0]
        if vectors.shape != alone.shape:
            return -1.0
        least = min([least, *_cosines(vectors, alone)])
    return least


def _cosines(a: np.ndarray, b: np.ndarray) -> Iterator[float]:
    for x, y in zip(a.astype(np.float64), b.astype(np.float64), strict=True):
        length = float(np.linalg.norm(x) * np.linalg.norm(y))
        yield float(x @ y) / length if length else float(np.array_equal(x, y))
