"""The topics eddyline reads and writes: names, partitions, retention; created or checked.

Every topic is created here beforehand, at the broker's own replication, never by a client that
happens to need it: Faust's assignor is uneven where co-partitioned topics differ in partitions.
This module knows nothing of what the messages mean (`stream.events`, `stream.messages`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code
from pydantic import BaseModel, ConfigDict, Field

from stream.errors import TopicError
from stream.kafka.clients import MAX_MESSAGE_BYTES, KafkaConfig, admin

HOURS = 3_600_000
DAYS = 24 * HOURS


class TopicsConfig(BaseModel):
    """Names and sizes of topics. Input topics belong to their owner; the prefix is for our own."""

    model_config = ConfigDict(extra="forbid")

    prefix: str = "eddyline."
    partitions: int = Field(default=4, ge=1, description="used only where a topic is created")
    replication: int = Field(default=-1, description="-1 is the broker's default")

    def named(self, name: str) -> str:
        return f"{self.prefix}{name}"

    @property
    def recommendations(self) -> str:
        return self.named("recommendations")

    @property
    def shadow(self) -> str:
        return self.named("shadow")

    @property
    def feedback(self) -> str:
        """What came of lists, as whoever shows them says."""
        return self.named("feedback")

    @property
    def catalog(self) -> str:
        return self.named("catalog")

    @property
    def users(self) -> str:
        """What is known of users beside what they did."""
        return self.named("users")

    @property
    def requests(self) -> str:
        """Who asks for a list now; keyed by user, with the partitions of the input topics."""
        return self.named("request")

    @property
    def events(self) -> str:
        """Events of all input topics, by user, where these are re-keyed."""
        return self.named("events")

    @property
    def release(self) -> str:
        return self.named("release")

    @property
    def control(self) -> str:
        return self.named("control")

    @property
    def replays(self) -> str:
        """How far each replay has come; written with what it counts."""
        return self.named("replay")

    @property
    def dead_letters(self) -> str:
        return self.named("dlt")

    def windows(self, state: str) -> str:
        """The changelog of the window table of one state version."""
        return self.named(f"{state}-windows-changelog")

    def trends(self, state: str) -> str:
        """The changelog of the trends of one state version; every worker reads all of it."""
        return self.named(f"{state}-trends-changelog")

    def interests(self, state: str) -> str:
        """Users handed over from ingest to recommend workers, where these run apart."""
        return self.named(f"{state}-interests")

    def origin(self, state: str) -> str:
        """Where one state version came from: a record, written when it begins."""
        return self.named(f"{state}-origin")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it is to be created."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)


def specs(config: TopicsConfig, inputs: Iterable[str], state: str) -> list[TopicSpec]:
    """All topics of one deployment: inputs, outputs, compacted ones, and the changelogs of `state`."""
    n = config.partitions
    large = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compacted = {"cleanup.policy": "compact", **large}
    return [
        *(TopicSpec(name, n, {"retention.ms": "-1", **large}) for name in inputs),
        TopicSpec(
            config.recommendations,
            n,
            {"cleanup.policy": "compact,delete", "retention.ms": str(7 * DAYS), **large},
        ),
        TopicSpec(config.requests, n, {"retention.ms": str(6 * HOURS), **large}),
        TopicSpec(config.shadow, n, {"retention.ms": str(1 * DAYS), **large}),
        TopicSpec(config.feedback, n, {"retention.ms": str(28 * DAYS), **large}),
        TopicSpec(config.catalog, 1, compacted),
        TopicSpec(config.users, n, compacted),
        TopicSpec(config.release, 1, compacted),
        TopicSpec(config.control, 1, compacted),
        replay_spec(config),
        TopicSpec(config.dead_letters, n, {"retention.ms": str(28 * DAYS), **large}),
        *state_specs(config, state),
    ]


def events_spec(config: TopicsConfig) -> TopicSpec:
    """The topic into which events are re-keyed, where they are; kept for ever, like those that we create for input."""
    return TopicSpec(
        config.events, config.partitions, {"retention.ms": "-1", "max.message.bytes": str(MAX_MESSAGE_BYTES)}
    )


def replay_spec(config: TopicsConfig) -> TopicSpec:
    """The topic of replays; small segments, as it has a record for each transaction of theirs."""
    return TopicSpec(config.replays, 1, {"cleanup.policy": "compact", "segment.bytes": str(16 * 1024 * 1024)})


def state_specs(config: TopicsConfig, state: str) -> list[TopicSpec]:
    """The topics of one state version: its changelogs, its origin, and what its workers hand over."""
    large = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    compacted = {"cleanup.policy": "compact", **large}
    return [
        TopicSpec(config.interests(state), config.partitions, {"retention.ms": str(6 * HOURS), **large}),
        TopicSpec(config.windows(state), config.partitions, compacted),
        TopicSpec(config.trends(state), config.partitions, compacted),
        TopicSpec(config.origin(state), 1, compacted),
    ]


async def create(kafka: KafkaConfig, topics: Iterable[TopicSpec], replication: int = -1) -> list[str]:
    """Create the topics that are missing and wait until the cluster knows them; returns their names."""
    wanted = list(topics)
    async with admin(kafka) as client:
        have = set(await client.list_topics())
        missing = [spec for spec in wanted if spec.name not in have]
        if missing:
            response: Any = await client.create_topics([_new_topic(spec, replication) for spec in missing])
            for name, code, *rest in response.topic_errors:
                if code and for_code(code) is not TopicAlreadyExistsError:
                    raise TopicError(
                        f"topic {name} could not be created: {for_code(code).__name__} {rest[0] if rest else ''}",
                        "create it by hand (`eddyline topics` prints names, partitions and settings)",
                    )
            await _known(client, [spec.name for spec in missing])
    return [spec.name for spec in missing]


def _new_topic(spec: TopicSpec, replication: int) -> NewTopic:
    topic = NewTopic(spec.name, spec.partitions, 1, topic_configs=dict(spec.config))
    # The constructor refuses -1, by which the protocol means the broker's default.
    topic.replication_factor = replication
    return topic


async def partitions(kafka: KafkaConfig, names: Iterable[str]) -> dict[str, int]:
    """Partition counts of the topics that exist."""
    async with admin(kafka) as client:
        return await _partitions(client, names)


async def topic_partitions(kafka: KafkaConfig, names: Iterable[str]) -> list[TopicPartition]:
    """Every partition of these topics.

    Raises:
        TopicError: one of them is missing.
    """
    names = list(names)
    counts = await partitions(kafka, names)
    if missing := [name for name in names if name not in counts]:
        raise missing_topics(missing)
    return [TopicPartition(name, p) for name in names for p in range(counts[name])]


def missing_topics(names: Iterable[str]) -> TopicError:
    """The one error for topics that are not there."""
    return TopicError(f"topics are missing: {', '.join(names)}", "create them: eddyline topics create --execute")


async def check_inputs(kafka: KafkaConfig, inputs: Iterable[str], alike: Iterable[str], others: Iterable[str]) -> int:
    """The partition count that inputs, changelogs and outputs (`alike`) share; `others` need only be there.

    Raises:
        TopicError: a topic is missing, or counts differ: a user's clicks and views would then be
            on different workers, and no worker would have the whole window.
    """
    alike = [*inputs, *alike]
    counts = await partitions(kafka, [*alike, *others])
    if missing := [name for name in [*alike, *others] if name not in counts]:
        raise missing_topics(missing)
    together = {name: counts[name] for name in alike}
    if len(set(together.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in together.items())
        raise TopicError(
            f"topics that belong together differ in partitions: {told}",
            "give the input topics equal partition counts (kafka-topics --alter), and start a new state version "
            "whose changelogs are created to match: eddyline backfill --as NAME",
        )
    return next(iter(together.values()))


async def _partitions(client: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, int]:
    have = set(await client.list_topics())
    wanted = [name for name in names if name in have]
    if not wanted:
        return {}
    described = await client.describe_topics(wanted)
    return {topic["topic"]: len(topic["partitions"]) for topic in described if not topic["error_code"]}


async def _known(client: AIOKafkaAdminClient, names: list[str], timeout: float = 15.0) -> None:
    """Creation is asynchronous in Kafka: wait until every partition has a leader."""
    deadline = asyncio.get_running_loop().time() + timeout
    while asyncio.get_running_loop().time() < deadline:
        described = await client.describe_topics(names)
        if all(
            not t["error_code"] and t["partitions"] and all(p["leader"] >= 0 for p in t["partitions"])
            for t in described
        ):
            return
        await asyncio.sleep(0.1)
    raise TopicError(
        f"the cluster did not settle on the new topics {', '.join(names)} within {timeout:.0f} s",
        "look at the broker's log (`eddyline broker logs`), and run the command again",
    )
