"""Who a cluster is, and its topics: a topic that was deleted and made again has the same name, but not the same id.

aiokafka asks for metadata in a version that knows no ids; here is the first that does (Kafka 2.8).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from stream.kafka.clients import KafkaConfig, admin


@dataclass(frozen=True, slots=True)
class Identity:
    """The cluster's id, and of each topic that exists its id and how many partitions it has.

    Ids are empty where the brokers are too old to tell.
    """

    cluster: str
    topics: dict[str, tuple[str, int]]


async def identity(kafka: KafkaConfig, topics: Iterable[str]) -> Identity:
    """Ask the cluster. Raises BrokerUnavailable where nothing answers."""
    wanted = list(topics)
    async with admin(kafka) as client:
        try:
            answer: Any = await client._send_request(_MetadataRequest(wanted))
        except (IncompatibleBrokerVersion, NotImplementedError):
            described = await client.describe_topics(wanted)
            counts = {t["topic"]: ("", len(t["partitions"])) for t in described if not t["error_code"]}
            return Identity("", counts)
    found = {name: (str(known), len(parts)) for error, name, known, _, parts, *_ in answer.topics if not error}
    return Identity(answer.cluster_id or "", found)


class _Uuid(AbstractType[uuid.UUID]):
    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


_TEXT = CompactString("utf-8")


class _MetadataResponse(Response):
    API_KEY = 3  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    API_VERSION = 10  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        asked = [(uuid.UUID(int=0), name, {}) for name in self._topics]
        return request_struct_class(asked, False, False, False, {})
