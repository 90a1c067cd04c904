"""Values by a schema: what reads Avro and Protobuf as plain objects, such as a decoded JSON object is one.

Where schemas come from is `stream.registry`'s affair, and where fields lie in what is read `stream.mapping`'s.
Logical times are `datetime`s, enumerations their names. A field of Protobuf that is not set is not there; without
presence, zero and "" are not set. The frame around a value is Confluent's: a zero byte, the schema's id, for Protobuf
which message of it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Literal, NamedTuple

from stream.protobuf import protobuf

Format = Literal["json", "json-schema", "avro", "protobuf"]
Reader = Callable[[bytes], Any]
"""What reads a value, its frame included. Raises ValueError where it cannot be read."""

FRAME = 5
"""Bytes of a frame: zero, and the schema's id, big-endian."""
MAGIC = 0
TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF"}
"""What a registry calls the formats that cannot be read without it."""


class Schema(NamedTuple):
    """A schema as it is registered: `text` is Avro's JSON, a `.proto`, or its descriptor in base64; `references` are
    the schemas that it names, (name, text), each after those that it names itself.
    """

    text: str
    references: Sequence[tuple[str, str]] = ()


def unframed(value: bytes) -> bytes:
    """What is in the frame. Raises ValueError where there is none."""
    check_frame(value)
    return value[FRAME:]


def check_frame(value: bytes) -> None:
    """Raises ValueError where a value does not begin with a frame."""
    if len(value) <= FRAME:
        raise ValueError(f"{len(value)} bytes are too few for a schema's id and a value")
    if value[0] != MAGIC:
        raise ValueError(f"the first byte is {value[0]}, not 0, behind which a schema's id would be")


def reader(kind: Format, schema: Schema) -> Reader:
    """What reads the values of a schema.

    Raises:
        ValueError: it is no schema of that kind.
        OSError, subprocess.SubprocessError: the schema is not to blame.
    """
    make = {"avro": _avro, "protobuf": _protobuf}[kind]
    try:
        read = make(schema)
    except (OSError, subprocess.SubprocessError):
        raise
    except Exception as error:  # of a parser, on what others wrote: it has no one type
        raise ValueError(f"the schema is no {kind}: {_told(error)}") from error

    def checked(value: bytes) -> Any:
        try:
            return read(value)
        except Exception as error:  # likewise: an index out of range, an unknown code, bytes that end too soon
            raise ValueError(f"not the {kind} that its schema says: {_told(error)}") from error

    return checked


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:200] if str(error) else type(error).__name__


def _avro(schema: Schema) -> Reader:
    from fastavro import parse_schema, schemaless_reader

    named: dict[str, Any] = {}
    for _, text in schema.references:
        parse_schema(json.loads(text), named_schemas=named)
    parsed = parse_schema(json.loads(schema.text), named_schemas=named)

    def read(value: bytes) -> Any:
        stream = BytesIO(value)
        stream.seek(FRAME)
        return schemaless_reader(stream, parsed, None)

    return read


def _protobuf(schema: Schema) -> Reader:
    return protobuf(schema.text, schema.references, FRAME)
