"""The page over the real thing: a broker, a worker process that serves, some history, and the page's own server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from model.catalog import Catalog, Item
from stream.dev.broker import LocalBroker
from stream.web.server import Page
from tests.pipeline.harness import ITEMS, Deployment, Worker, some_events

HOSTILE = Item("hostile", "<img src=x onerror=\"document.title = 'taken over'\">", categories=["<b>bold</b>"])
CATALOGUE = [*ITEMS, HOSTILE]
HISTORY = some_events(600, users=30)


@pytest.fixture(scope="session")
def live_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a page whose clicks a worker answers."""
    folder = tmp_path_factory.mktemp("system")
    broker = LocalBroker(folder / "broker")
    deployment = Deployment(broker.start(), "page", folder, folder / "cache").create(CATALOGUE)
    try:
        worker = deployment.worker().ready()
        # Up to now: a visitor's clicks happen now, and would make what is much older fade.
        deployment.send(some_events(600, users=30, start=int(time.time() * 1000) - 700_000))
        deployment.settled()
        with serving(page_of(deployment, worker)) as url:
            yield url
        assert worker.stop() == 0
    finally:
        deployment.close()
        broker.stop()


def page_of(deployment: Deployment, worker: Worker) -> Page:
    """A page on the deployment's topics, whose strip shows the worker's own numbers."""
    s = deployment.settings
    catalog = Catalog.build({item.item: item for item in CATALOGUE}, 1)

    def status() -> dict[str, object]:
        told = worker.status()
        rates = {name: told.get(name) for name in ("events_per_s", "lists_per_s", "p50_ms", "p99_ms", "dead_letters")}
        return {"phase": "open", "message": "a test", "model": told.get("model"), "rates": rates}

    return Page(
        kafka=s.kafka.common(),
        inputs=s.input.topics,
        recommendations=s.topics.recommendations,
        catalog=catalog,
        # Nobody in the history met the hostile item, so nothing can be recommended because of it: it comes last.
        popular=sorted(range(len(catalog)), key=lambda i: catalog.ids[i] == HOSTILE.item),
        status=status,
    )


@contextmanager
def serving(page: Page) -> Iterator[str]:
    """Run a page on an event loop of its own, in a thread; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="page")
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(page.start(), loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(page.stop(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
