"""The floor: what it costs to fetch the events with aiokafka and to decode them, and nothing else.

No state, no outputs, no group. How many it has read is in the file BENCH_PROGRESS.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition


class Event(msgspec.Struct):
    """One click."""

    user: str
    item: str
    ts: int


async def main() -> None:
    """Read until killed."""
    topic, partitions = os.environ["BENCH_INPUT"], int(os.environ["BENCH_PARTITIONS"])
    progress = Path(os.environ["BENCH_PROGRESS"])
    consumer = AIOKafkaConsumer(
        bootstrap_servers=os.environ["BENCH_BROKER"], auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, partition) for partition in range(partitions)])
    decode = msgspec.json.Decoder(Event).decode
    read = 0
    while True:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            events = [decode(record.value) for record in records]
            read += len(events)
        progress.write_text(str(read))


asyncio.run(main())
