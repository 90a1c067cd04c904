"""Asking and telling a broker, with a client that is not ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, OffsetSpec, ResourceType

Place = tuple[str, int]
"""A topic and the number of one of its partitions."""
REQUEST_S = 5.0


def client(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address, "log_level": 0, "reconnect.backoff.max.ms": 500})


def results(futures: Iterable[Any]) -> list[Any]:
    """Raises KafkaException."""
    return [future.result() for future in futures]


def ends(admin: AdminClient, places: Iterable[Place], committed: bool = False) -> dict[Place, int]:
    """Where logs end; `committed`: for readers of committed records. Raises KafkaException."""
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
    answers = admin.list_offsets(asked, isolation_level=level, request_timeout=REQUEST_S)
    return {
        (tp.topic, tp.partition): found.offset for tp, found in zip(answers, results(answers.values()), strict=True)
    }


def configure(admin: AdminClient, kind: ResourceType, name: str, **settings: str | None) -> None:
    """Set (or with None unset) settings of a topic or of the broker. Raises KafkaException."""
    resource = ConfigResource(kind, name)
    for key, value in settings.items():
        operation = AlterConfigOpType.SET if value is not None else AlterConfigOpType.DELETE
        entry = ConfigEntry(key.replace("_", "."), value, incremental_operation=operation)
        resource.add_incremental_config(entry)
    results(admin.incremental_alter_configs([resource], request_timeout=REQUEST_S).values())
