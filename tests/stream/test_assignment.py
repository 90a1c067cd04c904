"""Which assignments are made, and which are refused; no broker is needed to know."""

from __future__ import annotations

from typing import Any

import pytest
from faust.types import TP

from stream.errors import StateError
from stream.kafka.assignment import Together, check_together

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
