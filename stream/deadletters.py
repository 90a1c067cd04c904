"""Dead letters: what could not be read, with its original bytes and the reason.

Headers are those of Spring Kafka's dead-letter publisher, with its encodings (text as UTF-8, numbers
big-endian), so that tools made for it can list and redrive these. What is unreadable is decided in `stream.events`.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from faust.types import TP

from stream.kafka.batches import Out, send
from stream.records import Unreadable

LARGE_BYTES = 256 * 1024
"""Letters of this size and more are written one by one: smaller ones share batches that any topic takes."""

_TIMESTAMP_TYPES = {0: b"CREATE_TIME", 1: b"LOG_APPEND_TIME"}


def letter(tp: TP, bad: Unreadable, group: str) -> Out:
    """The dead letter of one record of `tp`, read by the consumer group `group`."""
    record = bad.record
    return Out(
        key=record.key,
        value=record.value,
        headers=[
            *record.headers,
            ("kafka_dlt-original-topic", tp.topic.encode()),
            ("kafka_dlt-original-partition", struct.pack(">i", tp.partition)),
            ("kafka_dlt-original-offset", struct.pack(">q", record.offset)),
            ("kafka_dlt-original-timestamp", struct.pack(">q", record.timestamp)),
            ("kafka_dlt-original-timestamp-type", _TIMESTAMP_TYPES.get(record.timestamp_type, b"CREATE_TIME")),
            ("kafka_dlt-original-consumer-group", group.encode()),
            ("kafka_dlt-exception-fqcn", b"stream.records.Unreadable"),
            ("kafka_dlt-exception-message", bad.reason.encode(errors="replace")),
        ],
    )


async def bury(
    producer: AIOKafkaProducer,
    topic: str,
    tp: TP,
    letters: Sequence[Unreadable],
    group: str,
    partition: int | None = None,
) -> None:
    """Write dead letters to the partition's number in `topic`, or to `partition`; all are acknowledged on return.

    A letter that is more than the topic takes goes without its value, whose length a header tells: otherwise one
    record too large would keep its partition from ever being committed.
    """
    outs = [letter(tp, bad, group) for bad in letters]
    at = tp.partition if partition is None else partition
    small = [out for out in outs if len(out.value or b"") < LARGE_BYTES]
    await asyncio.gather(*await send(producer, topic, at, small))
    for out in (out for out in outs if len(out.value or b"") >= LARGE_BYTES):
        try:
            await asyncio.gather(*await send(producer, topic, at, [out]))
        except MessageSizeTooLargeError:
            await asyncio.gather(*await send(producer, topic, at, [_without_value(out)]))


def _without_value(out: Out) -> Out:
    omitted = ("eddyline_dlt-omitted-value-bytes", str(len(out.value or b"")).encode())
    return out._replace(value=b"", headers=[*(out.headers or []), omitted])
