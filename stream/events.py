"""Fetched records -> columns of events, or a reason why not.

An event becomes a Python object once, here, and never again: what leaves is columns. A record that
cannot be read leaves as `Unreadable`, with its reason, and never raises: one bad record must not
stop the good ones around it. This module does not know what becomes of either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.history import ACTION_CODE, item_hash, weight_table
from stream.errors import ConfigError
from stream.formats import TYPES, Format
from stream.kafka.clients import header
from stream.mapping import Columns, Line, Shape, ShapeConfig
from stream.records import (
    Record,
    Unreadable,
    are_identifiers,
    datetime_ms,
    identifier,
    iso_ms,
    reason,
    texts,
    wrong_key,
)
from stream.registry import RegistryConfig, Schemas
from stream.values import Values

HASHES_KEPT = 1_000_000
"""Item hashes remembered by a decoder: beyond them, ids are more likely noise than a catalogue."""
_UNIT_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}
_NUMBERS = frozenset({int, float, type(None)})


class InputConfig(BaseModel):
    """Which topics are read, what their events are, and what an action weighs."""

    model_config = ConfigDict(extra="forbid")

    topics: dict[str, str] = Field(
        default={"view": "view", "click": "click", "buy": "buy"}, description="action -> topic"
    )
    weights: dict[str, float] = Field(
        default={}, description="action -> weight in long-term profiles, where the default does not suit"
    )
    ts_unit: Literal["s", "ms", "us"] = "ms"
    max_skew_ms: int = Field(default=3_600_000, ge=0, description="how far an event may lie ahead of its record")
    max_event_bytes: int = Field(default=1024 * 1024, ge=1)
    rekey: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="whether events are copied to a topic of our own, by user; auto: where users are not in one place",
    )
    shapes: dict[str, ShapeConfig] = Field(
        default={},
        description="topic, or * for all others -> where its records say what, unless as eddyline's do",
    )
    registry: RegistryConfig = RegistryConfig()

    @field_validator("topics")
    @classmethod
    def _one_topic_an_action(cls, topics: dict[str, str]) -> dict[str, str]:
        weight_table(dict.fromkeys(topics, 1.0))  # refuses unknown actions
        if not topics:
            raise ValueError('no topic to read; name at least one, such as click = "click"')
        return topics

    @model_validator(mode="after")
    def _an_action_each(self) -> InputConfig:
        for topic in self.shapes:
            if topic != "*" and topic not in self.topics.values():
                raise ValueError(f"shapes.{topic}: no such topic is read; [input.topics] names {', '.join(self.names)}")
        for topic, shape in self.shapes.items():
            if shape.format in TYPES and self.registry.url is None:
                raise ValueError(
                    f"shapes.{topic}: {shape.format} is read by the schemas of a registry; "
                    'say where it is: [input.registry] url = "http://…"'
                )
        for topic in self.names:
            actions, shape = self.actions_of(topic), self._shape(topic)
            if len(actions) > 1 and (shape is None or shape.action is None):
                raise ValueError(
                    f"{' and '.join(actions)} read the same topic, {topic}; "
                    f'say where its records tell which it is: [input.shapes."{topic}"] action = "$.…"'
                )
        return self

    @field_validator("weights")
    @classmethod
    def _known_actions(cls, weights: dict[str, float]) -> dict[str, float]:
        weight_table(weights)
        return weights

    @property
    def names(self) -> list[str]:
        """The topics that are read, each once."""
        return list(dict.fromkeys(self.topics.values()))

    def actions_of(self, topic: str) -> list[str]:
        """What a topic is set for."""
        return [action for action, name in self.topics.items() if name == topic]

    def refuse_foreign(self, topics: Iterable[str]) -> None:
        """Raises ConfigError where events of ours would be dead letters: a topic has another shape."""
        if foreign := [topic for topic in topics if self._shape(topic) is not None]:
            raise ConfigError(
                f"{', '.join(foreign)}: records there have a shape of their own ([input.shapes]), and events of ours "
                "would be unreadable",
                "let their owner write them, or set topics of ours as well: [input.topics]",
            )

    def decoders(self, keyed: bool = True, valued: bool = False) -> dict[str, Decoder]:
        """topic -> what reads its records; keyed, valued: as `Decoder` has them.

        Raises:
            ConfigError: what reads a format is not installed, or a registry's certificates cannot be used.
        """
        kinds: set[Format] = {shape.format for name in self.names if (shape := self._shape(name)) is not None}
        schemas: dict[Format, Schemas] = {kind: Schemas(kind, self.registry) for kind in kinds if kind in TYPES}
        return {topic: self._decoder(topic, keyed, valued, schemas) for topic in self.names}

    def _decoder(self, topic: str, keyed: bool, valued: bool, schemas: Mapping[Format, Schemas]) -> Decoder:
        actions, shape = self.actions_of(topic), self._shape(topic)
        if shape is None:
            return Decoder(actions[0], self, None, keyed, valued)
        kind: Format = shape.format
        return Decoder(actions[0], self, Shape(shape, actions), keyed, valued, kind, schemas.get(kind))

    def _shape(self, topic: str) -> ShapeConfig | None:
        return self.shapes.get(topic, self.shapes.get("*"))


class Event(msgspec.Struct, gc=False):
    """One message on an input topic. `ts` is in the configured unit, or ISO 8601; absent, it is the record's."""

    user: str | int
    item: str | int
    ts: int | float | str | None = None
    value: float | None = None
    session: str | int | None = None
    context: dict[str, Any] | None = None


