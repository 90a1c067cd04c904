"""Protobuf messages as plain objects, by a schema that is a descriptor or the text of a `.proto`.

Which of them a registry gives depends on it, and on who registered the schema: Confluent's gives descriptors of all,
others give what they got, descriptors from Python and .NET, text from Java. Text is compiled by protoc, which
`grpcio-tools` brings, in a process of its own.
"""

from __future__ import annotations

import base64
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

COMPILED_WITHIN_S = 30.0
_COME_ALONG = {
    "google/protobuf/": "google.protobuf.",
    "google/type/": "google.type.",
    "confluent/": "confluent_kafka.schema_registry.confluent.",
}
"""Files that schemas import and nobody registers -> the packages that have them."""
_DEEPEST = 64
_NAME = "value.proto"


def protobuf(text: str, references: Sequence[tuple[str, str]], frame: int) -> Callable[[bytes], Any]:
    """What reads messages that follow a frame of so many bytes: plain objects, by the names of the `.proto`.

    Args:
        text, references: as `stream.formats.Schema` has them.

    Raises:
        OSError, subprocess.SubprocessError: protoc could not be run.
        Exception: of any other kind, here or in what is returned: it is no schema, or no message of it.
    """
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    pool, known = DescriptorPool(), set[str]()
    files = list(_files([*references, (_NAME, text)]))
    for one in files:
        _add(pool, one, known)
    file = files[-1]
    plain = _Plain()
    messages: dict[tuple[int, ...], tuple[Callable[[bytes], Any], Callable[[Any], Any]]] = {}

    def read(value: bytes) -> Any:
        index, start = message_index(value, frame)
        found = messages.get(index)
        if found is None:
            kind = pool.FindMessageTypeByName(_message(file, index))
            found = messages[index] = GetMessageClass(kind).FromString, plain.of(kind)
        parse, convert = found
        return convert(parse(value[start:]))

    return read


def message_index(value: bytes, at: int) -> tuple[tuple[int, ...], int]:
    """Which message of a file a value is, from the outermost in, and where the message begins. The index begins at
    `at`; a lone 0 is the first message.

    Raises:
        ValueError, IndexError: there is no such.
    """
    if value[at] == 0:
        return (0,), at + 1
    length, at = _varint(value, at)
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


def _files(sources: Sequence[tuple[str, str]]) -> Iterator[Any]:
    """Descriptors of these files, (name, descriptor in base64 or text), each after those that it imports."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

    try:
        descriptors = [(name, base64.b64decode(text, validate=True)) for name, text in sources]
    except ValueError:
        yield from FileDescriptorSet.FromString(_compiled(sources)).file
        return
    for name, descriptor in descriptors:
        file = FileDescriptorProto.FromString(descriptor)
        file.name = name
        yield file


def _compiled(sources: Sequence[tuple[str, str]]) -> bytes:
    """A descriptor set of these files and all that they import."""
    import google.type.date_pb2

    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder, "in").resolve(), Path(folder, "out")
        for name, text in sources:
            path = (root / name).resolve()
            if not path.is_relative_to(root):
                raise ValueError(f"a schema it names is called {name!r}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        more = Path(google.type.date_pb2.__file__).parents[2]
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}", f"-I{more}"]
        command += ["--include_imports", f"--descriptor_set_out={out}", _NAME]
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILED_WITHIN_S, check=False)
        if done.returncode < 0:
            raise ChildProcessError(f"protoc was ended by signal {-done.returncode}")
        if done.returncode:
            raise ValueError(f"protoc: {' '.join(done.stderr.replace(f'{root}/', '').split())}")
        return out.read_bytes()


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
