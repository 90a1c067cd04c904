"""A record's value as plain objects, by the format that its topic is set for.

It knows the formats by name only: JSON and MessagePack are `stream.records`' to read, schemas `stream.registry`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from stream.formats import Format, unframed
from stream.kafka.clients import header
from stream.records import Record, body, only_json, parse
from stream.registry import Schemas


class Values:
    """Reads the values of one topic.

    Args:
        target: the type that JSON is read as; what schemas read is plain dicts and lists all the same.
        schemas: what reads a format that takes a registry's schemas.
    """

    def __init__(self, target: Any, kind: Format = "json", schemas: Schemas | None = None) -> None:
        self._json: msgspec.json.Decoder[Any] = msgspec.json.Decoder(target)
        self._framed = kind != "json"
        self._schemas = schemas
        self.read: Callable[[bytes], Any] = self._json.decode
        """A value that `is_plain` says to be one."""
        if schemas is not None:
            self.read = schemas.read
        elif self._framed:
            self.read = lambda value: self._json.decode(unframed(value))

    def is_plain(self, headers: Sequence[tuple[str, bytes]]) -> bool:
        """Whether these headers neither say how a value is to be read nor bring a trace to be carried on."""
        return header(headers, "traceparent") is None if self._framed else only_json(headers)

    def of(self, record: Record, largest: int, bound: str) -> Any:
        """What a record's value says. bound: what `largest` is called.

        Raises:
            ValueError, RecursionError, OverflowError: it is none, and why.
            RegistryError: it was not `prepared`, and the schema registry does not answer.
        """
        if self._framed:
            return self.read(body(record, largest, bound))
        return parse(record, self._json, largest, bound)

    @property
    def awaiting(self) -> str | None:
        """Why `prepared` waits just now."""
        return self._schemas.awaiting if self._schemas is not None else None

    async def prepared(self, records: Sequence[Record]) -> None:
        """Wait until all is there that reading these takes."""
        if self._schemas is not None:
            await self._schemas.prepared(record.value for record in records)


def awaited(values: Iterable[Values]) -> str | None:
    """Why some of these wait just now; None where none does."""
    return next((why for one in values if (why := one.awaiting)), None)
