"""Where the records of a topic say what, if they are not eddyline's own: which field is the user, which the item.

Declared in settings, compiled once. Shapes whose fields are plain names (`$.customer.id`) are read as typed columns,
like our own events; anything else (a list of lines, an envelope, headers, filters) record by record. What becomes of
what is read, and of what cannot be, is `stream.events`' affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from operator import attrgetter, getitem, itemgetter
from typing import Any, Literal, NamedTuple

import jsonpath
import msgspec
from jsonpath.segments import JSONPathChildSegment
from jsonpath.selectors import NameSelector
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.history import ACTION_CODE, weight_table
from stream.formats import TYPES, Format
from stream.kafka.clients import header

OWN = {"user": "$.user", "item": "$.item", "ts": "$.ts", "value": "$.value"}
_TYPES: Mapping[str, Any] = {
    "user": str | int,
    "item": str | int,
    "ts": int | float | str | None,
    "value": int | float | None,
    "action": str | int,
}
_MAY_BE_ABSENT = ("ts", "value")
Getter = Callable[["_Place"], Any]


class ShapeConfig(BaseModel):
    """Where a topic's records say what. A field is `$.path` in the value (JSONPath), `@.path` in a line of `each`,
    `envelope:$.path` around the value, `header:NAME`, `key`, or `=text`, which is always the same.
    """

    model_config = ConfigDict(extra="forbid")

    format: Format = Field(
        default="json",
        description="of values: json (or MessagePack); json-schema, avro, protobuf: as a registry's serializers write",
    )
    user: str = OWN["user"]
    item: str = OWN["item"]
    ts: str = Field(default=OWN["ts"], description="when it was; where nothing is there, the record's own time")
    value: str = Field(default=OWN["value"], description="how many, or which rating; may be absent")
    action: str | None = Field(default=None, description="what was done; default: what the topic is set for")
    actions: dict[str, str] = Field(default={}, description="what the field says -> action")
    others: Literal["refuse", "pass"] = Field(
        default="refuse", description="records with another action: dead letters, or passed over"
    )
    each: str | None = Field(default=None, description="a list in the value, each line of which is an interaction")
    ts_unit: Literal["s", "ms", "us"] | None = Field(default=None, description="of numbers; default: input.ts_unit")
    envelope: Literal["debezium"] | None = None
    operations: list[str] = Field(
        default=["c", "r"], description="of a Debezium envelope: c created, r read, u updated; others are passed over"
    )
    defaults: dict[Literal["user", "item", "ts", "value", "action"], str | int | float] = Field(
        default={}, description="field -> what it is where a record says nothing"
    )

    @field_validator("user", "item", "ts", "value", "action", "each")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            _getter(text)
        return text

    @field_validator("actions")
    @classmethod
    def _known_actions(cls, actions: dict[str, str]) -> dict[str, str]:
        weight_table(dict.fromkeys(actions.values(), 1.0))  # refuses unknown ones
        return actions

    @model_validator(mode="after")
    def _complete(self) -> ShapeConfig:
        fields = (self.user, self.item, self.ts, self.value, self.action or "")
        if self.each is None and any(field.startswith("@") for field in fields):
            raise ValueError('@ is a line of a list: say which by each = "$.…"')
        if self.each is not None and not self.each.startswith("$"):
            raise ValueError(f"each = {self.each!r} is no path in the value: write $.lines[*]")
        if self.envelope is None and any(field.startswith("envelope:") for field in fields):
            raise ValueError('envelope: is what is around a value: say which by envelope = "debezium"')
        if self.action is None and (self.actions or "action" in self.defaults):
            raise ValueError("actions are named, but not where a record says which: set action")
        return self


class Line(NamedTuple):
    """One interaction as a record has it, nothing of it checked. `action`: its code, 0 = the topic's."""

    user: Any
    item: Any
    ts: Any
    value: Any
    action: int


class _Place(NamedTuple):
    """What a field is looked for in."""

    value: Any
    line: Any
    envelope: Any
    record: Any


