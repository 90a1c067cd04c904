"""The floor of latency: a bare aiokafka client that writes every record to another topic.

No group, no state, no commits.
"""

from __future__ import annotations

import asyncio
import os

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition


async def main() -> None:
    """Echo until killed."""
    address, partitions = os.environ["BENCH_BROKER"], int(os.environ["BENCH_PARTITIONS"])
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="latest", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await consumer.start()
    await producer.start()
    consumer.assign([TopicPartition(os.environ["BENCH_INPUT"], partition) for partition in range(partitions)])
    await consumer.seek_to_end()
    while True:
        for tp, records in (await consumer.getmany(timeout_ms=200)).items():
            for record in records:
                await producer.send(os.environ["BENCH_OUTPUT"], record.value, record.key, partition=tp.partition)


asyncio.run(main())
