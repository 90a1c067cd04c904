"""Fetched records -> columns of events, or a reason why not.

An event becomes a Python object once, here, and never again: what leaves is columns. A record that
cannot be read leaves as `Unreadable`, with its reason, and never raises: one bad record must not
stop the good ones around it. This module does not know what becomes of either.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import msgpack
import msgspec
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.history import ACTION_CODE, item_hash, weight_table
from stream.kafka.clients import header

JSON_TYPES = frozenset({b"application/json", b"application/cloudevents+json", b"text/json"})
MSGPACK_TYPES = frozenset({b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack"})
HASHES_KEPT = 1_000_000
"""Item hashes remembered by a decoder: beyond them, ids are more likely noise than a catalogue."""
LONGEST_ID = 1024
Value = TypeVar("Value")
_UNIT_MS = {"s": 1000.0, "ms": 1.0, "us": 0.001}


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

    @field_validator("topics")
    @classmethod
    def _one_topic_an_action(cls, topics: dict[str, str]) -> dict[str, str]:
        weight_table(dict.fromkeys(topics, 1.0))  # refuses unknown actions
        if not topics:
            raise ValueError('no topic to read; name at least one, such as click = "click"')
        if len(set(topics.values())) < len(topics):
            raise ValueError("two actions read the same topic; the action comes from the topic")
        return topics

    @field_validator("weights")
    @classmethod
    def _known_actions(cls, weights: dict[str, float]) -> dict[str, float]:
        weight_table(weights)
        return weights

    def actions(self) -> dict[str, int]:
        """topic -> action code."""
        return {topic: ACTION_CODE[action] for action, topic in self.topics.items()}

    def weight(self, action: str) -> float:
        return float(weight_table(self.weights)[ACTION_CODE[action]])


class Event(msgspec.Struct, gc=False):
    """One message on an input topic. `ts` is in the configured unit, or ISO 8601; absent, it is the record's."""

    user: str | int
    item: str | int
    ts: int | float | str | None = None
    value: float | None = None
    session: str | int | None = None
    context: dict[str, Any] | None = None


class Record(Protocol):
    """What is read of a fetched record (aiokafka's `ConsumerRecord` has it)."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class Unreadable(NamedTuple):
    """A record that is no event, and why."""

    record: Record
    reason: str


@dataclass(frozen=True, slots=True)
class Events:
    """Columns of n events of one topic and partition, in offset order.

    `users` list[str]; `items` u64[n]; `actions` u8[n]; `times` i64[n] ms; `weights` f32[n]; `offsets` i64[n];
    `traces` W3C traceparent by offset, where a record brought one.
    """

    users: list[str]
    items: np.ndarray
    actions: np.ndarray
    times: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    traces: dict[int, bytes]

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
    """

    def __init__(self, action: str, config: InputConfig) -> None:
        self._json = msgspec.json.Decoder(Event)
        self._action = ACTION_CODE[action]
        self._weight = config.weight(action)
        self._to_ms = _UNIT_MS[config.ts_unit]
        self._skew = config.max_skew_ms
        self._largest = config.max_event_bytes
        self._hashes: dict[str, int] = {}

    def decode(self, records: Sequence[Record]) -> tuple[Events, list[Unreadable]]:
        """Columns of the events in `records`, and the records that are none."""
        if len(self._hashes) > HASHES_KEPT:
            self._hashes.clear()
        plain = self._plain(records)
        return (plain, []) if plain is not None else self._one_by_one(records)

    def columns(self, chunk: Chunk) -> Events:
        """The events of a chunk, whose ids were found to be such."""
        if len(self._hashes) > HASHES_KEPT:
            self._hashes.clear()
        hashes = self._hashed(chunk.items) or [item_hash(item) for item in chunk.items]
        return self._events(chunk.users, hashes, chunk.times, chunk.offsets, {})

    def _plain(self, records: Sequence[Record]) -> Events | None:
        """The common batch, read as columns: JSON, text ids, times all there or none, and nothing amiss.

        None where anything is out of the ordinary; then it is `_one_by_one` that says what.
        """
        headers = [record.headers for record in records]
        if not headers or headers.count(headers[0]) < len(headers) or not _only_json(headers[0]):
            return None
        values: list[Any] = [record.value for record in records]
        try:
            found = list(map(self._json.decode, values))
            users: list[Any] = [event.user for event in found]
            items: list[Any] = [event.item for event in found]
            if [record.key for record in records] != list(map(str.encode, users)):
                return None
            if not _are_identifiers(users) or max(map(len, values)) > self._largest:
                return None
            hashes = self._hashed(items)
            times = self._times([event.ts for event in found], records)
        except (ValueError, RecursionError, OverflowError, TypeError, AttributeError):
            return None
        if hashes is None or times is None:
            return None
        return self._events(users, hashes, times, _offsets(records), {})

    def _hashed(self, items: list[Any]) -> list[int] | None:
        """The hash of each item; None where one is no identifier. Raises TypeError where one is a number."""
        known = self._hashes
        try:
            return [known[item] for item in items]
        except KeyError:
            new = set(items).difference(known)
            if not _are_identifiers(new):
                return None
            known.update((item, item_hash(item)) for item in new)
            return [known[item] for item in items]

    def _times(self, stamps: list[Any], records: Sequence[Record]) -> np.ndarray | None:
        """`_time` of many at once; None where one of them is not whole, absent, or out of bounds."""
        records_ms = np.array([record.timestamp for record in records], np.int64)
        if stamps[0] is None:
            return records_ms if stamps.count(None) == len(stamps) and (records_ms > 0).all() else None
        times = np.array(stamps)
        if times.dtype != np.int64:
            return None
        if self._to_ms != 1.0:
            times = (times * self._to_ms).astype(np.int64)
        return times if (times > 0).all() and (times <= records_ms + self._skew).all() else None

    def _one_by_one(self, records: Iterable[Record]) -> tuple[Events, list[Unreadable]]:
        users: list[str] = []
        items: list[int] = []
        times: list[int] = []
        offsets: list[int] = []
        traces: dict[int, bytes] = {}
        bad: list[Unreadable] = []
        hashes = self._hashes
        for record in records:
            try:
                event = parse(record, self._json, self._largest, "input.max_event_bytes =")
                user, item = identifier(event.user, "user"), identifier(event.item, "item")
                if record.key != user.encode():
                    raise ValueError(wrong_key(record.key, user))
                time = self._time(event.ts, record.timestamp)
            except (ValueError, RecursionError, OverflowError) as error:
                # msgspec's and msgpack's errors are ValueErrors; RecursionError is their word for nesting.
                bad.append(Unreadable(record, reason(error)))
                continue
            hashed = hashes.get(item)
            if hashed is None:
                hashed = hashes[item] = item_hash(item)
            users.append(user)
            items.append(hashed)
            times.append(time)
            offsets.append(record.offset)
            if record.headers and (trace := header(record.headers, "traceparent")):
                traces[record.offset] = trace
        return self._events(users, items, times, offsets, traces), bad

    def _events(
        self,
        users: list[str],
        items: list[int],
        times: list[int] | np.ndarray,
        offsets: list[int] | np.ndarray,
        traces: dict[int, bytes],
    ) -> Events:
        n = len(users)
        return Events(
            users,
            np.array(items, np.uint64),
            np.full(n, self._action, np.uint8),
            np.asarray(times, np.int64),
            np.full(n, self._weight, np.float32),
            np.asarray(offsets, np.int64),
            traces,
        )

    def _time(self, ts: int | float | str | None, record_ts: int) -> int:
        """Event time in ms; bounded on both sides, so that one bad clock cannot expire a user's window."""
        if ts is None:
            if record_ts <= 0:
                raise ValueError("neither the event nor its record has a time")
            return record_ts
        if isinstance(ts, str):
            ms = _iso_ms(ts)
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


