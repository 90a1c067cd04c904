"""Whole partition batches out of aiokafka's fetcher, without an object of its own for each record.

aiokafka makes a `ConsumerRecord` of every record, which costs five times what reading it does. Here the records
are those of its parser: they have the same fields, less topic and partition, which all of a batch share. What is
read when, and what becomes of it, is decided elsewhere (`stream.kafka.transport`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Set
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords


async def fetched(fetcher: Fetcher, partitions: Set[Any], timeout: float) -> dict[TopicPartition, list[Any]]:
    """What has been fetched of these partitions, waiting up to `timeout` seconds where nothing has; positions advance.

    Raises:
        KafkaError: a partition cannot be fetched; the next call goes on with the others.
    """
    if not (records := _taken(fetcher, partitions)):
        waiter = fetcher._create_fetch_waiter()
        done, _ = await asyncio.wait([waiter], timeout=timeout)
        if not done:
            waiter.cancel()
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
            found.__class__ = _ParsedRecords
            if records := list(found._records_iterator):
                taken[tp] = records
            result._update_position()
    return taken


class _ParsedRecords(PartitionRecords):
    """Hands out the parser's records."""

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any:
        return record
