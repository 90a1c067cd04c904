"""Who gets which partitions: topics that belong together are assigned together, or an assignment is refused.

What is done when partitions come and go is `stream.kafka.transport`'s.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

from aiokafka.client import AIOKafkaClient
from faust.assignor.partition_assignor import PartitionAssignor
from faust.types import TP

from stream.errors import StateError
from stream.kafka.tables import SERVICES

ASK_EVERY_S = 0.5


class Together(PartitionAssignor):
    """Faust's assignor, grouping topics by their subscribers in a stable order, and only once it knows them all.

    Faust groups by `tuple(set)`: two equal sets may be walked in different orders, and then topics that
    belong together are assigned apart. And it assigns what the cluster knows of: a broker that has just come
    up may not know of every topic yet, and a worker would take in events without the windows that they belong to.
    Then nothing is assigned, and `on_unknown` is told of the topics: to see to it that more is known soon. The group
    is asked again when it is.
    """

    on_unknown: Callable[[set[str]], None] | None = None

    def assign(self, cluster: Any, member_metadata: Any) -> Any:
        topics = {topic for member in member_metadata.values() for topic in member.subscription}
        if self.on_unknown is not None and unknown(topics, cluster):
            self.on_unknown(topics)
        return super().assign(cluster, member_metadata)

    @classmethod
    def _get_copartitioned_groups(
        cls, topics: set[str], cluster: Any, subscriptions: MutableMapping[str, list[str]]
    ) -> MutableMapping[int, Iterable[set[str]]]:
        if missing := unknown(topics, cluster):
            SERVICES.warning("nothing is assigned until the cluster knows of %s", ", ".join(missing))
            return {}
        return super()._get_copartitioned_groups(topics, cluster, subscriptions)

    @classmethod
    def _group_co_subscribed(cls, topics: set[str], subscriptions: Mapping[str, Sequence[str]]) -> Iterable[set[str]]:
        groups: MutableMapping[tuple[str, ...], set[str]] = defaultdict(set)
        for topic in topics:
            groups[tuple(sorted(c for c, subscribed in subscriptions.items() if topic in subscribed))].add(topic)
        return groups.values()


def unknown(topics: Iterable[str], cluster: Any) -> list[str]:
    """Those of which the cluster does not say any partitions."""
    return sorted(topic for topic in topics if not cluster.partitions_for_topic(topic))


async def learn(client: AIOKafkaClient, topics: Iterable[str]) -> None:
    """Ask what the cluster knows until it knows of all these topics; aiokafka asks the group again when that changes.

    By itself it looks once in `metadata_max_age_ms`, and for so long nobody would be served.
    """
    while unknown(topics, client.cluster):
        await asyncio.sleep(ASK_EVERY_S)
        await client.force_metadata_update()


def check_together(assigned: set[TP], changelogs: set[str]) -> None:
    """Refuse an assignment in which a topic's partitions differ from another's, or a changelog is missing.

    Raises:
        StateError: a window would be updated here and restored elsewhere.
    """
    held: dict[str, set[int]] = defaultdict(set)
    for tp in assigned:
        held[tp.topic].add(tp.partition)
    if not held:
        return
    everything = set().union(*held.values())
    held.update({topic: set() for topic in changelogs - held.keys()})
    if apart := {topic: sorted(p) for topic, p in held.items() if p != everything}:
        raise StateError(
            f"this worker was assigned partitions {sorted(everything)}, but only some of them of {apart}; "
            f"changelogs are {sorted(changelogs)}",
            "give all input topics and changelogs equal partition counts, and run the same version and settings on "
            "all workers; then restart",
        )
