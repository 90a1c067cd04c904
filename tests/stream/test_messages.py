"""The recommendation event: its published schema, its name, its headers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import jsonschema
import msgspec
import pytest

from stream import messages

SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "recommendation.json"
APPLIED = {"click": 7, "view": 3}


def recommendation() -> messages.Recommendation:
    reasons: list[messages.Reason] = [
        messages.InteractionReason("i3", "click", 0.61),
        messages.TasteReason("sci-fi", 0.22),
        messages.PopularReason(0.17),
    ]
    items = [
        messages.RecommendedItem("i7", 1, 0.83, 0.91, reasons, 0.74),
        messages.RecommendedItem("i8", 2, 0.5, 1.0, []),
    ]
    return messages.Recommendation(
        id=messages.name("u42", APPLIED, "click", 2, 7),
        user="u42",
        ts=1_763_800_000_123,
        items=items,
        interest=messages.Interest(0.72, 0.28, 14, 310.5),
        model="fallback",
        catalog_version=128,
        variant="a",
        source=messages.Source("v1", "click", 2, 7, 1_763_800_000_101, APPLIED),
    )


def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == messages.schema(), f"write messages.schema() to {SCHEMA} again"
    jsonschema.Draft202012Validator.check_schema(messages.schema())


@pytest.mark.parametrize("age", [310.5, None])
def test_a_message_follows_the_schema(age: float | None) -> None:
    event = recommendation()
    event = msgspec.structs.replace(event, interest=msgspec.structs.replace(event.interest, profile_age_s=age))
    validator().validate(json.loads(messages.encode(event)))


@pytest.mark.parametrize(
    "change",
    [
        {"id": 7},
        {"ts": "now"},
        {"items": [{"item": "i7"}]},
        {"source": {"state": "v1"}},
        {"interest": None},
    ],
)
def test_the_schema_refuses_what_is_no_recommendation(change: dict[str, object]) -> None:
    said = json.loads(messages.encode(recommendation())) | change
    assert not validator().is_valid(said)


def test_the_schema_refuses_reasons_it_does_not_know() -> None:
    said = json.loads(messages.encode(recommendation()))
    said["items"][0]["reasons"] = [{"type": "hunch", "share": 1.0}]
    assert not validator().is_valid(said)


def test_a_message_is_read_as_it_was_written() -> None:
    event = recommendation()
    assert messages.decode(messages.encode(event)) == event


def test_a_message_from_before_it_was_said_how_much_is_explained_is_read() -> None:
    said = json.loads(messages.encode(recommendation()))
    for item in said["items"]:
        del item["explained"]
    validator().validate(said)
    assert [item.explained for item in messages.decode(json.dumps(said).encode()).items] == [0.0, 0.0]


def test_the_same_user_knowledge_and_trigger_have_the_same_name() -> None:
    name = messages.name("u42", {"click": 7, "view": 3}, "click", 2, 7)
    assert name == messages.name("u42", {"view": 3, "click": 7}, "click", 2, 7)
    assert name == "8e91753ba5617c1b88631992d2919fb4", "names outlive releases: this one must never change"


@pytest.mark.parametrize(
    ("user", "applied", "topic", "partition", "offset"),
    [
        ("u43", {"click": 7, "view": 3}, "click", 2, 7),
        ("u42", {"click": 7, "view": 4}, "click", 2, 7),
        ("u42", {"click": 7}, "click", 2, 7),
        ("u42", {"click": 7, "view": 3}, "view", 2, 7),
        ("u42", {"click": 7, "view": 3}, "click", 1, 7),
        ("u42", {"click": 7, "view": 3}, "click", 2, 8),
    ],
)
def test_any_other_has_another_name(
    user: str, applied: dict[str, int], topic: str, partition: int, offset: int
) -> None:
    assert messages.name(user, applied, topic, partition, offset) != messages.name("u42", APPLIED, "click", 2, 7)


def test_headers_are_cloudevents_in_binary_mode() -> None:
    event = recommendation()
    headers = dict(messages.headers(event, None))
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_id"] == event.id.encode()
    assert headers["ce_type"] == b"eddyline.recommendation.v1"
    assert headers["ce_source"] == b"/eddyline/v1"
    assert headers["ce_subject"] == b"u42"
    assert headers["content-type"] == b"application/json"
    assert datetime.fromisoformat(headers["ce_time"].decode()).timestamp() * 1000 == pytest.approx(event.ts)
    assert "traceparent" not in headers


def test_a_trace_is_passed_on() -> None:
    trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert dict(messages.headers(recommendation(), trace))["traceparent"] == trace
