"""A changelog whose end was compacted away: its last offsets are there, and no record is.

Tombstones of users who never were are written last, and the cleaner is made to take them at once. It takes tombstones
only when it comes by for the second time, and comes by only where something was written: that is a transaction which
is aborted, so nobody reads it. What is left at the end are markers and gaps: a restore that waits for the last record
waits for ever.
"""

from __future__ import annotations

import time

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import ResourceType

from stream.settings import Settings
from tests.chaos.admin import Place, client, configure, ends
from tests.chaos.observer import GHOST

GHOSTS = 20
WAIT_S = 90.0
NODE = "1"
EAGER = {
    "segment_ms": "1",
    "min_cleanable_dirty_ratio": "0.0",
    "delete_retention_ms": "0",
    "min_compaction_lag_ms": "0",
    "max_compaction_lag_ms": "1",
}


def to_an_empty_tail(settings: Settings) -> bool:
    """Compact both changelogs; whether that of the windows ends with nothing in time. The workers must be down."""
    address = settings.kafka.bootstrap_servers
    topics = (settings.topics.windows(settings.state.name), settings.topics.trends(settings.state.name))
    places = [(topics[0], p) for p in range(settings.topics.partitions)]
    admin = client(address)
    configure(admin, ResourceType.BROKER, NODE, log_cleaner_backoff_ms="500")
    for topic in topics:
        configure(admin, ResourceType.TOPIC, topic, **EAGER)
    since = ends(admin, places)
    _write_ghosts(address, places, keep=True)
    deadline = time.monotonic() + WAIT_S
    while not (empty := _nothing_after(address, since)) and time.monotonic() < deadline:
        time.sleep(1.0)
        _write_ghosts(address, places, keep=False)
    for topic in topics:
        configure(admin, ResourceType.TOPIC, topic, **dict.fromkeys(EAGER))
    configure(admin, ResourceType.BROKER, NODE, log_cleaner_backoff_ms=None)
    return empty


def _write_ghosts(address: str, places: list[Place], keep: bool) -> None:
    """Tombstones, in a transaction that is committed, or aborted: its marker comes last, in a segment of its own."""
    producer = Producer({"bootstrap.servers": address, "transactional.id": "chaos-ghosts", "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    for topic, partition in places:
        for n in range(GHOSTS):
            producer.produce(topic, None, f"{GHOST}-{n}".encode(), partition)
    producer.flush(30)
    if keep:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def _nothing_after(address: str, since: dict[Place, int]) -> bool:
    """Whether nothing can be read from `since` on."""
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
        consumer.assign([TopicPartition(*place, offset) for place, offset in since.items()])
        ended = 0
        while ended < len(since):
            for message in consumer.consume(500, 5.0):
                if message.error() is None:
                    return False
                ended += 1
        return True
    finally:
        consumer.close()
