"""The live page without a broker: its pure parts, and its HTTP side while Kafka is away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from model.catalog import Catalog, Item
from stream.errors import BrokerUnavailable, TopicError
from stream.web import Page
from stream.web.link import explain
from stream.web.server import allowed_hosts, bounded, frames, own_name, same_origin
from stream.web.shelf import Shelf
from stream.web.visitors import Mailbox, Sent, Visitor, Visitors, decode, latency_ms, list_view

CATALOG = Catalog.build(
    {
        "a": Item("a", "Amélie", categories=["Comedy", "Romance"]),
        "b": Item("b", "Brazil", categories=["Sci-Fi"]),
        "c": Item("c", "Contact", categories=["Sci-Fi", "Drama"]),
        "gone": Item("gone", "Gone", in_stock=False),
    },
    version=7,
)
SHELF = Shelf(CATALOG, popular=[2, 0])


def message(user: str, applied: dict[str, int], items: list[dict[str, Any]] | None = None) -> bytes:
    """A recommendation message with fields that the page shows, and some that it does not."""
    items = items if items is not None else [{"item": "b", "rank": 1, "score": 0.5, "propensity": 1.0}]
    source = {"state": "v1", "topic": "click", "partition": 0, "offset": 3, "applied": applied}
    interest = {"short": 0.7, "long": 0.3, "window": 2, "profile_age_s": 31.5}
    more = {"interest": interest, "model": "gpt@3", "catalog_version": 7, "source": source, "variant": "a"}
    return json.dumps({"id": "x", "user": user, "ts": 1, "items": items, **more}).encode()


def sent(offset: int, arrived: float, topic: str = "click") -> Sent:
    return Sent("b", "Brazil", "click", 1_000, topic, 0, offset, arrived)


def titles(found: tuple[int, list[dict[str, Any]]]) -> list[Any]:
    return [card["title"] for card in found[1]]


# -- the shelf ---------------------------------------------------------------------------------------------


def test_shelf_lists_the_popular_first_then_the_rest_each_once() -> None:
    assert titles(SHELF.search("", 0, 10)) == ["Contact", "Amélie", "Brazil"]
    assert SHELF.search("", 1, 1) == (3, [SHELF.card("a")])


def test_an_item_out_of_stock_is_not_listed_but_keeps_its_title() -> None:
    assert SHELF.search("gone", 0, 10) == (0, [])
    assert "gone" in SHELF
    assert SHELF.title("gone") == "Gone"
    assert SHELF.title("newer than this snapshot") == "newer than this snapshot"


@pytest.mark.parametrize(
    ("query", "expected"),
    [("AMELIE", ["Amélie"]), ("amé rom", ["Amélie"]), ("sci-fi", ["Contact", "Brazil"]), ("sci-fi rom", [])],
)
def test_search_wants_every_word_and_ignores_case_and_accents(query: str, expected: list[str]) -> None:
    assert titles(SHELF.search(query, 0, 10)) == expected


# -- who may ask -------------------------------------------------------------------------------------------


def test_only_our_own_names_with_our_port_are_answered() -> None:
    hosts = allowed_hosts("127.0.0.1", 8000)
    assert hosts == {"127.0.0.1:8000", "localhost:8000", "[::1]:8000"}
    assert allowed_hosts("0.0.0.0", 8000) == hosts, "a wildcard is no name"
    assert "192.168.1.5:8000" in allowed_hosts("192.168.1.5", 8000)
    assert "localhost" in allowed_hosts("::1", 80), "browsers leave the default port out"


@pytest.mark.parametrize(
    ("bound", "name"), [("0.0.0.0", "127.0.0.1"), ("::", "127.0.0.1"), ("::1", "[::1]"), ("Box", "box")]
)
def test_the_url_has_a_name_that_can_be_visited(bound: str, name: str) -> None:
    assert own_name(bound) == name


@pytest.mark.parametrize(
    ("origin", "host", "ours"),
    [
        ("http://localhost:8000", "localhost:8000", True),
        ("http://127.0.0.1:8000", "localhost:8000", False),
        ("http://localhost:9000", "localhost:8000", False),
        ("https://localhost:8000", "localhost:8000", False),
        ("http://evil.example:8000", "evil.example:8000", False),
        ("null", "localhost:8000", False),
        (None, "localhost:8000", False),
    ],
)
def test_a_post_comes_from_the_page_itself(origin: str | None, host: str, ours: bool) -> None:
    assert same_origin(origin, host, allowed_hosts("127.0.0.1", 8000)) is ours


def test_numbers_of_a_query_are_bounded() -> None:
    assert [bounded(None, 20, 100), bounded("7", 20, 100), bounded("999", 20, 100)] == [20, 7, 100]
    for text in ("-1", "1.5", "x", "9" * 10, "٣"):
        with pytest.raises(ValueError, match="whole number"):
            bounded(text, 20, 100)


def test_a_frame_a_slot_and_a_comment_when_idle() -> None:
    assert frames({"list": b"{}", "window": b"[]"}) == b"event: list\ndata: {}\n\nevent: window\ndata: []\n\n"
    assert frames({}).startswith(b":")


# -- visitors ----------------------------------------------------------------------------------------------


def test_latency_ends_with_the_first_list_that_covers_the_event() -> None:
    #  time s   1.00        1.01      1.02      1.05
    #           event @5    applied 4 applied 5 applied 6
    lists = [(1.01, {"click": 4}), (1.02, {"click": 5}), (1.05, {"click": 6})]
    assert latency_ms(sent(5, 1.0), lists) == 20.0
    assert latency_ms(sent(6, 1.0), lists) == 50.0, "one list may answer several events"
    assert latency_ms(sent(7, 1.0), lists) is None


def test_another_topics_offset_covers_nothing() -> None:
    assert latency_ms(sent(5, 1.0, topic="buy"), [(1.1, {"click": 99})]) is None


def test_a_list_from_before_the_event_does_not_answer_it() -> None:
    # After a topic is recreated its offsets begin anew, so an old list may seem to cover a new event.
    assert latency_ms(sent(5, 1.0), [(0.9, {"click": 99})]) is None


def test_a_list_that_overtakes_the_acknowledgement_counts() -> None:
    visitor = Visitor("visitor-1")
    visitor.received(1.03, decode(message("visitor-1", {"click": 5})), SHELF)
    visitor.acknowledged(sent(5, 1.0))
    assert [event.ms for event in visitor.events] == [30.0]


def test_the_first_answer_stands() -> None:
    visitor = Visitor("visitor-1")
    visitor.acknowledged(sent(5, 1.0))
    for at in (1.03, 1.5):
        visitor.received(at, decode(message("visitor-1", {"click": 5})), SHELF)
    assert visitor.events[0].ms == 30.0


def test_a_slow_browser_gets_the_newest_of_each_slot() -> None:
    async def scenario() -> None:
        mailbox = Mailbox()
        for n in range(1000):
            mailbox.put("list", b"%d" % n)
            mailbox.put("window", b"w%d" % n)
        assert await mailbox.take(1) == {"list": b"999", "window": b"w999"}
        assert await mailbox.take(0.01) == {}, "nothing new, so a heartbeat"

    asyncio.run(scenario())


def test_lists_go_to_their_own_visitor_only() -> None:
    async def scenario() -> None:
        visitors = Visitors(limit=10)
        one, other = visitors.mint(), visitors.mint()
        boxes = [visitor.watch() for visitor in (one, other)]
        for box in boxes:
            await box.take(1)
        visitors.deliver(one.id, message(one.id, {}), "application/json", 1.0, SHELF)
        visitors.deliver("u42", b"not even JSON", "", 1.0, SHELF)  # a stranger's list is never opened
        visitors.deliver(other.id, message(one.id, {}), "", 1.0, SHELF)  # key and value disagree
        assert "list" in await boxes[0].take(1)
        assert await boxes[1].take(0.01) == {}

    asyncio.run(scenario())


def test_a_browser_that_comes_back_is_sent_everything_once() -> None:
    async def scenario() -> None:
        visitor = Visitor("visitor-1")
        visitor.acknowledged(sent(5, 1.0))
        visitor.received(1.03, decode(message("visitor-1", {"click": 5})), SHELF)
        slots = await visitor.watch(kafka=b"{}").take(1)
        assert list(slots) == ["kafka", "window", "list"]
        assert msgspec.json.decode(slots["window"])[0]["ms"] == 30.0

    asyncio.run(scenario())


def test_an_id_that_was_not_minted_here_is_nobody() -> None:
    visitors = Visitors(limit=10)
    assert visitors.get("visitor-0123456789abcdef") is None
    assert visitors.get("u42") is None


def test_the_visitor_idle_for_longest_goes_but_never_one_who_watches() -> None:
    visitors = Visitors(limit=2)
    first, second = visitors.mint(), visitors.mint()
    first.watch()
    third = visitors.mint()
    assert [visitors.get(v.id) is not None for v in (first, second, third)] == [True, False, True]


def test_starting_over_ends_the_streams_of_who_one_was() -> None:
    visitors = Visitors(limit=2)
    visitor = visitors.mint()
    mailbox = visitor.watch()
    visitors.forget(visitor)
    assert mailbox.closed
    assert visitors.get(visitor.id) is None


# -- messages ----------------------------------------------------------------------------------------------


def test_a_list_shows_titles_and_the_reasons_that_can_be_drawn() -> None:
    reasons = [
        {"type": "interaction", "item": "a", "action": "click", "share": 0.6},
        {"type": "taste", "taste": "sci-fi", "share": 0.2},
        {"type": "popular", "share": 0.1},
        {"type": "weather", "share": 0.1},
    ]
    item = {"item": "b", "rank": 1, "score": 0.5, "reasons": reasons}
    view = list_view(decode(message("u", {}, [item])), SHELF)
    assert view["items"][0]["title"] == "Brazil"
    assert view["items"][0]["reasons"] == [
        {"type": "interaction", "item": "a", "title": "Amélie", "action": "click", "share": 0.6},
        {"type": "taste", "taste": "sci-fi", "share": 0.2},
        {"type": "popular", "share": 0.1},
    ]


def test_a_list_is_cut_to_what_a_page_can_show() -> None:
    endless = [{"item": f"i{n}", "rank": n} for n in range(1000)]
    assert len(list_view(decode(message("u", {}, endless)), SHELF)["items"]) == 50


def test_messages_may_be_json_or_messagepack() -> None:
    packed = msgspec.msgpack.encode(json.loads(message("u", {"click": 5})))
    assert decode(packed, "application/msgpack") == decode(message("u", {"click": 5}), "application/json")


def test_what_cannot_be_read_is_named_by_its_path() -> None:
    with pytest.raises(msgspec.DecodeError, match=r"\$\.items\[0\]\.rank"):
        decode(message("u", {}, [{"item": "b", "rank": "first"}]))


# -- HTTP while Kafka is away ------------------------------------------------------------------------------

Visit = Callable[[aiohttp.ClientSession, str, str], Awaitable[None]]


def nobody_listens() -> str:
    """An address where nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@asynccontextmanager
