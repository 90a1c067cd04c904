"""Topics as others write them, on a real broker: one of all actions, orders with lines, rows of a change log."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from model.history import ACTION_CODE
from stream.settings import load
from tests.pipeline.harness import ITEMS, Deployment, Raw, Sent, check_windows, some_events

SHAPES = """
[input.topics]
view = "{name}.all"
click = "{name}.all"
buy = "{name}.orders"
rating = "{name}.cdc"

[input.shapes."{name}.all"]
user = "$.visitor.id"
item = "$.page.sku"
ts = "$.at"
action = "$.type"
actions = {{ page-view = "view", tap = "click" }}
others = "pass"

[input.shapes."{name}.orders"]
user = "key"
each = "$.lines[*]"
item = "@.sku"
ts = "$.placed"
ts_unit = "s"

[input.shapes."{name}.cdc"]
envelope = "debezium"
user = "$.customer"
item = "$.product"
ts = "$.rated_at"
"""


@pytest.fixture
def shop(empty: Deployment) -> Deployment:
    """A deployment whose topics have shapes of their own."""
    name = empty.settings.state.name
    file = empty.folder / "eddyline.toml"
    file.write_text(SHAPES.format(name=name))
    environ = {k: v for k, v in empty.environ.items() if "INPUT__TOPICS" not in k}
    empty.environ = environ | {"EDDYLINE_CONFIG": str(file)}
    empty.settings = load(environ=empty.environ)
    return empty.create()


def _written(shop: Deployment, events: list[Sent]) -> list[Raw]:
    """The events as the shop writes them; a purchase of two is one order."""
    topics, out = shop.settings.input.topics, list[Raw]()

    def write(action: str, user: str, value: object, ts: int) -> None:
        out.append((topics[action], user.encode(), json.dumps(value).encode(), ts, []))

    for e in events:
        if e.action == "buy":
            write("buy", e.user, {"placed": e.ts // 1000, "lines": [{"sku": e.item}, {"sku": "i0"}]}, e.ts)
        elif e.action == "rating":
            row = {"customer": e.user, "product": e.item, "rated_at": e.ts}
            write("rating", e.user, {"payload": {"op": "c", "before": None, "after": row, "ts_ms": e.ts}}, e.ts)
            write("rating", e.user, {"payload": {"op": "d", "before": row, "after": None, "ts_ms": e.ts}}, e.ts)
        else:
            kind = {"view": "page-view", "click": "tap"}[e.action]
            value = {"visitor": {"id": e.user, "agent": "?"}, "page": {"sku": e.item}, "at": e.ts, "type": kind}
            write("view", e.user, value, e.ts)
            write("view", e.user, {**value, "type": "login"}, e.ts)
    return out


def test_topics_of_other_shapes_give_the_windows_that_their_events_are(shop: Deployment) -> None:
    events = [replace(e, action="rating") if n % 5 == 0 else e for n, e in enumerate(some_events(600, 30, mixed=True))]
    worker = shop.worker().ready()
    shop.send_raw(_written(shop, events[:300]))
    shop.settled()
    worker.kill()
    shop.worker().ready()
    shop.send_raw(_written(shop, events[300:]))
    shop.settled()
    bought = [replace(e, item="i0") for e in events if e.action == "buy"]
    check_windows(shop, events + bought)
    assert {event.user for event in shop.lists()} == {e.user for e in events}
    assert shop.records(shop.settings.topics.dead_letters) == []


def test_where_only_some_actions_of_a_topic_cause_lists_the_others_cause_none(shop: Deployment) -> None:
    shop.worker(EDDYLINE_EMIT__ON="click").ready()
    events = [Sent(f"u{n}", ITEMS[n].item, ("view", "click")[n % 2], 1_700_000_000_000 + n) for n in range(20)]
    shop.send_raw(_written(shop, events))
    shop.settled()
    assert {event.user for event in shop.lists()} == {e.user for e in events if e.action == "click"}
    windows = shop.windows()
    actions = [windows.read(row)["action"] for rows in windows.users.values() for row in rows.values()]
    assert sorted(np.concatenate(actions).tolist()) == [ACTION_CODE["view"]] * 10 + [ACTION_CODE["click"]] * 10