class Shape:
    """A compiled `ShapeConfig`. actions: those that the topic is set for; any other is not taken."""

    def __init__(self, config: ShapeConfig, actions: Iterable[str]) -> None:
        self._config = config
        self.ts_unit = config.ts_unit
        fields = {"user": config.user, "item": config.item, "ts": config.ts, "value": config.value}
        if config.action is not None:
            fields["action"] = config.action
        taken = {ACTION_CODE[action] for action in actions}
        codes = {**ACTION_CODE, **{said: ACTION_CODE[action] for said, action in config.actions.items()}}
        self._codes = {said: code for said, code in codes.items() if code in taken}
        self._fields = fields
        self._getters = {name: _getter(text) for name, text in fields.items()}
        self._each = _each(config.each) if config.each is not None else None

    @cached_property
    def columns(self) -> Columns | None:
        """How whole batches are read; None where records must be looked at one by one."""
        plain = {name: _names(text) for name, text in self._fields.items()}
        if self._each or self._config.envelope or self._config.defaults or None in plain.values():
            return None
        paths = {name: path for name, path in plain.items() if path is not None}
        if self._config.format in TYPES:
            return Columns(dict, {name: _walker(path, name in _MAY_BE_ABSENT) for name, path in paths.items()})
        kind = _struct(paths)
        get = {name: attrgetter(".".join(map(_attribute, path))) for name, path in paths.items()}
        return Columns(kind, get) if kind is not None else None

    def passes(self, record: Any) -> bool:
        """Whether a record is none by its shape: what a change log leaves behind where a row was deleted."""
        return self._config.envelope is not None and record.value is None

    def code(self, said: Any) -> int:
        """The code of an action; 0 where it is passed over.

        Raises:
            ValueError: it is none of the topic's.
        """
        code = self._codes.get(said if isinstance(said, str) else str(said), 0)
        if not code and self._config.others == "refuse":
            raise ValueError(
                f"the action {str(said)[:64]!r} is none of this topic's: "
                'name it in [input.topics] or in actions, or set others = "pass"'
            )
        return code

    def codes(self, said: Sequence[Any]) -> list[int] | None:
        """The code of each action that is said; None where one is none of ours, or a number."""
        try:
            return [self._codes[one] for one in said]
        except KeyError:
            return None

    def lines(self, value: Any, record: Any) -> Iterator[Line]:
        """The interactions of one record, whose value was decoded to plain objects; none where it is passed over.

        Raises:
            ValueError: it says something else than its shape promises.
        """
        envelope = value
        if self._config.envelope == "debezium":
            envelope = _field(value, "payload") if isinstance(value, dict) and "payload" in value else value
            if envelope is None or _field(envelope, "op") not in self._config.operations:
                return
            value = _field(envelope, "after")
            if value is None:
                raise ValueError("nothing in `after` of the envelope")
        for line in self._each(value) if self._each is not None else (None,):
            place = _Place(value, line, envelope, record)
            said = {name: self._said(name, get, place) for name, get in self._getters.items()}
            code = 0
            if "action" in said:
                code = self.code(said["action"])
                if not code:
                    continue
            yield Line(said["user"], said["item"], said["ts"], said["value"], code)

    def _said(self, name: str, get: Getter, place: _Place) -> Any:
        found = get(place)
        if found is None:
            found = self._config.defaults.get(name)  # type: ignore[call-overload]
        if found is None and name not in _MAY_BE_ABSENT:
            raise ValueError(f"no {name} at {self._fields[name]}")
        return _number(found) if name in _MAY_BE_ABSENT and isinstance(found, str) else found


class Columns(NamedTuple):
    """`kind`: the type that a value is decoded as; `get`: what reads a field of it, where it is that type."""

    kind: type
    get: Mapping[str, Callable[[Any], Any]]