def parse(record: Record, decoder: msgspec.json.Decoder[Value], largest: int, bound: str) -> Value:
    """What a record's value says, JSON or MessagePack, as the decoder's type. bound: what `largest` is called.

    Raises:
        ValueError, RecursionError, OverflowError: it is none, and why.
    """
    value = record.value
    if value is None:
        raise ValueError("the value is null; there are no tombstones in this topic")
    if not value:
        raise ValueError("the value is empty")
    if len(value) > largest:
        raise ValueError(f"{len(value)} bytes are more than {bound} {largest}")
    kind = header(record.headers, "content-type") if record.headers else None
    if kind is not None:
        kind = kind.split(b";")[0].strip().lower()
    # Without a content type the first byte tells: a JSON object opens with "{", which as MessagePack is a number.
    if kind in JSON_TYPES or (kind is None and value[:1] in b"{ \t\r\n["):
        return decoder.decode(value)
    if kind in MSGPACK_TYPES or (kind is None and _is_map(value[0])):
        return msgspec.convert(_unpack(value), decoder.type)
    if kind is None:
        raise ValueError("neither a JSON object nor a MessagePack map")
    raise ValueError(f"unknown content type {kind.decode(errors='replace')!r}")


def _only_json(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether these headers say JSON, or leave it to the first byte, and bring no trace to be carried on."""
    kind = header(headers, "content-type")
    return (kind is None or kind in JSON_TYPES) and header(headers, "traceparent") is None


def _offsets(records: Sequence[Record]) -> np.ndarray:
    """Offsets ascend: where the last is as far from the first as there are records, none is missing."""
    first, n = records[0].offset, len(records)
    if records[-1].offset == first + n - 1:
        return np.arange(first, first + n)
    return np.array([record.offset for record in records], np.int64)


def _are_identifiers(names: Collection[Any]) -> bool:
    """Whether `identifier` accepts all of these as they are. Raises TypeError where one is a number."""
    return "\0" not in "".join(names) and "" not in names and max(map(len, names)) <= LONGEST_ID


def identifier(value: str | int, field: str) -> str:
    """A name as text. Raises ValueError where it is none."""
    text = value if isinstance(value, str) else str(value)
    if not text:
        raise ValueError(f"empty {field} - at `$.{field}`")
    if "\0" in text:
        raise ValueError(f"NUL byte in {field} - at `$.{field}`")
    if len(text) > LONGEST_ID:
        raise ValueError(f"{field} is longer than {LONGEST_ID} characters - at `$.{field}`")
    return text


def wrong_key(key: bytes | None, user: str) -> str:
    """Why a record's key, which is not its user, is no key."""
    if key is None:
        return "the record has no key; its key must be the user, or a user's events spread over partitions"
    return f"the record's key {key[:64]!r} is not its user {user[:64]!r}"


def _unpack(value: bytes) -> Any:
    try:
        # Strict: a list as a map's key would be no ValueError but a TypeError, and stop the worker.
        return msgpack.unpackb(value, raw=False, strict_map_key=True)
    except (msgpack.UnpackException, ValueError) as error:
        raise ValueError(f"not MessagePack: {str(error) or type(error).__name__}") from error


def _is_map(byte: int) -> bool:
    return 0x80 <= byte <= 0x8F or byte in (0xDE, 0xDF)


def _iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"ts = {text[:64]!r} is not ISO 8601") from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def reason(error: Exception) -> str:
    """An error in words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) or type(error).__name__
