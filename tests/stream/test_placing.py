"""Partitions by key are those of Kafka's Java clients."""

from __future__ import annotations

import random

from aiokafka.partitioner import murmur2

from stream.kafka.placing import hashed, partition_of, placed


def test_many_keys_are_hashed_as_one_by_one() -> None:
    rng = random.Random(1)
    keys = [rng.randbytes(rng.randint(0, 90)) for _ in range(2000)]
    assert hashed(keys).tolist() == [murmur2(key) & 0xFFFFFFFF for key in keys]


def test_keys_are_placed_where_events_are_sent() -> None:
    users = [f"user-{n}" for n in range(500)] + ["ü" * 40]
    assert placed([user.encode() for user in users], 7).tolist() == [partition_of(user, 7) for user in users]


def test_no_keys_are_nowhere() -> None:
    assert placed([], 4).tolist() == []
