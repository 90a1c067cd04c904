"""Who is watching, and what each of them is shown: pure state, given times and messages.

This module knows neither HTTP nor Kafka. What a browser shows is a handful of *slots* (`SLOTS`), each a whole
snapshot, so a slow browser needs no queue: the newest value of a slot replaces the one it has not taken yet,
and a browser that comes back is sent every slot once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from stream.web.shelf import Shelf

SLOTS = ("visitor", "kafka", "status", "window", "list")
WINDOW_EVENTS = 32
LISTS_KEPT = 16
ITEMS_SHOWN = 50
REASONS_SHOWN = 4


class Reason(msgspec.Struct):
    """Why an item is in the list: an interaction (`item`, `action`), a taste (`taste`), or that it is popular."""

    type: str
    item: str | None = None
    action: str | None = None
    taste: str | None = None
    share: float = 0.0


class Recommended(msgspec.Struct):
    """One recommended item."""

    item: str
    rank: int
    score: float = 0.0
    reasons: list[Reason] = []


class Interest(msgspec.Struct):
    """How the two currents were mixed; `window` counts the interactions in the short-term window."""

    short: float
    long: float
    window: int = 0
    profile_age_s: float | None = None


class Source(msgspec.Struct):
    """The state a list was made from: `applied` is the user's last applied offset of each input topic."""

    applied: dict[str, int] = {}


class Recommendation(msgspec.Struct):
    """What the page reads of a recommendation message; it ignores every field that it does not show."""

    user: str
    ts: int
    items: list[Recommended]
    interest: Interest | None = None
    model: str = ""
    catalog_version: int | None = None
    source: Source = msgspec.field(default_factory=Source)


def decode(value: bytes, content_type: str = "application/json") -> Recommendation:
    """A recommendation from its bytes; `msgspec.DecodeError` names the path of what does not fit."""
    if "msgpack" in content_type:
        return msgspec.msgpack.decode(value, type=Recommendation)
    return msgspec.json.decode(value, type=Recommendation)


def list_view(recommendation: Recommendation, shelf: Shelf) -> dict[str, Any]:
    """The `list` slot: a recommendation with its titles. Reason types the page cannot draw are left out."""

    def reason(r: Reason) -> dict[str, Any] | None:
        if r.type == "interaction" and r.item is not None:
            title = shelf.title(r.item)
            return {"type": r.type, "item": r.item, "title": title, "action": r.action, "share": r.share}
        if r.type == "taste" and r.taste is not None:
            return {"type": r.type, "taste": r.taste, "share": r.share}
        if r.type == "popular":
            return {"type": r.type, "share": r.share}
        return None

    return {
        "ts": recommendation.ts,
        "model": recommendation.model,
        "catalog_version": recommendation.catalog_version,
        "interest": recommendation.interest,
        "items": [
            {
                **shelf.card(it.item),
                "rank": it.rank,
                "score": it.score,
                "reasons": [view for r in it.reasons[:REASONS_SHOWN] if (view := reason(r)) is not None],
            }
            for it in recommendation.items[:ITEMS_SHOWN]
        ],
    }


@dataclass(slots=True)
class Sent:
    """One event that the broker acknowledged, at (`topic`, `partition`, `offset`).

    `ts` is wall-clock milliseconds (what the event says), `arrived` monotonic seconds (when the browser's
    request came in), and `ms` the time from then to the first list that covers the event; None = still under
    way.
    """

    item: str
    title: str
    action: str
    ts: int
    topic: str
    partition: int
    offset: int
    arrived: float
    ms: float | None = None


def latency_ms(event: Sent, lists: Iterable[tuple[float, Mapping[str, int]]]) -> float | None:
    """Milliseconds from the event's arrival to the first of `lists` (arrival time, applied) that covers it.

    A list covers an event when its state has applied the event's topic up to its offset or further: a user's
    events of one topic share a partition, so offsets compare. None when no list does yet.
    """
    for at, applied in lists:
        if at >= event.arrived and applied.get(event.topic, -1) >= event.offset:
            return round((at - event.arrived) * 1000, 1)
    return None


class Mailbox:
    """What one connected browser has not been sent yet: at most one value a slot, the newest."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._changed = asyncio.Event()
        self.closed = False

    def put(self, slot: str, payload: bytes) -> None:
        """Replace the slot's value; the slot goes last in the order of delivery."""
        self._values.pop(slot, None)
        self._values[slot] = payload
        self._changed.set()

    def close(self) -> None:
        """No more is taken: the browser is to connect anew."""
        self.closed = True
        self._changed.set()

    async def take(self, timeout_s: float) -> dict[str, bytes]:
        """Everything that waits, oldest first; empty when nothing came within `timeout_s`."""
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return {}
        self._changed.clear()
        taken, self._values = self._values, {}
        return taken


