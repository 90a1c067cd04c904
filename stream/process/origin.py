"""Where a state came from: its cluster, the ids of its input topics, how many partitions they have.

Offsets mean something in one topic of one cluster only. A topic that was deleted and made again counts from 0
anew: rows that remember offsets of the old one would take its events for seen. So a state version's origin is
written down when it begins, and a worker that finds another one does not start. Pure comparison; who asks the
cluster is `stream.kafka.identity`, when it is asked is `stream.process.preflight`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import msgpack

from stream.errors import StateError
from stream.kafka.identity import Identity

VERSION = 1
KEY = b"origin"
"""Under which it is kept, in the topic of the state version's origin."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Cluster id, input topic -> topic id, and their partition count; an empty id is one that is not known."""

    cluster: str
    topics: dict[str, str]
    partitions: int

    @classmethod
    def of(cls, found: Identity, partitions: int) -> Origin:
        return cls(found.cluster, {name: known for name, (known, _) in found.topics.items()}, partitions)

    def pack(self) -> bytes:
        return cast(bytes, msgpack.packb((VERSION, self.cluster, self.topics, self.partitions)))

    @classmethod
    def unpack(cls, packed: bytes) -> Origin:
        """Raises ValueError for an origin that this version cannot read."""
        version, *fields = msgpack.unpackb(packed)
        if version != VERSION:
            raise ValueError(f"an origin of version {version}; this eddyline reads {VERSION}")
        return cls(*fields)

    def after(self, stored: Origin, state: str) -> Origin:
        """This origin, for a state that was kept under `stored`: topics that are no longer read stay in it.

        Raises:
            StateError: the state is of another cluster, of topics that were made anew, or of other partitions.
        """
        remedy = rebuild(state)
        if self.cluster and stored.cluster and self.cluster != stored.cluster:
            raise StateError(
                f"state {state} was kept beside cluster {stored.cluster}, and this is cluster {self.cluster}", remedy
            )
        if self.partitions != stored.partitions:
            raise StateError(
                f"state {state} was kept over {stored.partitions} partitions, and the input topics have "
                f"{self.partitions}: users may have moved",
                remedy,
            )
        for topic, known in self.topics.items():
            before = stored.topics.get(topic, "")
            if known and before and known != before:
                raise StateError(
                    f"topic {topic} was deleted and made again since state {state} read it (its id was {before} and is "
                    f"{known}): its new events would be taken for seen ones",
                    remedy,
                )
        kept = {topic: before for topic, before in stored.topics.items() if not self.topics.get(topic)}
        return Origin(self.cluster or stored.cluster, self.topics | kept, self.partitions)


def rebuild(state: str) -> str:
    """What to do where a state is not of the topics that are there."""
    return f"build a new state from these topics: eddyline backfill --as NAME (state {state} stays as it is)"