def _getter(text: str) -> Getter:
    """What looks a field up.

    Raises:
        ValueError: it is none of the forms that `ShapeConfig` names.
    """
    if text == "key":
        return lambda place: _text(place.record.key)
    kind, _, rest = text.partition(":")
    if kind == "header" and rest:
        return lambda place: _text(header(place.record.headers, rest))
    if text.startswith("="):
        return lambda place: text[1:]
    where, path = ("envelope", rest) if kind == "envelope" else ("line" if text[:1] == "@" else "value", text)
    if path[:1] not in ("$", "@") or (path[0] == "@") != (where == "line"):
        raise ValueError(f"{text!r} is no field: write $.path, @.path, envelope:$.path, header:NAME, key or =text")
    names = _names(path.replace("@", "$", 1))
    if names is not None:
        return lambda place: _walked(getattr(place, where), names)
    found = _compiled(path.replace("@", "$", 1)).findall
    return lambda place: next(iter(found(getattr(place, where))), None)


def _each(path: str) -> Callable[[Any], Iterable[Any]]:
    """What finds the lines of a value; without JSONPath where they are all those of one list."""
    names = _names(path.removesuffix("[*]")) if path.endswith("[*]") else None
    if names is None:
        return _compiled(path).findall

    def lines(value: Any) -> Iterable[Any]:
        found = _walked(value, names)
        return found if isinstance(found, list) else found.values() if isinstance(found, dict) else ()

    return lines


def _compiled(path: str) -> Any:
    try:
        return jsonpath.compile(path)
    except jsonpath.JSONPathError as error:
        raise ValueError(f"{path!r} is no JSONPath: {str(error).splitlines()[0]}") from error


def _names(path: str) -> tuple[str, ...] | None:
    """The names of a path of nothing but names; None for any other."""
    if not path.startswith("$"):
        return None
    segments = _compiled(path).segments
    names: list[str] = []
    for segment in segments:
        if not isinstance(segment, JSONPathChildSegment) or len(segment.selectors) != 1:
            return None
        selector = segment.selectors[0]
        if not isinstance(selector, NameSelector):
            return None
        names.append(selector.name)
    return tuple(names) or None


def _walked(value: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _walker(names: tuple[str, ...], may_be_absent: bool) -> Callable[[Any], Any]:
    """What reads a field of nested dicts. Raises KeyError, TypeError or AttributeError where it is not there."""
    if may_be_absent:
        return lambda value: _walked(value, names)
    if len(names) == 1:
        return itemgetter(names[0])
    return lambda value: reduce(getitem, names, value)


def _field(value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError("no object where the envelope was expected")
    return value.get(name)


def _number(text: str) -> str | float:
    """A time as a header has it; what is no number is left to be read as ISO 8601."""
    try:
        return float(text)
    except ValueError:
        return text


def _text(value: bytes | None) -> str | None:
    """Raises ValueError where it is none."""
    return None if value is None else value.decode()


def _attribute(name: str) -> str:
    """A name as an attribute of what `_struct` makes: those of other languages are no Python names."""
    return f"f_{name.encode().hex()}"


def _struct(fields: Mapping[str, tuple[str, ...]]) -> type | None:
    """A type that has these fields at these paths: msgspec makes no objects of anything else. None where one field lies
    inside of another.
    """
    tree: dict[str, Any] = {}
    for name, path in fields.items():
        at = tree
        for step in path[:-1]:
            at = at.setdefault(step, {})
            if not isinstance(at, dict):
                return None
        if path[-1] in at:
            return None
        at[path[-1]] = _TYPES[name]
    return _of(tree, "Value")


def _of(tree: Mapping[str, Any], name: str) -> type:
    members: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for step, inner in tree.items():
        kind = _of(inner, step) if isinstance(inner, dict) else inner
        members.append(
            (_attribute(step), kind, None) if kind in (_TYPES["ts"], _TYPES["value"]) else (_attribute(step), kind)
        )
    members.sort(key=len)  # those that may be absent come last
    return msgspec.defstruct(name, members, rename={_attribute(step): step for step in tree}, gc=False)