@dataclass(slots=True)
class Visitor:
    """One visitor: the events sent, the newest list, and the browsers that watch."""

    id: str
    sending: int = 0
    events: deque[Sent] = field(default_factory=lambda: deque(maxlen=WINDOW_EVENTS))
    lists: deque[tuple[float, Mapping[str, int]]] = field(default_factory=lambda: deque(maxlen=LISTS_KEPT))
    newest: bytes | None = None
    mailboxes: set[Mailbox] = field(default_factory=set)

    def acknowledged(self, event: Sent) -> None:
        """The broker has the event. Its list may be here already: acknowledgement and list race."""
        self.events.append(event)
        self._settle()

    def received(self, at: float, recommendation: Recommendation, shelf: Shelf) -> None:
        """A list came, at monotonic time `at`."""
        self.lists.append((at, recommendation.source.applied))
        self.newest = payload = msgspec.json.encode(list_view(recommendation, shelf))
        self._publish("list", payload)
        self._settle()

    def watch(self, **shared: bytes) -> Mailbox:
        """A mailbox for one more browser, holding every slot as it stands (`shared` = those not the
        visitor's).
        """
        mailbox = Mailbox()
        for slot, payload in shared.items():
            mailbox.put(slot, payload)
        mailbox.put("window", self.window_view())
        if self.newest is not None:
            mailbox.put("list", self.newest)
        self.mailboxes.add(mailbox)
        return mailbox

    def window_view(self) -> bytes:
        """The `window` slot: the visitor's events, oldest first."""
        shown = ("item", "title", "action", "ts", "topic", "partition", "offset", "ms")
        return msgspec.json.encode([{name: getattr(e, name) for name in shown} for e in self.events])

    def _settle(self) -> None:
        for event in self.events:
            if event.ms is None:
                event.ms = latency_ms(event, self.lists)
        self._publish("window", self.window_view())

    def _publish(self, slot: str, payload: bytes) -> None:
        for mailbox in self.mailboxes:
            mailbox.put(slot, payload)


class Visitors:
    """The visitors this server named, and no others: an id that it did not mint is nobody.

    At most `limit` are kept; past that the one idle for longest goes (never one with a browser watching).
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_id: OrderedDict[str, Visitor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def watching(self) -> int:
        """Connected browsers."""
        return sum(len(visitor.mailboxes) for visitor in self._by_id.values())

    def mint(self) -> Visitor:
        """A new visitor. The id is the key to that visitor's lists: 64 random bits, not to be guessed."""
        visitor = Visitor(f"visitor-{secrets.token_hex(8)}")
        self._by_id[visitor.id] = visitor
        if len(self._by_id) > self._limit:
            idle = next((v.id for v in self._by_id.values() if not v.mailboxes and v is not visitor), None)
            if idle is not None:
                del self._by_id[idle]
        return visitor

    def get(self, visitor_id: str) -> Visitor | None:
        """The visitor of that id, who now counts as the most recent one."""
        visitor = self._by_id.get(visitor_id)
        if visitor is not None:
            self._by_id.move_to_end(visitor_id)
        return visitor

    def deliver(self, user: str, value: bytes, content_type: str, at: float, shelf: Shelf) -> None:
        """A list of `user`, come at monotonic time `at`: to that visitor's browsers and no others.

        Everyone else's is dropped unread. Raises `msgspec.DecodeError` where a visitor's own cannot be read.
        """
        visitor = self._by_id.get(user)
        if visitor is None:
            return
        recommendation = decode(value, content_type)
        if recommendation.user == user:
            visitor.received(at, recommendation, shelf)

    def forget(self, visitor: Visitor) -> None:
        """The visitor starts over: browsers still watching are sent away to come back as someone else."""
        self._by_id.pop(visitor.id, None)
        for mailbox in visitor.mailboxes:
            mailbox.close()

    def broadcast(self, slot: str, payload: bytes) -> None:
        """A slot that is the same for everyone."""
        for visitor in self._by_id.values():
            for mailbox in visitor.mailboxes:
                mailbox.put(slot, payload)

    def close(self) -> None:
        """The server stops: every stream ends."""
        for visitor in self._by_id.values():
            for mailbox in visitor.mailboxes:
                mailbox.close()