async def started(address: str) -> AsyncIterator[str]:
    page = Page(
        kafka={"bootstrap_servers": address},
        inputs={"click": "click"},
        recommendations="eddyline.recommendations",
        catalog=CATALOG,
        popular=[2, 0],
        status=lambda: {"phase": "live", "rates": {"p99_ms": float("nan")}},
    )
    try:
        yield await page.start()
    finally:
        await page.stop()


def visit(scenario: Visit) -> None:
    """Run the scenario with (a session that keeps cookies, the page's URL, the address of no broker)."""

    async def run() -> None:
        address = nobody_listens()
        async with started(address) as url:
            jar = aiohttp.CookieJar(unsafe=True)  # "unsafe" = keeps cookies of hosts that are numbers
            async with aiohttp.ClientSession(cookie_jar=jar) as session:
                await scenario(session, url, address)

    asyncio.run(run())


async def post(session: aiohttp.ClientSession, url: str, body: Any, **headers: str) -> tuple[int, str]:
    """(status, error) of an event as the page would send it, but for `headers`."""
    sent_headers = {"Origin": url.rstrip("/"), "Content-Type": "application/json"} | headers
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with session.post(url + "api/events", data=data, headers=sent_headers) as answer:
        return answer.status, (await answer.json())["error"]


CLICK = {"item": "b", "action": "click"}


