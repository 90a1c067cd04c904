"""Requests: what is one, that each waits for an answer of its own, and that it survives a handover."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import msgpack
import pytest
from faust.types import TP

from model.history import Histories
from model.rules import Ask, PriceRange
from stream.answers.progress import Progress, Trigger, Waiting
from stream.lists.desk import Desk
from stream.lists.interests import Interests, pack, unpack
from stream.process.monitor import Monitor
from stream.requests import LARGEST, Asking, Request, decode

AT = TP("request", 1)


@dataclass(frozen=True)
class Record:
    """As much of a Kafka record as is read."""

    value: bytes | None
    key: bytes | None = b"u1"
    offset: int = 7
    timestamp: int = 1_700_000_000_000
    timestamp_type: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)


def said(**fields: object) -> bytes:
    return json.dumps({"user": "u1", "correlation_id": "c1", **fields}).encode()


def test_a_request_is_json_or_messagepack_and_says_who_asks_for_what() -> None:
    context = {"category": "film", "exclude": ["i1"], "price": {"max": 20}, "item": "i2"}
    wanted = Ask(category="film", exclude=("i1",), price=PriceRange(max=20), item="i2")
    packed = msgpack.packb({"user": "u1", "correlation_id": 12, "n": 5, "context": context, "page": "/"})
    trace = [("traceparent", b"00-1")]
    assert decode([Record(said()), Record(said(n=5, context=context), offset=8), Record(packed, headers=trace)]) == (
        [
            Asking("u1", 7, 1_700_000_000_000, None, Request("c1")),
            Asking("u1", 8, 1_700_000_000_000, None, Request("c1", 5, wanted)),
            Asking("u1", 7, 1_700_000_000_000, b"00-1", Request("12", 5, wanted)),
        ],
        [],
    )


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(None), "the value is null"),
        (Record(b"["), "Expected `object`, got `array`"),
        (Record(b'{"user": "u1"}'), "missing required field `correlation_id`"),
        (Record(said(correlation_id="")), "empty correlation_id - at `$.correlation_id`"),
        (Record(said(user="u2")), "the record's key b'u1' is not its user 'u2'"),
        (Record(said(), key=None), "the record has no key"),
        (Record(said(n=0)), "0 items cannot be asked for, but 1 to 1000 - at `$.n`"),
        (Record(said(n="5")), "Expected `int | null`, got `str` - at `$.n`"),
        (Record(said(context={"categry": "film"})), "unknown field `categry` - at `$.context`"),
        (Record(said(context={"categories": "film"})), "Expected `array`, got `str` - at `$.context.categories`"),
        (Record(said(context={"price": {"least": 2}})), "unknown field `least` - at `$.context.price`"),
        (Record(said(user="u" * LARGEST)), f"are more than requests have at most {LARGEST}"),
    ],
)
def test_what_is_no_request_is_told_why_and_stops_no_other(record: Record, why: str) -> None:
    found, bad = decode([Record(said()), record, Record(said())])
    assert len(found) == 2
    assert [b.record for b in bad] == [record]
    assert why in bad[0].reason


def trigger(offset: int, request: Request | None = None) -> Trigger:
    return Trigger(AT.topic, offset, 1000, 0.0, None, request=request)


def names(users: list[Waiting]) -> list[tuple[str, str | None]]:
    return [(w.user, w.request.correlation_id if w.request else None) for w in users]


def waiting() -> tuple[Progress, int]:
    """Two requests of one user, and an event of the same user and of two others."""
    progress = Progress()
    events = progress.applied(TP("view", 1), 10, 0)
    for user in "abc":
        progress.wait(events, 1, user, trigger(3))
    asking = progress.applied(AT, 20, 18)
    progress.ask(asking, 1, "a", trigger(18, Request("one")))
    progress.ask(asking, 1, "a", trigger(19, Request("two")))
    return progress, asking


def test_every_request_has_an_answer_of_its_own_before_those_who_did_not_ask() -> None:
    progress, _ = waiting()
    assert progress.waiting == 5
    first = progress.take(3)
    assert names(first) == [("a", "one"), ("a", "two"), ("a", None)]
    assert progress.conflated == 0
    for w in first[:1]:
        progress.done(w.ticket)
    assert progress.committable() == {}
    for w in [*first[1:], *progress.take(9)]:
        progress.done(w.ticket)
    assert progress.committable() == {AT: 20, TP("view", 1): 10}


def test_requests_starve_nobody() -> None:
    progress, asking = waiting()
    for n in range(20):
        progress.ask(asking, 1, "z", trigger(20 + n, Request(str(n))))
    assert [request is None for _, request in names(progress.take(4))] == [False, False, True, True]
    # nobody else waits then: all are for those who ask
    assert [request is None for _, request in names(progress.take(6))] == [False] * 5 + [True]


def test_a_request_waits_for_no_silence_to_end_and_goes_with_its_partition() -> None:
    progress, _ = waiting()
    progress.hush(1)
    taken = progress.take(9)
    assert names(taken) == [("a", "one"), ("a", "two")]
    progress.give_back(taken[1:])
    assert names(progress.take(9)) == [("a", "two")]
    progress.give_back(taken)
    progress.forget({1})
    assert (progress.take(9), progress.settled, progress.committable()) == ([], True, {})


def handed(*asked: Request | None) -> Interests:
    users = [Waiting(2, f"u{i}", 0, trigger(i, request)) for i, request in enumerate(asked)]
    return Interests(users, Histories.empty(len(users)), [0] * len(users), [{"view": i} for i in range(len(users))])


def test_a_request_comes_out_of_a_handover_as_it_went_in() -> None:
    asked = (None, Request("c", 3, Ask(only=("i1",), price=PriceRange(min=1.5))), Request("d"))
    got = unpack(pack(handed(*asked), range(3)), 9.0)
    assert [t.request for _, t in got] == list(asked)
    assert [t.offset for _, t in got] == [0, 1, 2]


def test_where_nobody_asks_a_handover_is_as_it_was() -> None:
    """Workers that know of no requests read it."""
    assert msgpack.unpackb(pack(handed(None), range(1)))[0] == 1
    assert msgpack.unpackb(pack(handed(Request("c")), range(1)))[0] == 2


def test_a_desk_answers_a_request_though_the_row_is_no_news() -> None:
    desk = Desk(1.0, Monitor(), lambda: None)
    desk.owned = {2}
    event, request = handed(None), handed(Request("c"))
    for offset, some in enumerate((event, event, request, request)):
        desk.batch(TP("interests", 2), [Record(pack(some, range(1)), offset=offset)])
    assert names(desk.progress.take(9)) == [("u0", "c"), ("u0", "c"), ("u0", None)]
