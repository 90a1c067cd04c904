"""Reading a range of partitions once, as someone who only looks: no group, no commit, nothing written.

For history that is read back (`stream.topicdata`). Whole batches of committed records are handed over, in the order of
each partition; what they mean is the caller's. It needs leave to read and to describe the topics, and no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from stream.errors import TopicError
from stream.kafka.clients import KafkaConfig, consumer, unavailable
from stream.kafka.fetch import batches_of

FETCH_WAIT_S = 0.2

OnRecords = Callable[[TopicPartition, Sequence[Any]], None]


class Spent(NamedTuple):
    """CPU seconds of fetching alone: what came of records is the caller's."""

    fetching: float


async def read(
    kafka: KafkaConfig,
    tps: Iterable[TopicPartition],
    on_records: OnRecords,
    since_ms: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Spent:
    """Hand over every record of these partitions, from those written at `since_ms` (None: the first) to the ends of
    now. `progress(done, total)` is told of offsets.

    Raises:
        TopicError: a topic may not be read.
        BrokerUnavailable: nothing answers, or nothing comes any more.
    """
    spent = 0.0
    async with consumer(kafka) as client:
        try:
            left = await _ranges(client, list(tps), since_ms)
            total, done = sum(end - first for first, end in left.values()), 0
            came = time.monotonic()
            while left:
                began = time.process_time()
                batches = await batches_of(client, left.keys(), FETCH_WAIT_S)
                spent += time.process_time() - began
                for tp, records in batches.items():
                    _, end = left[tp]
                    inside = records if records[-1].offset < end else [r for r in records if r.offset < end]
                    if inside:
                        on_records(tp, inside)
                positions = {tp: await client.position(tp) for tp in left}
                if any(positions[tp] > first for tp, (first, _) in left.items()):
                    came = time.monotonic()
                elif time.monotonic() - came > kafka.request_timeout_ms / 1000:
                    raise unavailable(kafka, TimeoutError(f"nothing has come for {time.monotonic() - came:.0f} s"))
                done += sum(min(positions[tp], end) - first for tp, (first, end) in left.items())
                left = {tp: (positions[tp], end) for tp, (_, end) in left.items() if positions[tp] < end}
                if progress is not None:
                    progress(done, total)
                await asyncio.sleep(0)  # fetches that wait for the loop go on
        except TopicAuthorizationFailedError as error:
            raise forbidden(error) from error
    return Spent(spent)


def forbidden(error: KafkaError) -> TopicError:
    """The one error for topics that may be seen and not read."""
    return TopicError(
        f"may not be read: {error.args[0] if error.args else error}",
        "allow Read and Describe on the topic to this user (kafka-acls --add --allow-principal User:NAME "
        "--operation Read --topic TOPIC); nothing else is needed",
    )


async def _ranges(
    client: AIOKafkaConsumer, tps: Sequence[TopicPartition], since_ms: int | None
) -> dict[TopicPartition, tuple[int, int]]:
    """Where each partition is begun, which the client is put to, and where it ends; without what has nothing."""
    if not tps:
        return {}
    client.assign(tps)
    ends = await client.end_offsets(tps)
    starts: dict[TopicPartition, int] = dict(await client.beginning_offsets(tps))
    if since_ms is not None:
        found: Mapping[TopicPartition, Any] = await client.offsets_for_times(dict.fromkeys(tps, max(since_ms, 0)))
        starts = {tp: ends[tp] if found[tp] is None else found[tp].offset for tp in tps}
    for tp in tps:
        client.seek(tp, starts[tp])
    return {tp: (starts[tp], ends[tp]) for tp in tps if starts[tp] < ends[tp]}
