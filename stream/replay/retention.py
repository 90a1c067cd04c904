"""Whether topics keep what is published to them: brokers delete by the records' own times, and history is old.

Only told, never refused: an owner may want no more of it than the last days.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from stream.kafka.clients import KafkaConfig, admin


async def retention_ms(kafka: KafkaConfig, topics: Iterable[str]) -> dict[str, int]:
    """For how long topics keep records, where that has an end; without those whose settings may not be read."""
    wanted = [
        ConfigResource(ConfigResourceType.TOPIC, topic, {"cleanup.policy": "", "retention.ms": ""}) for topic in topics
    ]
    try:
        async with admin(kafka) as client:
            answers: Any = await client.describe_configs(wanted)
    except KafkaError:
        return {}
    kept: dict[str, int] = {}
    for error, _, _, topic, entries in (resource for answer in answers for resource in answer.resources):
        values = {name: value for name, value, *_ in entries}
        if not error and "delete" in values.get("cleanup.policy", "") and int(values.get("retention.ms", -1)) >= 0:
            kept[topic] = int(values["retention.ms"])
    return kept


def too_short(kept: dict[str, int], first: int, now: int) -> str:
    """What is to be told of topics that will not keep records from `first` on (times in ms); empty where all do."""
    short = {topic: ms for topic, ms in kept.items() if first < now - ms}
    if not short:
        return ""
    told = ", ".join(f"{topic} (retention.ms={ms})" for topic, ms in short.items())
    return (
        f"older than what these topics keep, and so deleted before long: {told}; raise retention.ms to keep all of it"
    )
