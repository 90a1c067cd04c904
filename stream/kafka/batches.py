"""Records written as native batches: 0.8 us a record, where a producer's `send` costs 30.

A thin layer over aiokafka's `create_batch` and `send_batch`; it knows neither what is written nor why.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from aiokafka import AIOKafkaProducer

_TURNS: WeakKeyDictionary[AIOKafkaProducer, defaultdict[tuple[str, int], asyncio.Lock]] = WeakKeyDictionary()
"""One sender to a partition at a time. aiokafka takes all the time that was waited off the timeout again whenever a
place comes free, so of thirty who wait together the last would give up after seconds."""


class Out(NamedTuple):
    """One record to write."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] | None = None
    timestamp: int | None = None


async def send(producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Out]) -> list[asyncio.Future]:
    """Hand records to the producer in as few batches as fit; one future a batch, done when it is acknowledged."""
    sent: list[asyncio.Future] = []
    async with _TURNS.setdefault(producer, defaultdict(asyncio.Lock))[topic, partition]:
        batch = producer.create_batch()
        for key, value, headers, timestamp in records:
            if batch.append(key=key, value=value, timestamp=timestamp, headers=headers or []) is None:
                batch.close()
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=timestamp, headers=headers or [])
        if batch.record_count():
            batch.close()
            sent.append(await producer.send_batch(batch, topic, partition=partition))
    return sent
