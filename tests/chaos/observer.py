"""Reads what is in the topics, as it grows, with a client that is not ours, and holds it against the known answer.

What is in the log of the input topics counts as published. Two questions are asked of the rest:

- `audit`, at any moment: is everything below the committed offsets durable, answered, or a dead letter?
- `verify`, when all is committed: is everything as it must be?

Both read on from where the last one stopped; rows that were verified are kept as hashes only.
"""

from __future__ import annotations

import struct
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

import msgpack
import msgspec
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, Message, TopicPartition

from model.history import item_hash
from stream import messages
from stream.settings import Settings
from stream.trends import Trends
from tests.chaos.admin import REQUEST_S, Place, client, ends, results
from tests.chaos.events import ITEMS
from tests.chaos.findings import Findings, Waits
from tests.chaos.reader import Away, Reader
from tests.chaos.reference import Reference

T = TypeVar("T")
GHOST = "ghost"
"""Users of whom only tombstones are written, to be compacted away."""


@dataclass(slots=True)
class _Read:
    """A record of an input topic that is not known to be taken care of yet."""

    offset: int
    user: str
    stamp: int
    good: bool


class Observer:
    """Holds the topics of one deployment against the known answer."""

    def __init__(self, settings: Settings, returning: set[str]) -> None:
        s = settings
        self._settings, self._returning = s, returning
        self._action = {topic: action for action, topic in s.input.topics.items()}
        self._inputs = [(topic, p) for topic in self._action for p in range(s.topics.partitions)]
        self._windows, self._trends = s.topics.windows(s.state.name), s.topics.trends(s.state.name)
        written = (self._windows, self._trends, s.topics.recommendations, s.topics.dead_letters)
        address = s.kafka.bootstrap_servers
        self._admin = client(self._settings.kafka.bootstrap_servers)
        self.away = ""
        self._in = Reader(address, self._inputs)
        self._out = Reader(address, [(topic, p) for topic in written for p in range(s.topics.partitions)])
        self._mixed = {item_hash(f"m{n}") for n in range(ITEMS)}
        self.reference = Reference()
        # What the outputs say
        self._rows: dict[str, bytes] = {}
        self._durable: dict[str, dict[str, int]] = {}
        self._verified: dict[str, bytes] = {}
        self._counts = Trends(s.trends)
        self._best: dict[str, dict[str, int]] = defaultdict(dict)
        self._names: dict[str, tuple] = {}
        self._names_before: dict[str, tuple] = {}
        self._letters: Counter[tuple[str, int, int]] = Counter()
        # What the inputs say
        self._open: dict[Place, deque[_Read]] = {place: deque() for place in self._inputs}
        self._bad: dict[tuple[str, int, int], bytes] = {}
        self._asking: dict[tuple[str, str], deque[tuple[int, int]]] = defaultdict(deque)
        self._committed: dict[Place, int] = {}
        self.in_log = 0
        self.letters = 0
        self.letters_repeated = 0
        self.lists = 0
        self.lists_repeated = 0
        self.waits = Waits()

    @property
    def users(self) -> int:
        """Whoever was verified."""
        return len(self._verified) + len(self.reference.rows)

    # Questions to the broker

    def committed(self) -> dict[Place, int]:
        """Next offsets that the group has committed; 0 where none was."""
        asked = ConsumerGroupTopicPartitions(self._settings.group)
        (found,) = results(self._admin.list_consumer_group_offsets([asked], request_timeout=REQUEST_S).values())
        offsets = {(tp.topic, tp.partition): max(tp.offset, 0) for tp in found.topic_partitions}
        return {place: offsets.get(place, 0) for place in self._inputs}

    def behind(self) -> dict[Place, tuple[int, int]]:
        """(committed, published) of the partitions where they differ. Raises `Away`."""
        committed, ended = self._guarded(self.committed), self._guarded(lambda: ends(self._admin, self._inputs))
        return {place: (committed[place], end) for place, end in ended.items() if committed[place] < end}

    # Reading on

    def _read(self, timeout: float) -> Findings:
        """Outputs first, so that all that they know of is among the inputs that are read after them."""
        found, lists = Findings(), list[tuple[messages.Recommendation, int]]()
        s = self._settings.topics
        for message in self._out.read(ends(self._admin, self._out.places, committed=True), timeout):
            topic = message.topic()
            if topic == self._windows:
                self._row(message, found)
            elif topic == self._trends:
                self._counts[message.partition() or 0].restore({message.key() or b"": message.value()})
            elif topic == s.recommendations:
                lists.append((messages.decode(message.value() or b""), message.timestamp()[1]))
            else:
                headers = dict(message.headers() or [])
                partition, offset = struct.unpack(
                    ">iq", headers["kafka_dlt-original-partition"] + headers["kafka_dlt-original-offset"]
                )
                self._letter((headers["kafka_dlt-original-topic"].decode(), partition, offset), message)
        for message in self._in.read(ends(self._admin, self._inputs), timeout):
            self._input(message)
        for event, stamp in lists:
            self._list(event, stamp, found)
        return found

    def _row(self, message: Message, found: Findings) -> None:
        user, value = (message.key() or b"").decode(), message.value()
        if user.startswith(GHOST):
            return
        if value is None:
            found.add("rows_different", f"the row of {user} was deleted")
        elif user in self._verified:
            if self._verified[user] != _digest(value):
                found.add("rows_different", f"the row of {user}, who does nothing any more, was written anew")
        else:
            self._rows[user] = value
            self._durable[user] = msgpack.unpackb(value)[1]

    def _letter(self, place: tuple[str, int, int], message: Message) -> None:
        self._letters[place] += 1
        self.letters_repeated += self._letters[place] > 1
        self.letters += self._letters[place] == 1

    def _input(self, message: Message) -> None:
        topic, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        user, stamp = (message.key() or b"").decode(), message.timestamp()[1]
        self.in_log += 1
        try:
            event = msgspec.json.decode(message.value() or b"")
            good = event["ts"] <= stamp + self._settings.input.max_skew_ms
        except msgspec.DecodeError:
            event, good = {}, False
        self._open[topic, partition].append(_Read(offset, user, stamp, good))
        if good:
            self.reference.add(topic, self._action[topic], offset, user, event["item"], event["ts"])
            self._asking[user, topic].append((offset, stamp))
        else:
            self._bad[topic, partition, offset] = message.value() or b""

    def _list(self, event: messages.Recommendation, stamp: int, found: Findings) -> None:
        source = event.source
        said = (event.user, tuple(sorted(source.applied.items())), source.topic, source.partition, source.offset)
        if event.id in self._names or event.id in self._names_before:
            self.lists_repeated += 1
        else:
            self.lists += 1
        known = self._names.get(event.id) or self._names_before.get(event.id) or said
        self._names[event.id] = said
        if known != said:
            found.add("ids_wrong", f"{event.id} names {known} and {said}")
        if event.id != _name(event.user, source.applied, (source.topic, source.partition, source.offset)):
            found.add("ids_wrong", f"{event.id} is not the name of {said}")
        if source.applied.get(source.topic, -1) < source.offset:
            found.add("ids_wrong", f"{event.id} does not know of its trigger: {said}")
        for topic, offset in source.applied.items():
            self._best[event.user][topic] = max(offset, self._best[event.user].get(topic, -1))
            asking = self._asking.get((event.user, topic), ())
            while asking and asking[0][0] <= offset:
                self.waits.add((stamp - asking.popleft()[1]) / 1000)

    # Answers

    def audit(self, timeout: float = 20.0) -> Findings:
        """Whether everything below the committed offsets, as of now, is durable and answered."""
        deadline = time.monotonic() + timeout
        committed = self._guarded(self.committed)
        found = Findings()
        for place, offset in committed.items():
            if offset < self._committed.get(place, 0):
                found.add("offsets_wrong", f"{place}: committed went back from {self._committed[place]} to {offset}")
        self._committed = committed
        while True:
            read = self._guarded(lambda: self._read(timeout))
            left = self._undone(committed)
            # A transaction that its producer has seen committed is readable only when its markers are.
            if read or found or not left or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        found.take(read)
        for read_, place, what in left:
            words = f"{place} offset {read_.offset} of {read_.user} is committed to {committed[place]}, but not {what}"
            found.add("offsets_wrong" if what == "durable" else "users_unanswered", words)
        return found

    def _undone(self, committed: dict[Place, int]) -> list[tuple[_Read, Place, str]]:
        """Records below the committed offsets that are not taken care of; the others are forgotten."""
        left: list[tuple[_Read, Place, str]] = []
        for place, reads in self._open.items():
            kept: list[_Read] = []
            while reads and reads[0].offset < committed[place]:
                read = reads.popleft()
                if what := self._lacks(place, read):
                    left.append((read, place, what))
                    kept.append(read)
            reads.extendleft(reversed(kept))
        return left

    def _lacks(self, place: Place, read: _Read) -> str:
        if not read.good:
            return "" if self._letters[(*place, read.offset)] else "in the dead letters"
        if self._durable.get(read.user, {}).get(place[0], -1) < read.offset:
            return "durable"
        return "" if self._best[read.user].get(place[0], -1) >= read.offset else "answered"

    def verify(self, timeout: float = 20.0) -> Findings:
        """Whether all is as it must be; to be asked when everything is committed and nothing is published.

        What is verified is forgotten, but the users who return and a hash of every row.
        """
        found = self.audit(timeout)
        deadline = time.monotonic() + timeout
        while not found:
            found = self._differences()
            if not found or time.monotonic() > deadline:
                break
            time.sleep(0.5)
            more = self._guarded(lambda: self._read(timeout))
            found = more if more else Findings()
        if not found:
            self._forget()
        return found

    def _differences(self) -> Findings:
        found = Findings()
        for user, row in self.reference.rows.items():
            if words := row.differs(self._rows.get(user)):
                found.add("rows_different", f"{user}: {words}")
            if self._best.get(user, {}) != row.applied:
                found.add("users_unanswered", f"{user}: the best list knows {self._best.get(user)} of {row.applied}")
        for user in self._rows.keys() - self.reference.rows.keys():
            found.add("rows_different", f"{user} did nothing and has a row")
        for place in self._bad.keys() - self._letters.keys():
            found.add("letters_wrong", f"{place} is not in the dead letters")
        for place in self._letters.keys() - self._bad.keys():
            found.add("letters_wrong", f"{place} is an event, and in the dead letters")
        self._compare_trends(found)
        return found

    def _compare_trends(self, found: Findings) -> None:
        counted: Counter[tuple[int, int, int]] = Counter()
        c = self._counts.counted()
        for a, b, bucket, n in zip(c.a.tolist(), c.b.tolist(), c.bucket.tolist(), c.n.tolist(), strict=True):
            if not (b and (a in self._mixed or b in self._mixed)):
                counted[a, b, bucket] += n
        expected, unsure = self.reference.trends, self.reference.unsure
        for key in expected.keys() | counted.keys():
            more = counted[key] - expected[key]
            if abs(more) <= unsure[key]:
                continue
            if more > 0:
                found.add("applied_twice", f"pair {key} is counted {counted[key]} times, not {expected[key]}", more)
            elif more < 0:
                found.add("lost", f"pair {key} is counted {counted[key]} times, not {expected[key]}", -more)

    def _forget(self) -> None:
        kept = self._returning
        for user, value in self._rows.items():
            if user not in kept:
                self._verified[user] = _digest(value)
        self._rows = {user: row for user, row in self._rows.items() if user in kept}
        self._durable = {user: row for user, row in self._durable.items() if user in kept}
        self._best = defaultdict(dict, {user: best for user, best in self._best.items() if user in kept})
        self._names_before, self._names = self._names, {}
        self._asking.clear()
        self.reference.forget(kept)

    def verify_all(self) -> Findings:
        """Every row that was ever verified, read anew from the beginning of its changelog."""
        found, last = Findings(), dict[str, bytes]()
        places = [(self._windows, p) for p in range(self._settings.topics.partitions)]
        reader = Reader(self._settings.kafka.bootstrap_servers, places)
        try:
            for message in reader.read(ends(self._admin, places, committed=True), 120.0):
                user, value = (message.key() or b"").decode(), message.value()
                if value is not None:
                    last[user] = _digest(value)
        finally:
            reader.close()
        expected = self._verified | {user: _digest(row) for user, row in self._rows.items()}
        for user in expected.keys() | last.keys():
            if expected.get(user) != last.get(user):
                found.add("rows_different", f"{user}: the row in the whole changelog is not the one that was verified")
        return found

    def delete_what_was_read(self) -> None:
        """Make room: records of inputs and outputs that were verified are needed by nobody."""
        s = self._settings.topics
        places = [*self._inputs, *(p for p in self._out.places if p[0] in (s.recommendations, s.dead_letters))]
        asked = [TopicPartition(*place, end) for place, end in ends(self._admin, places).items() if end]
        results(self._admin.delete_records(asked, request_timeout=REQUEST_S).values())
        gone = {(topic, partition, offset) for topic, partition, offset in self._bad}
        self._bad.clear()
        for place in gone:
            self._letters.pop(place, None)

    def _guarded(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except (KafkaException, Away) as error:
            self.away = str(error)
            self._admin = client(self._settings.kafka.bootstrap_servers)
            self._in.again()
            self._out.again()
            raise Away(self.away) from error

    def close(self) -> None:
        self._in.close()
        self._out.close()


def _name(user: str, applied: dict[str, int], trigger: tuple[str, int, int]) -> str:
    """The id of a list, as `stream.messages` says that it is made."""
    topic, partition, offset = trigger
    words = [user, *(f"{t}={o}" for t, o in sorted(applied.items())), f"{topic}/{partition}/{offset}"]
    return blake2b("\0".join(words).encode(), digest_size=16).hexdigest()


def _digest(row: bytes) -> bytes:
    return blake2b(row, digest_size=8).digest()
