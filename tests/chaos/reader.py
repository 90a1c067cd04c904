"""Topics read as they grow, by a client that is not ours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from tests.chaos.admin import Place


class Away(Exception):
    """The broker did not answer: nothing was found out."""


class Reader:
    """A consumer of whole topics that knows how far it has read."""

    def __init__(self, address: str, places: Iterable[Place]) -> None:
        self.places = list(places)
        self._at = dict.fromkeys(self.places, 0)
        self._address = address
        self._consumer = self._opened()

    def _opened(self) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": self._address,
                "group.id": "chaos-observer",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "reconnect.backoff.max.ms": 500,
                "fetch.wait.max.ms": 50,
                "log_level": 0,
            }
        )
        consumer.assign([TopicPartition(*place, at) for place, at in self._at.items()])
        return consumer

    def again(self) -> None:
        """A new client, which goes on where this one was: one that lost its broker may not find back."""
        self._consumer.close()
        self._consumer = self._opened()

    def read(self, ends: dict[Place, int], timeout: float) -> Iterator[Message]:
        """What is new up to `ends`. Raises `Away` where that takes too long."""
        deadline = time.monotonic() + timeout
        while any(self._at[place] < ends[place] for place in self.places):
            if time.monotonic() > deadline:
                behind = {place: (at, ends[place]) for place, at in self._at.items() if at < ends[place]}
                raise Away(f"read only to {behind}")
            for message in self._consumer.consume(2000, 0.1):
                error, place = message.error(), (message.topic() or "", message.partition() or 0)
                offset = message.offset() or 0
                if error is None:
                    self._at[place] = offset + 1
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._at[place] = max(offset, self._at[place])

    def close(self) -> None:
        self._consumer.close()
