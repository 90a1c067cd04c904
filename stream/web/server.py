"""The live page's HTTP side: routes, and who may call them.

Nothing is decided or recommended here: a click becomes a Kafka event, and what is shown is what the
recommendation topic says. The page is meant for the machine it runs on; it serves plain HTTP, bound to
127.0.0.1 unless told otherwise, and takes no request that another site could have caused (see
`allowed_hosts`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiokafka import ConsumerRecord

from model.catalog import Catalog
from stream.errors import BrokerError
from stream.web.link import Link
from stream.web.shelf import Shelf
from stream.web.visitors import Sent, Visitor, Visitors

log = logging.getLogger("eddyline.web")

STATIC = Path(__file__).parent / "static"
BODY_BYTES = 4096
QUERY_CHARS = 100
PAGE_ITEMS = 100
VISITORS = 2000
STREAMS = 200
STREAMS_EACH = 8
SENDING_EACH = 16
HEARTBEAT_S = 15.0
STATUS_EVERY_S = 1.0
SECURITY_HEADERS = {
    "Content-Security-Policy": ("default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Post(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/events`."""

    item: str
    action: str


def own_name(bound: str) -> str:
    """The host part of a URL that reaches `bound`: a wildcard (0.0.0.0, ::) is no name, this machine's own
    is.
    """
    try:
        address = ipaddress.ip_address(bound)
    except ValueError:
        return bound.lower()
    if address.is_unspecified:
        return "127.0.0.1"
    return f"[{address}]" if address.version == 6 else str(address)


def allowed_hosts(bound: str, port: int) -> frozenset[str]:
    """The `Host` headers that are answered: this machine's own names, and the one bound, with our port.

    A site that points its own name at 127.0.0.1 (DNS rebinding) sends that name, so it is refused.
    """
    names = {"127.0.0.1", "localhost", "[::1]", own_name(bound)}
    hosts = {f"{name}:{port}" for name in names}
    return frozenset(hosts | names if port == 80 else hosts)


def same_origin(origin: str | None, host: str, hosts: frozenset[str]) -> bool:
    """Whether a request that changes something was made by our own page (browsers send `Origin` with every
    POST).
    """
    return host in hosts and origin == f"http://{host}"


def bounded(text: str | None, default: int, high: int) -> int:
    """A non-negative number from a query string, at most `high`; `ValueError` says what was expected."""
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError(f"expected a whole number of at most 9 digits, got {text[:20]!r}")
    return min(int(text), high)


def frames(slots: Mapping[str, bytes]) -> bytes:
    """Server-sent events, one a slot (JSON holds no raw line break); a comment keeps an idle stream alive."""
    if not slots:
        return b": idle\n\n"
    return b"".join(b"event: %s\ndata: %s\n\n" % (slot.encode(), data) for slot, data in slots.items())


def reply(body: object, status: int = 200) -> web.Response:
    """A JSON response."""
    return web.Response(body=msgspec.json.encode(body), status=status, content_type="application/json")


def plain(value: object) -> object:
    """A number out of numpy as Python's own; anything else that JSON does not know, as text."""
    item = getattr(value, "item", None)
    return item() if callable(item) else str(value)


def kafka_slot(trouble: BrokerError | None) -> bytes:
    """The `kafka` slot: whether events can be sent and lists received now, and if not, what to check."""
    message = f"{trouble.message}: {trouble.remedy}" if trouble else ""
    return msgspec.json.encode({"ready": trouble is None, "message": message})


