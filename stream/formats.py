"""Values by a schema: what reads Avro and Protobuf as plain objects, such as a decoded JSON object is one.

Pure: where schemas come from is `stream.registry`'s affair, and where fields lie in what is read `stream.mapping`'s.
Logical times are `datetime`s, enumerations their names. A field of Protobuf that is not set is not there; without
presence, zero and "" are not set. The frame around a value is Confluent's: a zero byte, the schema's id, for Protobuf
which message of it.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC
from io import BytesIO
from typing import Any, Literal, NamedTuple

Format = Literal["json", "json-schema", "avro", "protobuf"]
Reader = Callable[[bytes], Any]
"""What reads a value, its frame included. Raises ValueError where it cannot be read."""

FRAME = 5
"""Bytes of a frame: zero, and the schema's id, big-endian."""
MAGIC = 0
TYPES = {"avro": "AVRO", "protobuf": "PROTOBUF"}
"""What a registry calls the formats that cannot be read without it."""
_COME_ALONG = {
    "google/protobuf/": "google.protobuf.",
    "google/type/": "google.type.",
    "confluent/": "confluent_kafka.schema_registry.confluent.",
}
"""Files that schemas import and nobody registers -> the packages that have them."""
_DEEPEST = 64


class Schema(NamedTuple):
    """A schema as it is registered: `text` is Avro's JSON, or a `FileDescriptorProto` in base64; `references` are the
    schemas that it names, (name, text), each after those that it names itself.
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
    """
    make = {"avro": _avro, "protobuf": _protobuf}[kind]
    try:
        read = make(schema)
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
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    pool, known = DescriptorPool(), set[str]()
    for name, text in schema.references:
        _add(pool, _file(name, text), known)
    file = _file("value.proto", schema.text)
    _add(pool, file, known)
    plain = _Plain()
    messages: dict[tuple[int, ...], tuple[Callable[[bytes], Any], Callable[[Any], Any]]] = {}

    def read(value: bytes) -> Any:
        index, start = message_index(value)
        found = messages.get(index)
        if found is None:
            kind = pool.FindMessageTypeByName(_message(file, index))
            found = messages[index] = GetMessageClass(kind).FromString, plain.of(kind)
        parse, convert = found
        return convert(parse(value[start:]))

    read(bytes(FRAME + 1))  # the first message, empty: whether the schema is one at all
    return read


def message_index(value: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of a file a value is, from the outermost in, and where the message begins. A lone 0 is the first.

    Raises:
        ValueError, IndexError: there is no such.
    """
    if value[FRAME] == 0:
        return (0,), FRAME + 1
    length, at = _varint(value, FRAME)
    if not 0 < length <= _DEEPEST:
        raise ValueError(f"no message is {length} deep")
    index: list[int] = []
    for _ in range(length):
        one, at = _varint(value, at)
        if one < 0:
            raise ValueError(f"{one} is no message's number")
        index.append(one)
    return tuple(index), at


def _varint(value: bytes, at: int) -> tuple[int, int]:
    """A zigzag number, and where the next begins."""
    number = shift = 0
    while True:
        byte = value[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
        if shift > 28:
            raise ValueError("a number of the message's index has no end")


def _file(name: str, text: str) -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    file.name = name
    return file


def _add(pool: Any, file: Any, known: set[str]) -> None:
    """Put a file into a pool, after what it imports of that which nobody registers."""
    for name in file.dependency:
        if name not in known and (package := next((p for p in _COME_ALONG if name.startswith(p)), None)):
            module = _COME_ALONG[package] + name.removeprefix(package).removesuffix(".proto").replace("/", ".") + "_pb2"
            _add(pool, _descriptor(importlib.import_module(module)), known)
    if file.name not in known:
        known.add(file.name)
        pool.Add(file)


def _descriptor(module: Any) -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(file)
    return file


def _message(file: Any, index: Sequence[int]) -> str:
    """The full name of a message."""
    names, kinds = [file.package] if file.package else [], file.message_type
    for at in index:
        names.append(kinds[at].name)
        kinds = kinds[at].nested_type
    return ".".join(names)


class _Plain:
    """Makes plain objects of messages; for each kind of message it is found out once how."""

    def __init__(self) -> None:
        self._kinds: dict[str, Callable[[Any], Any]] = {}

    def of(self, kind: Any) -> Callable[[Any], Any]:
        """What makes a plain object of messages of this descriptor."""
        if kind.full_name not in self._kinds:
            self._kinds[kind.full_name] = _well_known(kind.full_name) or self._fields(kind)
        return self._kinds[kind.full_name]

    def _fields(self, kind: Any) -> Callable[[Any], Any]:
        made: dict[int, tuple[str, Callable[[Any], Any] | None]] = {}

        def convert(message: Any) -> dict[str, Any]:
            out: dict[str, Any] = {}
            for field, value in message.ListFields():
                name, make = made.get(field.number) or made.setdefault(field.number, (field.name, self._field(field)))
                out[name] = value if make is None else make(value)
            return out

        return convert

    def _field(self, field: Any) -> Callable[[Any], Any] | None:
        """What makes a plain object of a field; None where it is one."""
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            each = self._one(kind.fields_by_name["value"])
            return lambda entries: {str(key): each(entries[key]) if each else entries[key] for key in entries}
        one = self._one(field)
        if not field.is_repeated:
            return one
        return lambda values: [one(value) for value in values] if one else list(values)

    def _one(self, field: Any) -> Callable[[Any], Any] | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)
        return None


def _well_known(name: str) -> Callable[[Any], Any] | None:
    """What makes a plain object of Google's own messages, which are values rather than objects."""
    if name == "google.protobuf.Timestamp":
        return lambda message: message.ToDatetime(tzinfo=UTC)
    if not name.startswith("google.protobuf."):
        return None
    if name.endswith("Value") and name not in ("google.protobuf.Value", "google.protobuf.ListValue"):
        return lambda message: message.value
    from google.protobuf.json_format import MessageToDict

    return MessageToDict
