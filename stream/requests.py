"""Requests: records that ask for a list now, as a page does while it loads, decoded or told why not.

Not how they are answered: a request waits like a user who was touched, and touches nothing itself. A request is
`{user, correlation_id, n?, context?}`, JSON or MessagePack, keyed by its user; `model.rules.Ask` is what a context may
hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from model.rules import ANYTHING, Ask
from stream.kafka.clients import header
from stream.records import Record, Unreadable, identifier, parse, reason, wrong_key

LARGEST = 64 * 1024
"""Bytes of a request at most: its answer carries what it asked for to another worker, and a page asks for little."""
MOST = 1000
"""Items of a list at most, as in `recommend.n`."""


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What is asked for; `n`: items, None = as many as ever. The answer carries `correlation_id`."""

    correlation_id: str
    n: int | None = None
    context: Ask = ANYTHING


class Asking(NamedTuple):
    """One request: by whom, where it is, and when it came, in ms; `trace`: its W3C traceparent."""

    user: str
    offset: int
    ts: int
    trace: bytes | None
    request: Request


class _Message(msgspec.Struct):
    """As it is written."""

    user: str | int
    correlation_id: str | int
    n: int | None = None
    context: Ask | None = None


_JSON = msgspec.json.Decoder(_Message)


def decode(records: Sequence[Record]) -> tuple[list[Asking], list[Unreadable]]:
    """The requests in `records`, and the records that are none."""
    found: list[Asking] = []
    bad: list[Unreadable] = []
    for record in records:
        try:
            found.append(_asking(record))
        except (ValueError, RecursionError, OverflowError) as error:
            bad.append(Unreadable(record, reason(error)))
    return found, bad


def _asking(record: Record) -> Asking:
    said = parse(record, _JSON, LARGEST, "requests have at most")
    user = identifier(said.user, "user")
    if record.key != user.encode():
        raise ValueError(wrong_key(record.key, user))
    if said.n is not None and not 1 <= said.n <= MOST:
        raise ValueError(f"{said.n} items cannot be asked for, but 1 to {MOST} - at `$.n`")
    request = Request(identifier(said.correlation_id, "correlation_id"), said.n, said.context or ANYTHING)
    trace = header(record.headers, "traceparent") if record.headers else None
    return Asking(user, record.offset, max(0, record.timestamp), trace, request)
