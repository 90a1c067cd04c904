"""One record as it came: its value as a type that is asked for, names and times out of it, or why not.

Pure: nothing here knows what an event is (`stream.events`), or what becomes of what cannot be read.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol, TypeVar
from uuid import UUID

import msgpack
import msgspec

from stream.kafka.clients import header

JSON_TYPES = frozenset({b"application/json", b"application/cloudevents+json", b"text/json"})
MSGPACK_TYPES = frozenset({b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack"})
LONGEST_ID = 1024
Value = TypeVar("Value")


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


def parse(record: Record, decoder: msgspec.json.Decoder[Value], largest: int, bound: str) -> Value:
    """What a record's value says, JSON or MessagePack, as the decoder's type. bound: what `largest` is called.

    Raises:
        ValueError, RecursionError, OverflowError: it is none, and why.
    """
    value = body(record, largest, bound)
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


def body(record: Record, largest: int, bound: str) -> bytes:
    """A record's value as it came. bound: what `largest` is called. Raises ValueError where there is none."""
    value = record.value
    if value is None:
        raise ValueError("the value is null; there are no tombstones in this topic")
    if not value:
        raise ValueError("the value is empty")
    if len(value) > largest:
        raise ValueError(f"{len(value)} bytes are more than {bound} {largest}")
    return value


def only_json(headers: Sequence[tuple[str, bytes]]) -> bool:
    """Whether these headers say JSON, or leave it to the first byte, and bring no trace to be carried on."""
    kind = header(headers, "content-type")
    return (kind is None or kind in JSON_TYPES) and header(headers, "traceparent") is None


def are_identifiers(names: Collection[Any]) -> bool:
    """Whether `identifier` accepts all of these as they are. Raises TypeError where one is a number."""
    return "\0" not in "".join(names) and "" not in names and max(map(len, names)) <= LONGEST_ID


def texts(names: list[Any]) -> list[str]:
    """Names as text, those among them that are numbers or UUIDs too. Raises TypeError where one is neither."""
    kinds = set(map(type, names))
    if kinds == {str}:
        return names
    if not kinds <= {str, int, UUID}:
        raise TypeError("not all are names")
    return list(map(str, names))


def identifier(value: str | int | UUID, field: str) -> str:
    """A name as text. Raises ValueError where it is none."""
    if not isinstance(value, str | int | UUID) or isinstance(value, bool):
        raise ValueError(f"{field} is {value!r:.64}, which is no name")
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


def iso_ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"ts = {text[:64]!r} is not ISO 8601") from error
    return datetime_ms(moment)


def datetime_ms(moment: datetime) -> int:
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def reason(error: Exception) -> str:
    """An error in words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error) or type(error).__name__
