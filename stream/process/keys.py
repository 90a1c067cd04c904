"""Whether input topics keep users together, or must be re-keyed: by their partitions, and by keys that are there.

It looks and decides; the copying is `stream.rekey`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError

from stream.kafka.clients import KafkaConfig, consumer
from stream.kafka.follow import newest_by_key
from stream.kafka.placing import placed
from stream.kafka.reading import forbidden
from stream.kafka.topics import partitions
from stream.process.origin import KEY, Origin
from stream.rekey import rekeyed
from stream.settings import Settings

SAMPLE = 100
"""Newest records of each partition that are looked at."""
STRAYS = 0.05
"""A topic of which more are not where they belong is one that does not keep users together. Fewer are single records
gone wrong, which are dead letters.
"""


class Finding(NamedTuple):
    """Whether to re-key, and why."""

    needed: bool
    why: str


async def look(settings: Settings) -> Finding:
    """Changes nothing. What a state was begun with stays: its rows are of those topics."""
    if settings.input.rekey != "auto":
        return Finding(settings.input.rekey == "always", f"input.rekey is {settings.input.rekey!r}")
    begun, events = settings.topics.origin(settings.state.name), settings.topics.events
    counts = await partitions(settings.kafka, [*settings.input.names, begun, events])
    if events in settings.input.names:
        return Finding(False, f"{events} is read as it is")
    if begun in counts and (record := (await newest_by_key(settings.kafka, begun)).get(KEY)) is not None:
        return Finding(events in Origin.unpack(record.value).topics, f"state {settings.state.name} was begun so")
    if events in counts and any((await sampled(settings.kafka, _all(events, counts[events]))).values()):
        return Finding(True, "other states read them so")
    inputs = {name: counts[name] for name in settings.input.names if name in counts}
    if len(set(inputs.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in inputs.items())
        return Finding(True, f"the input topics differ in partitions: {told}")
    for topic, count in inputs.items():
        found = await sampled(settings.kafka, _all(topic, count))
        wrong, n = misplaced(settings, topic, count, found), sum(map(len, found.values()))
        if wrong > STRAYS * n:
            return Finding(True, f"of {n} records of {topic} {wrong} are not where their users belong")
    return Finding(False, "users are where they belong, as far as was looked")


def _all(topic: str, count: int) -> list[TopicPartition]:
    return [TopicPartition(topic, p) for p in range(count)]


async def settled(settings: Settings) -> tuple[Settings, Finding]:
    """The settings that a worker goes by: those given, or with `eddyline.events` for its input."""
    finding = await look(settings)
    if not finding.needed:
        return settings, finding
    return settings.model_copy(update={"input": rekeyed(settings.input, settings.topics)}), finding


def misplaced(settings: Settings, topic: str, count: int, found: dict[int, Sequence[Any]]) -> int:
    """How many readable records, by partition, have another key than their user, or lie where Kafka's own hash of it
    does not put them.
    """
    decoder, wrong = settings.input.decoders(keyed=False)[topic], 0
    for partition, records in found.items():
        events, _ = decoder.decode(records)
        keys = {record.offset: record.key for record in records}
        users = [user.encode() for user in events.users]
        strange = np.array([keys[o] != user for o, user in zip(events.offsets.tolist(), users, strict=True)], bool)
        amiss = strange | (placed(users, count) != partition)
        wrong += len(np.unique(events.offsets[amiss]))
    return wrong


async def sampled(kafka: KafkaConfig, tps: Sequence[TopicPartition]) -> dict[int, Sequence[Any]]:
    """The newest records of each partition, `SAMPLE` of them or fewer. Raises TopicError where they may not be read."""
    found: dict[int, list[Any]] = {tp.partition: [] for tp in tps}
    async with consumer(kafka) as client:
        client.assign(tps)
        firsts, ends = await client.beginning_offsets(tps), await client.end_offsets(tps)
        left = [tp for tp in tps if ends[tp] > firsts[tp]]
        for tp in tps:
            client.seek(tp, max(firsts[tp], ends[tp] - SAMPLE))
        try:
            while left:
                for tp, records in (await client.getmany(*left, timeout_ms=200)).items():
                    found[tp.partition] += [record for record in records if record.offset < ends[tp]]
                left = [tp for tp in left if await client.position(tp) < ends[tp]]
        except TopicAuthorizationFailedError as error:
            raise forbidden(error) from error
    return {partition: records for partition, records in found.items()}
