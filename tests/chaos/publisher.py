"""Publishes a stream all the time, on a thread of its own, with a client that is not ours."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from confluent_kafka import KafkaError, Message, Producer

from stream.kafka.placing import partition_of
from tests.chaos.events import Record, Source

CHUNK = 20
MOST_WAITING = 20_000
"""Records not yet acknowledged, beyond which no more are made: the broker is away."""


class Publisher:
    """Publishes what the source makes, and what is asked for beside it; what was not acknowledged is published again.

    Args:
        rate: records a second.
    """

    def __init__(self, address: str, topics: Mapping[str, str], partitions: int, source: Source, rate: float) -> None:
        self._address, self._topics, self._partitions = address, topics, partitions
        self._source, self._rate = source, rate
        self._asked: deque[Callable[[int], list[Record]]] = deque()
        self._unacknowledged: dict[int, Record] = {}
        self._number = 0
        self._going = threading.Event()
        self._idle = threading.Event()
        self._ended = threading.Event()
        self._fatal = False
        self.error: BaseException | None = None
        self.acknowledged = 0
        self.replaced = 0
        """How often our producer had to be replaced: the broker no longer knew it."""
        self._producer = self._new_producer()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def begin(self, number: int) -> None:
        """Publish a round's stream from now on."""
        self._source.begin(number)
        self._idle.clear()
        self._going.set()

    def flood(self, n: int) -> None:
        """Publish n events of few users as fast as they are taken, beside the others."""
        self._asked.append(lambda now: self._source.flood(n, now))

    def ahead(self, n: int) -> None:
        """Publish n records of a clock that is wrong."""
        self._asked.append(lambda now: self._source.ahead(n, now))

    def quiet(self, timeout: float) -> bool:
        """Publish no more; whether all was acknowledged in time."""
        self._going.clear()
        return self._idle.wait(timeout) and self.error is None

    def close(self) -> None:
        self._ended.set()
        self._going.set()
        self._thread.join(10.0)

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                if not self._going.is_set() and not self._asked and self._settled():
                    self._idle.set()
                    self._going.wait()
                    continue
                self._turn()
        except BaseException as error:
            self.error = error
            self._idle.set()

    def _turn(self) -> None:
        now = int(time.time() * 1000)
        if self._asked:
            self._publish(self._asked.popleft()(now))
        elif self._going.is_set() and len(self._unacknowledged) < MOST_WAITING:
            self._publish(self._source.usual(CHUNK, now))
        deadline = now / 1000 + CHUNK / self._rate
        while (left := deadline - time.time()) > 0:
            self._producer.poll(left)
        if self._fatal:
            self._replace()

    def _settled(self) -> bool:
        return not self._unacknowledged

    def _publish(self, records: list[Record]) -> None:
        for record in records:
            self._number += 1
            self._unacknowledged[self._number] = record
            self._produce(self._number, record)

    def _produce(self, number: int, record: Record) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                self.acknowledged += 1
                self._unacknowledged.pop(number, None)
            else:
                self._fatal = True

        while True:
            try:
                self._producer.produce(
                    self._topics[record.action],
                    record.value,
                    record.user.encode(),
                    partition_of(record.user, self._partitions),
                    on_delivery=delivered,
                    timestamp=record.stamp,
                )
                return
            except BufferError:
                self._producer.poll(0.1)

    def _replace(self) -> None:
        """A new producer, and again what is not known to have arrived: in order, so it costs exact repeats at most."""
        self._producer.purge()
        self._producer.poll(0)
        self.replaced += 1
        self._producer, self._fatal = self._new_producer(), False
        for number, record in list(self._unacknowledged.items()):
            self._produce(number, record)

    def _new_producer(self) -> Producer:
        return Producer(
            {
                "bootstrap.servers": self._address,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 0,
                "queue.buffering.max.messages": 200_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
