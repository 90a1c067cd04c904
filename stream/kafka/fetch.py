"""Whole partition batches out of aiokafka's fetcher, without an object of its own for each record.

aiokafka makes a `ConsumerRecord` of every record, which costs five times what reading it does. Here the records
are those of its parser: they have the same fields, less topic and partition, which all of a batch share. What is
read when, and what becomes of it, is decided elsewhere (`stream.kafka.transport`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException


async def batches_of(client: AIOKafkaConsumer, partitions: Set[Any], timeout: float) -> dict[TopicPartition, list[Any]]:
    """`fetched`, by a consumer that is started.

    Raises:
        ConsumerStoppedError: it is not, or no more.
    """
    fetcher: Any = client._fetcher
    if client._closed or fetcher is None:
        raise ConsumerStoppedError
    with client._subscription.fetch_context():
        return await fetched(fetcher, partitions, timeout)


async def fetched(fetcher: Fetcher, partitions: Set[Any], timeout: float) -> dict[TopicPartition, list[Any]]:
    """What has been fetched of these partitions, waiting up to `timeout` seconds where nothing has; positions advance.

    Raises:
        KafkaError: a partition cannot be fetched; the next call goes on with the others.
    """
    if not (records := _taken(fetcher, partitions)):
        waiter = fetcher._create_fetch_waiter()
        try:
            done, _ = await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiter.cancel()  # does nothing to one that is done
        if not done:
            return {}
        waiter.result()
        records = _taken(fetcher, partitions)
    return records


def _taken(fetcher: Fetcher, partitions: Set[Any]) -> dict[TopicPartition, list[Any]]:
    taken: dict[TopicPartition, list[Any]] = {}
    if fetcher._subscriptions.reassignment_in_progress:  # what is there may not be ours any more
        return taken
    for tp, result in list(fetcher._records.items()):
        if tp not in partitions:
            if not fetcher._subscriptions.is_assigned(tp):
                del fetcher._records[tp]
            continue
        if not isinstance(result, FetchResult) and taken:
            break  # an error is raised by the next call: this one has records to return
        del fetcher._records[tp]
        fetcher._notify(fetcher._wait_consume_future)
        if not isinstance(result, FetchResult):
            result.check_raise()
        elif result.check_assignment(tp) and (found := result._partition_records) is not None:
            if records := _parsed(found):
                taken[tp] = records
            result._update_position()
    return taken


def _parsed(fetched: PartitionRecords) -> list[Any]:
    """The records of a fetch, a whole batch at a time; `fetched.next_fetch_offset` moves behind them.

    Left out are the markers of transactions, what aborted ones wrote (aiokafka knows which those are), and records
    before the offset that was asked for, which a batch may begin with.

    Raises:
        CorruptRecordException: a batch is damaged; it is fetched again.
    """
    records: list[Any] = []
    batches = fetched._records
    while batches.has_next():
        batch = batches.next_batch()
        if fetched._check_crcs and not batch.validate_crc():
            raise CorruptRecordException(
                f"{fetched._tp}: a batch from offset {fetched.next_fetch_offset} on is damaged"
            )
        aborted = False
        if batch.producer_id is not None and fetched._isolation_level == READ_COMMITTED:
            fetched._consume_aborted_up_to(batch.base_offset)
            if batch.is_control_batch and fetched._contains_abort_marker(batch):
                fetched._aborted_producers.discard(batch.producer_id)
            aborted = batch.is_transactional and batch.producer_id in fetched._aborted_producers
        if not batch.is_control_batch and not aborted:
            found, asked_for = list(batch), fetched.next_fetch_offset
            if found and found[0].offset < asked_for:
                found = [record for record in found if record.offset >= asked_for]
            records += found
        fetched.next_fetch_offset = batch.next_offset
    return records
