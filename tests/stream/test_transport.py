"""What of Faust's defaults is not taken, and which assignments are refused; no broker is needed to know."""

from __future__ import annotations

from typing import Any, cast

import pytest
from faust.types import TP

from stream.app import faust_app
from stream.errors import StateError
from stream.kafka.topics import TopicsConfig, _new_topic, specs
from stream.kafka.transport import BatchApp, BatchTransport, Together, check_together
from stream.settings import Settings

CHANGELOGS = {"windows", "trends"}
TOPICS = {"view", "click"} | CHANGELOGS


def all_of(*partitions: int) -> set[TP]:
    return {TP(topic, p) for topic in TOPICS for p in partitions}


class Cluster:
    """What a cluster's metadata says of topics."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = partitions

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions[topic])) if topic in self._partitions else None


class Backwards(dict[str, list[str]]):
    """Members in the other order every time that one asks."""

    turn = 1

    def items(self) -> Any:
        self.turn = -self.turn
        return list(super().items())[:: self.turn]


def grouped(topics: set[str], cluster: Cluster, subscriptions: dict[str, list[str]]) -> list[set[str]]:
    groups = Together._get_copartitioned_groups(topics, cluster, subscriptions)
    return [group for of_a_count in groups.values() for group in of_a_count]


@pytest.fixture
def app() -> BatchApp:
    async def agent(stream: Any) -> None: ...

    return faust_app(Settings(), ["view", "click"], 6, cast(Any, None), agent)


# Assignments


def test_whole_partitions_of_every_topic_are_taken() -> None:
    check_together(all_of(0, 2), CHANGELOGS)
    check_together(set(), CHANGELOGS)


@pytest.mark.parametrize("missing", [TP("click", 2), TP("windows", 0)])
def test_partitions_of_a_topic_that_differ_from_another_s_are_refused(missing: TP) -> None:
    with pytest.raises(StateError, match=missing.topic):
        check_together(all_of(0, 2) - {missing}, CHANGELOGS)


def test_input_without_its_changelog_is_refused() -> None:
    with pytest.raises(StateError, match="windows"):
        check_together({tp for tp in all_of(0, 1) if tp.topic != "windows"}, CHANGELOGS)


def test_nothing_is_assigned_while_the_cluster_does_not_know_every_topic() -> None:
    members = {"a": sorted(TOPICS), "b": sorted(TOPICS)}
    assert grouped(TOPICS, Cluster(view=4, click=4, trends=4), members) == []
    assert grouped(TOPICS, Cluster(view=4, click=4, trends=4, windows=4), members) == [TOPICS]


def test_topics_of_the_same_members_are_one_group_in_whatever_order_members_are_walked() -> None:
    members = Backwards(a=["view", "windows"], b=["view", "windows"])
    assert list(Together._group_co_subscribed({"view", "windows"}, members)) == [{"view", "windows"}]


# Settings


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
