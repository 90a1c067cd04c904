"""A changelog whose end was compacted away: its last offsets are there, and no record is.

Tombstones of users who never were are written last, in a transaction, and the cleaner is made to take them at once:
what is left at the end are a transaction's markers and gaps. A restore that waits for the last record waits for ever.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import ResourceType

from tests.chaos.arena import Arena
from tests.chaos.observer import GHOST, Observer

GHOSTS = 20
WAIT_S = 90.0
EAGER = {
    "segment_ms": "1",
    "min_cleanable_dirty_ratio": "0.0",
    "delete_retention_ms": "0",
    "min_compaction_lag_ms": "0",
    "max_compaction_lag_ms": "1",
}


def to_an_empty_tail(arena: Arena, observer: Observer) -> bool:
    """Compact both changelogs; whether their tails became empty in time. The workers must be down."""
    settings = arena.deployment.settings
    topics = [settings.topics.windows(settings.state.name), settings.topics.trends(settings.state.name)]
    arena.configure(ResourceType.BROKER, "1", log_cleaner_backoff_ms="500")
    for topic in topics:
        arena.configure(ResourceType.TOPIC, topic, **EAGER)
    places = [(topics[0], p) for p in range(settings.topics.partitions)]
    written = observer.ends(places)
    deadline = time.monotonic() + WAIT_S
    while not (empty := _empty(arena.broker.address, places, written, observer)) and time.monotonic() < deadline:
        _write_ghosts(arena.broker.address, topics[0], settings.topics.partitions)
        time.sleep(4.0)
    for topic in topics:
        arena.configure(ResourceType.TOPIC, topic, **dict.fromkeys(EAGER))
    return empty


def _write_ghosts(address: str, topic: str, partitions: int) -> None:
    """Tombstones, in a transaction: its marker comes last, in a segment of its own."""
    producer = Producer({"bootstrap.servers": address, "transactional.id": "chaos-ghosts", "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for partition in range(partitions):
        for n in range(GHOSTS):
            producer.produce(topic, None, f"{GHOST}-{n}".encode(), partition)
    producer.commit_transaction(30)


def _empty(address: str, places: list[tuple[str, int]], since: dict[tuple[str, int], int], observer: Observer) -> bool:
    """Whether nothing can be read from `since` on, though every log is longer."""
    ends = observer.ends(places)
    if any(ends[place] <= since[place] for place in places):
        return False
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": "chaos-tail",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        consumer.assign([TopicPartition(*place, since[place]) for place in places])
        ended = 0
        while ended < len(places):
            for message in consumer.consume(500, 5.0):
                if message.error() is None:
                    return False
                ended += 1
        return True
    finally:
        consumer.close()
