"""What of Faust's defaults is not taken; no broker is needed to know."""

from __future__ import annotations

from typing import Any, cast

import pytest

from stream.app import faust_app
from stream.kafka.assignment import Together
from stream.kafka.topics import TopicsConfig, _new_topic, specs
from stream.kafka.transport import BatchApp, BatchTransport
from stream.settings import Settings


@pytest.fixture
def app() -> BatchApp:
    async def agent(stream: Any) -> None: ...

    return faust_app(Settings(), ["view", "click"], 6, cast(Any, None), agent)


def test_faust_is_told_what_its_defaults_get_wrong(app: BatchApp) -> None:
    c = app.conf
    assert c.consumer_auto_offset_reset == "earliest"
    assert str(c.processing_guarantee.value) == "at_least_once"
    assert c.topic_partitions == 6 and c.topic_disable_leader and not c.topic_allow_declare
    assert not c.web_enabled and not c.stream_wait_empty and c.table_standby_replicas == 0
    assert c.stream_buffer_maxsize > 1
    assert isinstance(app.transport, BatchTransport) and c.PartitionAssignor is Together


def test_tables_restore_batches_and_neither_serve_nor_unpickle(app: BatchApp) -> None:
    app.restore("windows", "windows-changelog", lambda partition, records: None)
    table: Any = app.tables["windows"]
    assert table.recovery_buffer_size > 1
    assert (table.changelog_topic.key_serializer, table.changelog_topic.value_serializer) == ("raw", "raw")
    assert table.changelog_topic.get_topic_name() == "windows-changelog"


def test_every_client_reads_committed_records_from_explicit_offsets_and_writes_to_all_replicas() -> None:
    kafka = Settings().kafka
    assert kafka.consumer()["isolation_level"] == kafka.member()["isolation_level"] == "read_committed"
    assert kafka.consumer()["auto_offset_reset"] == kafka.member()["auto_offset_reset"] == "earliest"
    assert not kafka.member()["enable_auto_commit"]
    assert kafka.producer()["acks"] == "all" and kafka.producer()["enable_idempotence"]
    assert kafka.producer()["max_request_size"] > 1024 * 1024


def test_topics_that_belong_together_have_equal_partitions_and_the_brokers_replication() -> None:
    config = TopicsConfig(partitions=6)
    made = {spec.name: spec for spec in specs(config, ["view", "click"], "v1")}
    alike = ["view", "click", config.windows("v1"), config.trends("v1"), config.recommendations, config.dead_letters]
    assert {made[name].partitions for name in alike} == {6}
    assert {_new_topic(spec, config.replication).replication_factor for spec in made.values()} == {-1}
    assert all(int(made[name].config["max.message.bytes"]) > 1024 * 1024 for name in alike)
