"""Items and users as they were described at a time, read back from their topics.

Not what is served (`stream.lists` follows these topics to their newest records). A question of the past must not be
answered by what was written later: of each key the newest record up to the time counts. Compacted topics keep few
older ones, so where only later records are left of an item that was met by then, the oldest of them lends its
texts, and that is counted; of a user, later records say nothing.

A stock is of a moment: an item is sold out only where that was told before the first question.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from aiokafka import TopicPartition

from model.catalog import Item
from model.people import Person
from stream.kafka.clients import KafkaConfig
from stream.kafka.reading import read
from stream.kafka.topics import partitions
from stream.settings import Settings

log = logging.getLogger(__name__)


class Kept(msgspec.Struct, gc=False):
    """One description, and when it was written, in ms."""

    value: Any
    written: int


class AsOf:
    """Descriptions by key as of `until` (ms; None: the newest). `later`: the oldest of those written after that."""

    def __init__(self, kind: type[Item] | type[Person], until: int | None = None) -> None:
        self._decode = msgspec.json.Decoder(kind).decode
        self._until = until
        self.known: dict[str, Kept] = {}
        self.later: dict[str, Kept] = {}

    def on_records(self, tp: TopicPartition, records: Sequence[Any]) -> None:
        """Take in records, in the order of their partition; a tombstone forgets a key."""
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            after = self._until is not None and record.timestamp >= self._until
            if record.value is None:
                if not after:
                    self.known.pop(name, None)
                continue
            try:
                value = self._decode(record.value)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                log.warning("%s at offset %d describes nothing and is passed over: %s", tp.topic, record.offset, error)
                continue
            if after:
                self.later.setdefault(name, Kept(value, record.timestamp))
            else:
                self.known[name] = Kept(value, record.timestamp)


class Items:
    """What was known of items: `items` by id, with one for every id that was met; `described` of them are in the
    catalogue, and of `lent` only later texts are left.
    """

    def __init__(self, found: AsOf, met: Iterable[str], first_ms: int) -> None:
        self.items: dict[str, Item] = {}
        self.described = self.lent = 0
        for kept in found.known.values():
            item: Item = kept.value
            if not item.in_stock and kept.written > first_ms:
                item = msgspec.structs.replace(item, in_stock=True)
            self.items[item.item] = item
        self.described = len(self.items)
        texts = {kept.value.item: kept.value for kept in found.later.values()}
        for name in sorted(set(met) - self.items.keys()):
            later = texts.get(name)
            self.lent += later is not None
            self.items[name] = (
                Item(name, name) if later is None else msgspec.structs.replace(later, price=None, in_stock=True)
            )


async def items_of(settings: Settings, until: int | None) -> AsOf:
    """The catalogue topic, as of a time; nothing where it is not there."""
    return await _read(settings.kafka, settings.topics.catalog, AsOf(Item, until))


async def people_of(settings: Settings, until: int | None) -> dict[str, Person]:
    """The users topic, as of a time, in the order of names."""
    found = await _read(settings.kafka, settings.topics.users, AsOf(Person, until))
    said = {name: kept.value for name, kept in sorted(found.known.items())}
    return {name: person for name, person in said.items() if person.user == name}


async def _read(kafka: KafkaConfig, topic: str, into: AsOf) -> AsOf:
    count = (await partitions(kafka, [topic])).get(topic, 0)
    await read(kafka, [TopicPartition(topic, p) for p in range(count)], into.on_records)
    return into