class Page:
    """The page server: one more Kafka client, with a browser on the other side.

    `kafka`: keyword arguments that every aiokafka client takes. `inputs`: action -> topic the page may
    publish to. `recommendations`: the topic it follows. `popular`: catalogue indices, most popular first.
    `status`: what the strip at the top shows, asked once a second; any key may be absent. `port` 0 takes a
    free one. The catalogue is the snapshot given: items that come later are shown by their id.
    """

    def __init__(
        self,
        *,
        kafka: Mapping[str, Any],
        inputs: Mapping[str, str],
        recommendations: str,
        catalog: Catalog,
        popular: Sequence[int],
        status: Callable[[], Mapping[str, Any]],
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._inputs = dict(inputs)
        self._shelf = Shelf(catalog, popular)
        self._status = status
        self._host, self._port = host, port
        self._hosts: frozenset[str] = frozenset()
        self._visitors = Visitors(VISITORS)
        self._link = Link(kafka, recommendations, self._inputs.values(), self._on_record, self._on_trouble)
        self._status_slot = b"{}"
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        """Listen, begin to connect to Kafka, and return the page's URL. `OSError` when the port is taken.

        It does not wait for Kafka: the page says what is wrong with it, and recovers, by itself.
        """
        app = web.Application(client_max_size=BODY_BYTES, middlewares=[self._guard])
        app.on_response_prepare.append(self._secure)
        app.add_routes(
            [
                web.get("/", self._index),
                web.get("/health", self._health),
                web.get("/api/status", self._get_status),
                web.get("/api/catalog", self._get_catalog),
                web.get("/api/stream", self._stream),
                web.post("/api/visitor", self._post_visitor),
                web.post("/api/events", self._post_event),
                web.static("/static", STATIC),
            ]
        )
        self._runner = runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError as error:
            await runner.cleanup()
            where = f"{self._host}:{self._port}"
            why = f"the page cannot listen on {where} ({error.strerror}): pick another port"
            raise OSError(error.errno, why) from error
        self._port = runner.addresses[0][1]
        self._hosts = allowed_hosts(self._host, self._port)
        self._tasks = [
            asyncio.create_task(self._link.run(), name="follow Kafka"),
            asyncio.create_task(self._watch_status(), name="watch the demo's status"),
        ]
        for task in self._tasks:
            task.add_done_callback(_report)
        return f"http://{own_name(self._host)}:{self._port}/"

    async def stop(self) -> None:
        """End every stream, leave Kafka, close the port."""
        self._visitors.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._runner is not None:
            await self._runner.cleanup()

    # -- what arrives from Kafka and from the demo ---------------------------------------------------------

    def _on_record(self, record: ConsumerRecord[bytes, bytes]) -> None:
        at = time.monotonic()
        if record.key is None or record.value is None:
            return
        user = record.key.decode(errors="replace")
        content_type = next((v for k, v in record.headers if k == "content-type"), b"").decode(errors="replace")
        try:
            self._visitors.deliver(user, record.value, content_type, at, self._shelf)
        except msgspec.DecodeError as error:
            where = f"{record.topic}/{record.partition}@{record.offset}"
            log.warning("left out an unreadable list at %s: %s", where, error)

    def _on_trouble(self, trouble: BrokerError | None) -> None:
        self._visitors.broadcast("kafka", kafka_slot(trouble))

    def _status_now(self) -> bytes:
        return msgspec.json.encode(self._status(), enc_hook=plain)

    async def _watch_status(self) -> None:
        while True:
            slot = self._status_now()
            if slot != self._status_slot:
                self._status_slot = slot
                self._visitors.broadcast("status", slot)
            await asyncio.sleep(STATUS_EVERY_S)

    # -- who may ask ---------------------------------------------------------------------------------------

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Refuse foreign hosts and origins; every error leaves as `{"error": what to do}`."""
        host = request.headers.get("Host", "")
        if host not in self._hosts:
            return reply({"error": f"this page answers to {', '.join(sorted(self._hosts))} only"}, 421)
        safe = request.method in ("GET", "HEAD")
        if not safe and not same_origin(request.headers.get("Origin"), host, self._hosts):
            return reply({"error": f"only the page itself may post: open http://{host}/"}, 403)
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            if refusal.status < 400:
                raise
            return reply({"error": refusal.text or refusal.reason}, refusal.status)
        except BrokerError as away:
            return reply({"error": f"{away.message}: {away.remedy}"}, 503)

    async def _secure(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(SECURITY_HEADERS)
        static = request.path.startswith("/static/")
        response.headers["Cache-Control"] = "no-cache" if static else "no-store"

    @property
    def _cookie(self) -> str:
        """Cookies know no ports: the name does, so that two pages on one machine do not take each other's."""
        return f"eddyline_{self._port}"

    def _known(self, request: web.Request) -> Visitor | None:
        return self._visitors.get(request.cookies.get(self._cookie, ""))

    def _visitor(self, request: web.Request) -> Visitor:
        visitor = self._known(request)
        if visitor is None:
            raise web.HTTPUnauthorized(text="this page does not know you (was it restarted?): load it again")
        return visitor

    def _welcome(self, response: web.Response) -> web.Response:
        """Make the caller a new visitor."""
        visitor = self._visitors.mint()
        response.set_cookie(self._cookie, visitor.id, httponly=True, samesite="Strict", path="/")
        return response

    # -- routes --------------------------------------------------------------------------------------------

    async def _index(self, request: web.Request) -> web.StreamResponse:
        page = web.Response(body=(STATIC / "index.html").read_bytes(), content_type="text/html", charset="utf-8")
        return page if self._known(request) else self._welcome(page)

    async def _health(self, request: web.Request) -> web.Response:
        """200 while the server runs: without Kafka it waits and says so, and a restart would not help."""
        return reply({"status": "ok", "kafka": "away" if self._link.trouble else "ready"})

    async def _get_status(self, request: web.Request) -> web.Response:
        slots = {"kafka": kafka_slot(self._link.trouble), "demo": self._status_now()}
        return reply({name: msgspec.Raw(slot) for name, slot in slots.items()})

    async def _get_catalog(self, request: web.Request) -> web.Response:
        query = request.query.get("q", "")[:QUERY_CHARS]
        try:
            offset = bounded(request.query.get("offset"), 0, len(self._shelf))
            limit = bounded(request.query.get("limit"), 20, PAGE_ITEMS)
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"offset and limit: {error}") from error
        total, items = self._shelf.search(query, offset, limit)
        return reply({"total": total, "offset": offset, "items": items})

    async def _post_visitor(self, request: web.Request) -> web.Response:
        self._visitors.forget(self._visitor(request))
        return self._welcome(reply({}))

    async def _post_event(self, request: web.Request) -> web.Response:
        """One event to Kafka; answered when the broker has it, with where it lies."""
        arrived, ts = time.monotonic(), time.time_ns() // 1_000_000
        visitor = self._visitor(request)
        post = await self._read_post(request)
        if visitor.sending >= SENDING_EACH:
            raise web.HTTPTooManyRequests(text=f"{SENDING_EACH} of your events are still on their way: wait a moment")
        topic = self._inputs[post.action]
        value = msgspec.json.encode({"user": visitor.id, "item": post.item, "ts": ts})
        visitor.sending += 1
        try:
            partition, offset = await self._link.send(topic, visitor.id.encode(), value)
        finally:
            visitor.sending -= 1
        title = self._shelf.title(post.item)
        visitor.acknowledged(Sent(post.item, title, post.action, ts, topic, partition, offset, arrived))
        return reply({"topic": topic, "partition": partition, "offset": offset}, 202)

    async def _read_post(self, request: web.Request) -> Post:
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="send the event as application/json")
        try:
            post = msgspec.json.decode(await request.read(), type=Post)
        except msgspec.DecodeError as error:
            raise web.HTTPBadRequest(text=f'expected {{"item": ..., "action": ...}}: {error}') from error
        if post.action not in self._inputs:
            raise web.HTTPBadRequest(text=f"unknown action; this page sends {', '.join(self._inputs)}")
        if post.item not in self._shelf:
            raise web.HTTPNotFound(text="no such item in the catalogue: search for it on the page")
        return post

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: every slot once, then each as it changes; the visitor's own lists only."""
        visitor = self._visitor(request)
        if len(visitor.mailboxes) >= STREAMS_EACH or self._visitors.watching >= STREAMS:
            raise web.HTTPServiceUnavailable(text="too many pages are open: close some")
        who = msgspec.json.encode({"id": visitor.id, "actions": list(self._inputs)})
        mailbox = visitor.watch(visitor=who, kafka=kafka_slot(self._link.trouble), status=self._status_slot)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        try:
            await response.prepare(request)
            await response.write(b"retry: 500\n\n")
            while not mailbox.closed:
                await response.write(frames(await mailbox.take(HEARTBEAT_S)))
        except ConnectionResetError:
            pass  # the browser left
        finally:
            visitor.mailboxes.discard(mailbox)
        return response


def _report(task: asyncio.Task[None]) -> None:
    """A background task never ends by itself: if one does, say so loudly."""
    if not task.cancelled() and task.exception() is not None:
        log.critical("the page's task %r ended: restart the page", task.get_name(), exc_info=task.exception())