def test_every_answer_carries_the_security_headers_and_the_cookie_is_closed() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        for path in ("", "static/app.js", "api/status", "nowhere"):
            async with session.get(url + path) as answer:
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'self'" in policy and "unsafe" not in policy
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "no-referrer"
                if not path:
                    cookie = next(iter(answer.cookies.values()))
                    assert cookie["httponly"] and cookie["samesite"] == "Strict"
                    assert cookie.value.startswith("visitor-")

    visit(scenario)


def test_the_page_itself_has_no_inline_script_or_style() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        async with session.get(url) as answer:
            html = await answer.text()
        assert "<style" not in html and " style=" not in html and " onclick=" not in html
        assert html.count("<script") == html.count('<script src="/static/')
        async with session.get(url + "static/app.js") as answer:
            script = await answer.text()
        for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert sink not in script

    visit(scenario)


def test_a_foreign_host_or_origin_is_refused() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        await session.get(url)
        port = url.rstrip("/").rsplit(":", 1)[1]
        for path in ("", "health", "api/catalog", "api/stream"):
            async with session.get(url + path, headers={"Host": f"evil.example:{port}"}) as answer:
                assert answer.status == 421, path
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        assert (await post(session, url, CLICK, **rebound))[0] == 421
        assert (await post(session, url, CLICK, Origin="http://evil.example"))[0] == 403
        assert (await post(session, url, CLICK, Origin="null"))[0] == 403
        async with session.post(url + "api/visitor") as answer:  # no Origin at all
            assert answer.status == 403

    visit(scenario)


