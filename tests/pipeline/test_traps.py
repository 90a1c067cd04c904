"""Traps of Kafka and Faust that only a real broker shows: markers, aborted records, empty tails, open ports."""

from __future__ import annotations

import json
from collections.abc import Iterable

import psutil
from aiokafka import TopicPartition
from confluent_kafka import Producer

from stream.errors import StateError
from stream.kafka.placing import partition_of
from tests.chaos.compaction import to_an_empty_tail
from tests.pipeline.harness import PARTITIONS, Deployment, Sent, check_state, check_windows, some_events, until


def send_in_a_transaction(deployment: Deployment, events: Iterable[Sent], commit: bool) -> None:
    """As a transactional producer does, which is not ours; ends in a marker on every partition either way."""
    s = deployment.settings
    producer = Producer({"bootstrap.servers": s.kafka.bootstrap_servers, "transactional.id": f"{s.state.name}-shop"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for e in events:
        value = json.dumps({"user": e.user, "item": e.item, "ts": e.ts})
        producer.produce(s.input.topics[e.action], value, e.user, partition_of(e.user, PARTITIONS), timestamp=e.ts)
    producer.flush(30)
    if commit:
        producer.commit_transaction(30)
    else:
        producer.abort_transaction(30)


def all_read(deployment: Deployment, events: Iterable[Sent]) -> None:
    """Wait until the last of these events is committed; behind it are markers, which never are."""
    wanted: dict[TopicPartition, int] = {}
    users = {e.user.encode() for e in events}
    for topic in deployment.settings.input.names:
        for record in deployment.records(topic):
            if record.key in users:
                wanted[TopicPartition(topic, record.partition)] = record.offset + 1

    def committed() -> bool:
        found = deployment.committed()
        return all((found.get(tp) or 0) >= offset for tp, offset in wanted.items())

    until(committed, 60, "the last event is committed")


def test_records_of_an_aborted_transaction_are_not_counted_and_its_markers_hold_nothing_up(
    deployment: Deployment,
) -> None:
    worker = deployment.worker().ready()
    aborted = [Sent(f"ghost-{n}", "i1", "click", 1_700_000_000_000 + n) for n in range(40)]
    events = some_events(600, users=30)
    send_in_a_transaction(deployment, aborted, commit=False)
    send_in_a_transaction(deployment, events[:300], commit=True)
    all_read(deployment, events[:300])
    assert worker.stop() == 0
    send_in_a_transaction(deployment, aborted, commit=False)
    deployment.worker().ready()
    send_in_a_transaction(deployment, events[300:], commit=True)
    all_read(deployment, events)
    check_state(deployment, events)


def test_a_restore_ends_where_a_changelog_was_compacted_to_an_empty_tail(deployment: Deployment) -> None:
    events = some_events(2000, users=50)
    worker = deployment.worker().ready()
    deployment.send(events[:1000])
    deployment.settled()
    assert worker.stop() == 0
    assert to_an_empty_tail(deployment.settings), "the log cleaner left something at the end"
    deployment.worker().ready()
    deployment.send(events[1000:])
    deployment.settled()
    check_windows(deployment, events)


def test_a_restore_of_changelogs_that_were_never_written_ends(deployment: Deployment) -> None:
    first = deployment.worker().ready()
    assert first.stop() == 0
    second = deployment.worker().ready()
    assert second.status()["partitions"] == list(range(PARTITIONS))


KNOWS_LATE = """
from aiokafka.cluster import ClusterMetadata
looks, update, partitions = [], ClusterMetadata.update_metadata, ClusterMetadata.partitions_for_topic
def updated(self, metadata):
    if any('changelog' in topic for _, topic, *_ in metadata.topics):
        looks.append(1)
    update(self, metadata)
def known(self, topic):
    return None if 'changelog' in topic and len(looks) < 3 else partitions(self, topic)
ClusterMetadata.update_metadata, ClusterMetadata.partitions_for_topic = updated, known
"""
"""In a worker: the cluster does not know of changelogs before it has been asked a third time, as after its start."""


def test_a_cluster_that_does_not_know_every_topic_yet_is_asked_until_it_does(deployment: Deployment) -> None:
    """aiokafka would look again in ten minutes, and nothing would be assigned until then."""
    worker = deployment.worker(KNOWS_LATE, EDDYLINE_KAFKA__METADATA_MAX_AGE_MS="600000")
    until(lambda: worker.status().get("partitions") == list(range(PARTITIONS)), 60, "all partitions are assigned")
    assert "nothing is assigned until the cluster knows of" in worker.log.read_text()


def test_a_worker_listens_nowhere_but_at_its_status_port_on_this_machine(deployment: Deployment) -> None:
    worker = deployment.worker().ready()
    listening = [
        connection.laddr
        for connection in psutil.Process(worker.process.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [(at.ip, at.port) for at in listening] == [("127.0.0.1", worker.port)]


def test_a_worker_tells_what_it_has_open(deployment: Deployment) -> None:
    status = deployment.worker().ready().status()
    assert status["threads"] > 1 and status["tasks"] > 10 and status["fds"] > 10


def test_a_changelog_row_that_cannot_be_read_stops_the_worker(deployment: Deployment) -> None:
    """Faust would tell of it in the log, and go on without the row."""
    s = deployment.settings
    deployment.send(some_events(50, users=5))
    deployment.send_raw_to(s.topics.windows(s.state.name), 0, [(b"u1", b"no row")])
    worker = deployment.worker()
    assert worker.process.wait(60) == StateError.exit_code
    told = worker.log.read_text()
    assert "the changelog of windows cannot be restored" in told and "eddyline backfill --as NAME" in told
    assert not any(deployment.committed().values())
