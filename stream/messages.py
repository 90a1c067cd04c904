"""The recommendation event: its fields, its name, its headers. docs/schemas/recommendation.json is made from here. And
feedback, what others say came of it.

Only the shape of what is said; who is answered, when and with what is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Literal

import msgspec

TYPE = "eddyline.recommendation.v1"


class InteractionReason(msgspec.Struct, frozen=True, tag_field="type", tag="interaction"):
    """An item that the user met and that speaks for the recommended one, and its share of the score."""

    item: str
    action: str
    share: float


class TasteReason(msgspec.Struct, frozen=True, tag_field="type", tag="taste"):
    """A lasting taste that speaks for the item, and its share of the score."""

    taste: str
    share: float


class PopularReason(msgspec.Struct, frozen=True, tag_field="type", tag="popular"):
    """The item is what many people take just now; for a user of whom little is known, this may be all."""

    share: float


Reason = InteractionReason | TasteReason | PopularReason


class RecommendedItem(msgspec.Struct, frozen=True):
    """One item of a list. `propensity`: the probability of this item at this rank, given those above it. `explained`:
    of all that speaks for the item, the share that its reasons account for; what is left is in interactions that are
    not named, or in many together and in none alone. 0 without reasons.
    """

    item: str
    rank: int
    score: float
    propensity: float
    reasons: list[Reason]
    explained: float = 0.0


class Interest(msgspec.Struct, frozen=True):
    """How the two currents were mixed: weights that sum to 1, the window's length, the profile's age."""

    short: float
    long: float
    window: int
    profile_age_s: float | None


class Source(msgspec.Struct, frozen=True):
    """The event that caused the list, and the last offset of each input topic that the list knows of."""

    state: str
    topic: str
    partition: int
    offset: int
    ts: int
    applied: dict[str, int]


class Drawn(msgspec.Struct, frozen=True):
    """What a list was drawn from, where it was: the utilities (nats) of the candidates, descending, of which the first
    `pool` are the pool. Bits, the first candidate the lowest: `new`, those with few interactions; `free`, those that
    could stand at each rank. `at`: the candidate at each rank, from 0; -1 where nothing was drawn. With the
    propensities it is all that another policy's are computed from.
    """

    utilities: list[float]
    pool: int
    new: int
    free: list[int]
    at: list[int]


class Recommendation(msgspec.Struct, frozen=True):
    """A list of recommended items for one user. `ts`: when it was made, in ms. `correlation_id`: that of the request
    that it answers, absent where nobody asked.
    """

    id: str
    user: str
    ts: int
    items: list[RecommendedItem]
    interest: Interest
    model: str
    catalog_version: int
    variant: str
    source: Source
    correlation_id: str | msgspec.UnsetType = msgspec.UNSET
    drawn: Drawn | msgspec.UnsetType = msgspec.UNSET


class Feedback(msgspec.Struct, frozen=True, gc=False):
    """What came of an item of a list. `recommendation`: the id of the list, where that is known; `value`: of what was
    bought; `ts`: in ms, where it is missing the record's.
    """

    user: str
    outcome: Literal["shown", "clicked", "bought", "liked", "disliked", "hidden"]
    item: str | None = None
    recommendation: str | None = None
    value: float | None = None
    ts: int | None = None


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Recommendation).decode


def name(user: str, applied: Mapping[str, int], topic: str, partition: int, offset: int) -> str:
    """The stable id of a list: the same user, state of knowledge and trigger always give the same one."""
    said = "\0".join([user, *(f"{t}={applied[t]}" for t in sorted(applied)), f"{topic}/{partition}/{offset}"])
    return blake2b(said.encode(), digest_size=16).hexdigest()


def seed(id: str) -> int:
    """The 64 bits that whatever is drawn of a list follows from: those of its name, so a list is the same again."""
    return int(id[:16], 16)


def headers(event: Recommendation, trace: bytes | None) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 headers in Kafka's binary mode; a `traceparent` that came with the trigger goes on."""
    time = datetime.fromtimestamp(event.ts / 1000, UTC).isoformat(timespec="milliseconds")
    out = [
        ("ce_specversion", b"1.0"),
        ("ce_id", event.id.encode()),
        ("ce_type", TYPE.encode()),
        ("ce_source", f"/eddyline/{event.source.state}".encode()),
        ("ce_subject", event.user.encode()),
        ("ce_time", time.encode()),
        ("content-type", b"application/json"),
    ]
    if event.correlation_id is not msgspec.UNSET:
        out.append(("ce_correlationid", event.correlation_id.encode()))
    return [*out, ("traceparent", trace)] if trace else out


def schema() -> dict[str, Any]:
    """The JSON Schema of a recommendation, as published in docs/schemas."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "eddyline recommendation",
        **msgspec.json.schema(Recommendation),
    }