def test_an_event_is_checked_before_it_goes_anywhere() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        assert (await post(session, url, CLICK))[0] == 401, "no cookie yet"
        await session.get(url)
        for body, status in (
            ({"item": "b", "action": "steal"}, 400),
            ({"item": "nothing", "action": "click"}, 404),
            ({"item": "b"}, 400),
            ({"item": ["b"], "action": "click"}, 400),
            (CLICK | {"user": "u42"}, 400),
            (b"{", 400),
            (CLICK | {"item": "b" * 5000}, 413),
        ):
            assert (await post(session, url, body))[0] == status, body
        assert (await post(session, url, CLICK, **{"Content-Type": "text/plain"}))[0] == 415

    visit(scenario)


def test_without_kafka_an_event_gets_503_that_says_what_to_check() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        await session.get(url)
        async with asyncio.timeout(10):
            while "no answer" not in (answer := await post(session, url, CLICK))[1]:
                assert answer[0] == 503
                await asyncio.sleep(0.05)
        assert answer[0] == 503
        assert address in answer[1] and "eddyline broker status" in answer[1]
        async with session.get(url + "health") as health:
            assert (health.status, await health.json()) == (200, {"status": "ok", "kafka": "away"})

    visit(scenario)


def test_a_stream_opens_with_every_slot_and_ends_when_the_visitor_starts_over() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        async with session.get(url + "api/stream") as answer:
            assert answer.status == 401
        await session.get(url)
        async with session.get(url + "api/stream") as stream:
            assert stream.content_type == "text/event-stream"
            lines = [(await stream.content.readline()).decode().strip() for _ in range(14)]
            slots = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
            assert slots == ["visitor", "kafka", "status", "window"]
            async with session.post(url + "api/visitor", headers={"Origin": url.rstrip("/")}) as answer:
                assert answer.status == 200
            async with asyncio.timeout(5):
                await stream.read()  # to its end

    visit(scenario)


def test_the_catalogue_is_paged_and_bounded() -> None:
    async def scenario(session: aiohttp.ClientSession, url: str, address: str) -> None:
        async with session.get(url + "api/catalog?q=sci-fi&limit=1") as answer:
            page = await answer.json()
        assert (page["total"], titles((0, page["items"]))) == (2, ["Contact"])
        async with session.get(url + "api/catalog?limit=-5") as answer:
            assert answer.status == 400
        async with session.get(url + "static/../server.py") as answer:
            assert answer.status == 404

    visit(scenario)


# -- what is wrong with Kafka ------------------------------------------------------------------------------


def test_a_failure_is_explained_for_who_looks_at_the_page() -> None:
    gone = explain(TimeoutError(), "box:9092", ["click"])
    assert isinstance(gone, BrokerUnavailable)
    assert gone.message == "no answer from Kafka at box:9092"
    missing = TopicError("Kafka at box:9092 lacks click", "create it: `eddyline topics`")
    assert explain(missing, "box:9092", ["click"]) is missing