OWN = Columns(Event, {name: attrgetter(name) for name in ("user", "item", "ts", "value")})
"""How eddyline's own events are read."""


@dataclass(frozen=True, slots=True)
class Events:
    """Columns of n events of one topic and partition, in offset order.

    `users` list[str]; `names` list[str] of items, and `items` u64[n], their hashes; `actions` u8[n]; `times` i64[n] ms;
    `weights` f32[n]; `offsets` i64[n]; `traces` W3C traceparent by offset, where a record brought one; `values` f32[n],
    NaN = none, where they were wanted.
    """

    users: list[str]
    names: list[str]
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    traces: dict[int, bytes]
    values: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.users)


class Chunk(NamedTuple):
    """n events of one topic and partition that were decoded long ago: users list[str], items list[str], times i64[n] in
    ms, offsets i64[n], ascending.
    """

    users: list[str]
    items: list[str]
    times: np.ndarray
    offsets: np.ndarray


class Decoder:
    """Decodes the records of one input topic.

    Item hashes are cached: a catalogue is small beside a stream, and hashing costs more than a lookup.

    Args:
        action: what the records are, where they do not say it themselves.
        shape: where they say what; None = they are `Event`s.
        keyed: whether a record's key must be its user, without which users would spread over partitions.
        valued: whether values are wanted.
        kind, schemas: as `Values` has them.
    """

    def __init__(
        self,
        action: str,
        config: InputConfig,
        shape: Shape | None = None,
        keyed: bool = True,
        valued: bool = False,
        kind: Format = "json",
        schemas: Schemas | None = None,
    ) -> None:
        columns = shape.columns if shape is not None else OWN
        self._shape = shape
        self._keyed = keyed
        self._valued = valued
        self._get = columns.get if columns is not None else None
        self._typed = columns is not None and columns.kind is not dict
        self.values = Values(columns.kind if columns is not None and self._typed else Any, kind, schemas)
        self._action = ACTION_CODE[action]
        self._weights = weight_table(config.weights)
        self._to_ms = _UNIT_MS[(shape.ts_unit if shape is not None else None) or config.ts_unit]
        self._skew = config.max_skew_ms
        self._largest = config.max_event_bytes
        self._hashes: dict[str, int] = {}

    def decode(self, records: Sequence[Record]) -> tuple[Events, list[Unreadable]]:
        """Columns of the events in `records`, and the records that are none.

        Raises:
            RegistryError: their values were not prepared, and the schema registry does not answer.
        """
        if len(self._hashes) > HASHES_KEPT:
            self._hashes.clear()
        plain = self._plain(records)
        return (plain, []) if plain is not None else self._one_by_one(records)

    def columns(self, chunk: Chunk) -> Events:
        """The events of a chunk, whose ids were found to be such."""
        if len(self._hashes) > HASHES_KEPT:
            self._hashes.clear()
        hashes = self._hashed(chunk.items) or [item_hash(item) for item in chunk.items]
        return self._events(chunk.users, chunk.items, hashes, None, chunk.times, chunk.offsets, {})

    def _plain(self, records: Sequence[Record]) -> Events | None:
        """The common batch, read as columns: JSON, text ids, times all there or none, and nothing amiss.

        None where anything is out of the ordinary; then it is `_one_by_one` that says what.
        """
        headers, get = [record.headers for record in records], self._get
        if (
            get is None
            or not headers
            or headers.count(headers[0]) < len(headers)
            or not self.values.is_plain(headers[0])
        ):
            return None
        bodies: list[Any] = [record.value for record in records]
        codes: list[int] | None = None
        values: list[Any] | None = None
        try:
            found = list(map(self.values.read, bodies))
            users: list[Any] = list(map(get["user"], found))
            items: list[Any] = list(map(get["item"], found))
            if not self._typed:
                users, items = texts(users), texts(items)
            if self._keyed and [record.key for record in records] != list(map(str.encode, users)):
                return None
            if not are_identifiers(users) or max(map(len, bodies)) > self._largest:
                return None
            hashes = self._hashed(items)
            times = self._times(list(map(get["ts"], found)), records)
            if self._shape is not None and "action" in get:
                codes = self._shape.codes(list(map(get["action"], found)))
                if codes is None:
                    return None
            if self._valued and not _NUMBERS.issuperset(map(type, values := list(map(get["value"], found)))):
                return None
        except (ValueError, RecursionError, OverflowError, TypeError, AttributeError, KeyError):
            return None
        if hashes is None or times is None:
            return None
        return self._events(users, items, hashes, codes, times, _offsets(records), {}, values)

    def _hashed(self, items: list[Any]) -> list[int] | None:
        """The hash of each item; None where one is no identifier. Raises TypeError where one is a number."""
        known = self._hashes
        try:
            return [known[item] for item in items]
        except KeyError:
            new = set(items).difference(known)
            if not are_identifiers(new):
                return None
            known.update((item, item_hash(item)) for item in new)
            return [known[item] for item in items]

    def _times(self, stamps: list[Any], records: Sequence[Record]) -> np.ndarray | None:
        """`_time` of many at once; None where one of them is not whole, absent, or out of bounds."""
        records_ms = np.array([record.timestamp for record in records], np.int64)
        if stamps[0] is None:
            return records_ms if stamps.count(None) == len(stamps) and (records_ms > 0).all() else None
        moments = isinstance(stamps[0], datetime)
        times = np.array(list(map(datetime_ms, stamps)) if moments else stamps)
        if times.dtype != np.int64:
            return None
        if self._to_ms != 1.0 and not moments:
            times = (times * self._to_ms).astype(np.int64)
        return times if (times > 0).all() and (times <= records_ms + self._skew).all() else None

    def _one_by_one(self, records: Iterable[Record]) -> tuple[Events, list[Unreadable]]:
        users: list[str] = []
        names: list[str] = []
        items: list[int] = []
        codes: list[int] = []
        times: list[int] = []
        offsets: list[int] = []
        traces: dict[int, bytes] = {}
        values: list[float | None] = []
        bad: list[Unreadable] = []
        for record in records:
            try:
                found = [self._checked(line, record) for line in self._lines(record)]
            except (ValueError, RecursionError, OverflowError) as error:
                # msgspec's and msgpack's errors are ValueErrors; RecursionError is their word for nesting.
                bad.append(Unreadable(record, reason(error)))
                continue
            for user, name, item, time, code, value in found:
                users.append(user)
                names.append(name)
                items.append(item)
                times.append(time)
                codes.append(code)
                values.append(value)
                offsets.append(record.offset)
            if found and record.headers and (trace := header(record.headers, "traceparent")):
                traces[record.offset] = trace
        return self._events(users, names, items, codes, times, offsets, traces, values), bad

    def _lines(self, record: Record) -> Iterable[Line]:
        """The interactions of a record, as it has them: one, or as its shape has it. Raises what `Values.of`
        raises.
        """
        shape, get = self._shape, self._get
        if shape is not None and shape.passes(record):
            return []
        value = self.values.of(record, self._largest, "input.max_event_bytes =")
        if get is None or not self._typed:
            return shape.lines(value, record) if shape is not None else []
        code = self._action
        if shape is not None and "action" in get and not (code := shape.code(get["action"](value))):
            return []
        return [Line(get["user"](value), get["item"](value), get["ts"](value), get["value"](value), code)]

    def _checked(self, line: Line, record: Record) -> tuple[str, str, int, int, int, float | None]:
        """User, item, its hash, time in ms, action and value of an interaction. Raises ValueError where it is none."""
        user, item = identifier(line.user, "user"), identifier(line.item, "item")
        if self._keyed and record.key != user.encode():
            raise ValueError(wrong_key(record.key, user))
        hashed = self._hashes.get(item)
        if hashed is None:
            hashed = self._hashes[item] = item_hash(item)
        value = line.value
        if not isinstance(value, int | float | None) or isinstance(value, bool):
            raise ValueError(f"value = {value!r:.64} is no number")
        return user, item, hashed, self._time(line.ts, record.timestamp), line.action or self._action, value

    def _events(
        self,
        users: list[str],
        names: list[str],
        items: list[int],
        codes: list[int] | None,
        times: list[int] | np.ndarray,
        offsets: list[int] | np.ndarray,
        traces: dict[int, bytes],
        values: list[float | None] | None = None,
    ) -> Events:
        n = len(users)
        actions = np.full(n, self._action, np.uint8) if codes is None else np.array(codes, np.uint8)
        return Events(
            users,
            names,
            np.array(items, np.uint64),
            actions,
            np.asarray(times, np.int64),
            self._weights[actions],
            np.asarray(offsets, np.int64),
            traces,
            np.array(values, np.float32) if self._valued and values is not None else None,  # None becomes NaN
        )

    def _time(self, ts: int | float | str | datetime | None, record_ts: int) -> int:
        """Event time in ms; bounded on both sides, so that one bad clock cannot expire a user's window."""
        if ts is None:
            if record_ts <= 0:
                raise ValueError("neither the event nor its record has a time")
            return record_ts
        if isinstance(ts, str):
            ms = iso_ms(ts)
        elif isinstance(ts, datetime):
            ms = datetime_ms(ts)
        elif not isinstance(ts, int | float) or isinstance(ts, bool):
            raise ValueError(f"ts = {ts!r:.64} is no time")
        elif not math.isfinite(ts):
            raise ValueError(f"ts = {ts} is no time")
        else:
            ms = int(ts * self._to_ms) if self._to_ms != 1.0 else int(ts)
        if ms <= 0:
            raise ValueError(f"ts = {ts} lies before 1970")
        if ms > record_ts + self._skew:
            raise ValueError(
                f"ts = {ts} lies {(ms - record_ts) / 1000:.0f} s ahead of its record (input.max_skew_ms = {self._skew})"
            )
        return ms


def _offsets(records: Sequence[Record]) -> np.ndarray:
    """Offsets ascend: where the last is as far from the first as there are records, none is missing."""
    first, n = records[0].offset, len(records)
    if records[-1].offset == first + n - 1:
        return np.arange(first, first + n)
    return np.array([record.offset for record in records], np.int64)
