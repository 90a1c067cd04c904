"""What a fetch brings, a whole batch at a time: the same records that aiokafka hands out one by one."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from stream.kafka.fetch import _parsed

TP = TopicPartition("click", 0)
COMMIT, ABORT = b"\0\0\0\1", b"\0\0\0\0"
CONTROL = 0x20
BASE_OFFSET, ATTRIBUTES, CRC = slice(0, 8), slice(21, 23), slice(17, 21)


def batch(first: int, n: int, producer: int = -1, marker: bytes | None = None) -> bytes:
    """A batch of n records from offset `first`; `producer`: in a transaction of that one; `marker`: which ends it."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=producer >= 0,
        producer_id=producer,
        producer_epoch=0,
        base_sequence=0,
        batch_size=1 << 20,
    )
    for i in range(n):
        builder.append(i, 1000 + i, marker or b"u%d" % (first + i), b"v%d" % (first + i), [])
    out = bytearray(builder.build())
    out[BASE_OFFSET] = first.to_bytes(8, "big")
    if marker is not None:
        attributes = int.from_bytes(out[ATTRIBUTES], "big") | CONTROL
        out[ATTRIBUTES] = attributes.to_bytes(2, "big")
    return bytes(out)


def fetch(*batches: bytes, at: int = 0, aborted: Any = None, isolation: int = READ_COMMITTED) -> PartitionRecords:
    # Offsets and attributes were written after the checksum.
    return PartitionRecords(TP, MemoryRecords(b"".join(batches)), aborted, at, None, None, False, isolation)


CASES: dict[str, dict[str, Any]] = {
    "nothing": {"batches": ()},
    "two batches": {"batches": (batch(0, 3), batch(3, 2))},
    "a batch that begins before what was asked for": {"batches": (batch(0, 5), batch(5, 1)), "at": 3},
    "a gap after compaction": {"batches": (batch(0, 2), batch(7, 2))},
    "a committed transaction": {"batches": (batch(0, 2, 7), batch(2, 1, 7, COMMIT), batch(3, 1))},
    "an aborted transaction": {
        "batches": (batch(0, 2, 7), batch(2, 2), batch(4, 1, 7, ABORT), batch(5, 2, 7), batch(7, 1, 7, COMMIT)),
        "aborted": [(7, 0)],
    },
    "two producers, one aborted": {
        "batches": (batch(0, 2, 7), batch(2, 2, 8), batch(4, 1, 8, COMMIT), batch(5, 1, 7, ABORT)),
        "aborted": [(7, 0)],
    },
    "aborted, but read uncommitted": {
        "batches": (batch(0, 2, 7), batch(2, 1, 7, ABORT)),
        "aborted": [(7, 0)],
        "isolation": READ_UNCOMMITTED,
    },
    "only markers": {"batches": (batch(4, 1, 7, COMMIT), batch(5, 1, 7, COMMIT)), "at": 4},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_records_and_the_next_offset_are_those_of_aiokafka(case: dict[str, Any]) -> None:
    case = dict(case)
    batches = case.pop("batches")
    theirs, ours = fetch(*batches, **case), fetch(*batches, **case)
    wanted = [(r.offset, r.key, r.value, r.timestamp, list(r.headers)) for r in theirs]
    assert [(r.offset, r.key, r.value, r.timestamp, list(r.headers)) for r in _parsed(ours)] == wanted
    assert ours.next_fetch_offset == theirs.next_fetch_offset


def test_a_damaged_batch_is_refused() -> None:
    whole = bytearray(batch(0, 3))
    whole[-1] ^= 1
    damaged = PartitionRecords(TP, MemoryRecords(bytes(whole)), None, 0, None, None, True, READ_COMMITTED)
    with pytest.raises(CorruptRecordException, match="damaged"):
        _parsed(damaged)
