"""`eddyline demo`: the main job on this machine, from an empty broker to a compared release.

It uses nothing that a user could not: a broker, topics, a catalogue, history published in time order, a
worker that backfills and then serves, a page, a training run, a release, and subscribers. It is the
conductor only; every part it starts is a command or a module of its own.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from rich.console import Console
from rich.table import Table

from model.catalog import Catalog
from model.dataset import Dataset, Events
from model.datasets import load
from stream.dev.broker import LocalBroker
from stream.dev.live import Lists, LiveReplay, lists_of
from stream.dev.processes import Processes, free_port
from stream.dev.scoring import Row, Scoreboard, popular_before
from stream.kafka import topics
from stream.lists.release import announce
from stream.publishing import publish, publish_items
from stream.settings import Settings
from stream.tail import show
from stream.web.server import Page

HISTORY_SHARE = 0.8
CUTS = {"complete-journey": "complete-journey-100k"}
"""Data sets that are more than a demo can train on in minutes, and what it takes of them; the cut is printed."""
RELEASED, FALLBACK, POPULAR = "released", "fallback", "7-day popularity"


class Demo:
    """One run of the demo.

    Args:
        settings: effective settings; a broker of our own is started unless one is named by `given_broker`.
        once: end when all is shown; else, on a terminal, stay until Ctrl-C.
    """

    def __init__(self, settings: Settings, data: str, once: bool, port: int, given_broker: bool) -> None:
        self._settings = settings
        self._data = CUTS.get(data, data)
        self._stay = sys.stdout.isatty() and not once
        self._port = port
        self._given_broker = given_broker
        self._out = Console(width=None if sys.stdout.isatty() else 132)
        self._began = time.monotonic()
        self._status: dict[str, Any] = {"phase": "starting", "message": ""}
        self._session: aiohttp.ClientSession | None = None
        self._worker_url = ""

    def run(self) -> int:
        """Exit code: 0 when every event was answered, none was a dead letter, and the comparison was made."""
        return asyncio.run(self._guarded())

    async def _guarded(self) -> int:
        task = asyncio.ensure_future(self._all())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            self._say("stopped")
            return 130

    async def _all(self) -> int:
        folder = Path(tempfile.mkdtemp(prefix="eddyline-demo-"))
        processes, broker, page, done = None, None, None, False
        try:
            dataset = await asyncio.to_thread(load, self._data, self._settings.cache)
            self._introduce(dataset)
            if not self._given_broker:
                broker = LocalBroker(folder / "broker")
                self._settings.kafka.bootstrap_servers = await asyncio.to_thread(broker.start)
            self._say(f"Kafka answers at {self._settings.kafka.bootstrap_servers}")
            processes = Processes(folder, self._environ())
            events = until_now(dataset.events)
            split = int(HISTORY_SHARE * len(events))
            await self._fill(dataset, events.take(slice(0, split)))
            await self._start_worker(processes, split)
            page = await self._open_page(dataset, events.take(slice(0, split)))
            await self._train_and_release(processes, folder)
            scoreboard, replayed = await self._replay(events, split)
            code = await self._conclude(scoreboard, replayed, dataset)
            if self._stay:
                self._say("the page stays open for you; Ctrl-C stops all of it")
                while True:
                    processes.check("worker")
                    await asyncio.sleep(1)
            done = True
            return code
        except asyncio.CancelledError:
            done = True
            raise
        finally:
            await self._stop(page, processes, broker)
            if done:  # else its logs say why
                shutil.rmtree(folder, ignore_errors=True)

    # Scenes

    def _introduce(self, dataset: Dataset) -> None:
        self._say(f"data set {dataset.name}: {len(dataset.events)} events, {len(dataset.items)} items")
        for note in (dataset.licence, *dataset.notes):
            self._out.print(f"  {note}", markup=False, highlight=False)

    async def _fill(self, dataset: Dataset, history: Events) -> None:
        """Topics, catalogue, and the first share of the events."""
        s = self._settings
        await topics.create(s.kafka, topics.specs(s.topics, s.input.names, s.state.name))
        await publish_items(s.kafka, s.topics.catalog, dataset.items.values())
        began = time.monotonic()
        sent = await publish(s.kafka, s.input.topics, history, lambda done, total: None)
        self._say(f"{sent} events published in time order, in {time.monotonic() - began:.1f} s")

    async def _start_worker(self, processes: Processes, history: int) -> None:
        self._phase("history", "the worker reads history silently, then serves")
        port = free_port()
        state = self._settings.state.name
        await processes.start("worker", "backfill", "--as", state, "--serve", "--status-port", str(port))
        self._worker_url = f"http://127.0.0.1:{port}/status"
        self._session = aiohttp.ClientSession()
        while not (status := await self._worker()).get("ready") or status["events"] < history:
            processes.check("worker")
            await asyncio.sleep(0.2)
        self._say(f"a worker serves: {status['users']} users, {status['items']} items, model {status['model']}")

    async def _open_page(self, dataset: Dataset, history: Events) -> Page:
        s = self._settings
        catalog = Catalog.build(dataset.items, 1)
        index = {item: i for i, item in enumerate(catalog.ids)}
        ids, counts = np.unique(history.item.astype(str), return_counts=True)
        popular = [index[item] for item in ids[np.argsort(-counts, kind="stable")] if item in index]
        page = Page(
            kafka=s.kafka.common(),
            inputs=s.input.topics,
            recommendations=s.topics.recommendations,
            catalog=catalog,
            popular=popular,
            status=lambda: self._status,
            port=self._port,
        )
        url = await page.start()
        self._phase("open", "you are a new visitor: click something")
        self._say(f"[bold]you are a new visitor: open {url}[/]")
        self._keep = asyncio.ensure_future(self._keep_status())
        return page

    async def _train_and_release(self, processes: Processes, folder: Path) -> None:
        self._phase("training", "a model trains on the first 80% while you play")
        s, model = self._settings, folder / "model"
        began = time.monotonic()
        await processes.start(
            "training", "train", self._data, "--out", str(model), "--end", str(HISTORY_SHARE), "--json", nice=5
        )
        metrics: dict[str, Any] = {}

        def line(text: str) -> None:
            at = json.loads(text)
            if "metrics" in at:
                metrics.update(at["metrics"])
                return
            quality = f", HR@10 {at['hr']:.3f} on held-out events" if "hr" in at else ""
            self._status["training"] = {**at, "hr10": at.get("hr")}
            self._say(f"  {at['phase']}: epoch {at['epoch']} of {at['epochs']}, loss {at['loss']:.3f}{quality}")

        await processes.finish("training", line)
        self._status["training"] = None
        release = await announce(s.kafka, s.topics.release, model, metrics)
        self._say(f"trained in {time.monotonic() - began:.0f} s and released as {release.model}@{release.version}")
        while (await self._worker()).get("model") != f"{release.model}@{release.version}":
            processes.check("worker")
            await asyncio.sleep(0.2)
        self._say("the running worker serves it now; it was not stopped")

    async def _replay(self, events: Events, split: int) -> tuple[Scoreboard, LiveReplay]:
        """The rest of the events, each scored against the lists its user had read before it."""
        s, rest = self._settings, events.take(slice(split, None))
        self._phase("replay", "each event is published after the list for its user's last one was read")
        self._status |= {"scored": 0, "to_score": len(rest)}
        popular = await asyncio.to_thread(popular_before, events, split)
        scoreboard = Scoreboard((POPULAR, FALLBACK, RELEASED))

        def score(index: int, latest: Lists | None) -> None:
            lists = lists_of(latest, (RELEASED, FALLBACK)) if latest else None
            if lists is not None:
                lists[POPULAR] = popular[index]
            scoreboard.score(str(rest.user[index]), str(rest.item[index]), lists)
            self._status["scored"] = len(scoreboard)
            if len(scoreboard) % 2000 == 0:
                self._say(f"  {len(scoreboard)} of {len(rest)} events scored")
                self._status["table"] = [told(row) for row in scoreboard.table()]

        lists = {RELEASED: s.topics.recommendations, FALLBACK: s.topics.shadow}
        replay = LiveReplay(s.kafka, s.input.topics, lists, rest, score)
        await replay.run()
        return scoreboard, replay

    async def _conclude(self, scoreboard: Scoreboard, replay: LiveReplay, dataset: Dataset) -> int:
        rows = scoreboard.table()
        self._status["table"] = [told(row) for row in rows]
        self._phase("done", "every list was read before its event")
        self._out.print(comparison(rows, len(scoreboard), scoreboard.k))
        status = await self._worker()
        ms = np.array(replay.latencies_ms) if replay.latencies_ms else np.zeros(1)
        rate = replay.done / max(replay.seconds, 1e-9)
        self._say(
            f"{rate:.0f} events/s, {2 * rate:.0f} lists/s (two lists an event) for {replay.seconds:.0f} s; "
            f"event to both lists: p50 {np.percentile(ms, 50):.0f} ms, p99 {np.percentile(ms, 99):.0f} ms"
        )
        self._say(
            f"{scoreboard.without_list} events came before their user's first list and count as misses; "
            f"{replay.unanswered} users unanswered; {status.get('dead_letters')} dead letters"
        )
        self._examples(replay, dataset)
        bad = replay.unanswered or status.get("dead_letters") or status.get("waiting")
        self._say(f"done after {time.monotonic() - self._began:.0f} s")
        return 1 if bad else 0

    def _examples(self, replay: LiveReplay, dataset: Dataset) -> None:
        """Three users' lists, with titles and reasons."""
        titles = {item: found.title for item, found in dataset.items.items()}
        for event in replay.examples(RELEASED, 3):
            show(event, self._out, titles)

    # Around the scenes

    async def _worker(self) -> dict[str, Any]:
        assert self._session is not None
        try:
            async with self._session.get(self._worker_url) as response:
                return await response.json()
        except aiohttp.ClientError:
            return {}

    async def _keep_status(self) -> None:
        while True:
            status = await self._worker()
            self._status["model"] = status.get("model") or ""
            names = ("events_per_s", "lists_per_s", "p50_ms", "p99_ms", "dead_letters", "waiting")
            self._status["rates"] = {name: status.get(name) for name in names}
            await asyncio.sleep(1)

    def _environ(self) -> dict[str, str]:
        """The settings for the commands that are started."""
        s = self._settings
        out = {
            "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": s.kafka.bootstrap_servers,
            "EDDYLINE_CACHE": str(s.cache),
            "EDDYLINE_RECOMMEND__SHADOW": "true",
            "PYTHONUNBUFFERED": "1",
        }
        return out

    def _phase(self, phase: str, message: str) -> None:
        self._status |= {"phase": phase, "message": message}
        self._say(message)

    def _say(self, text: str) -> None:
        self._out.print(f"[dim]{time.monotonic() - self._began:5.0f} s[/]  {text}", highlight=False)

    async def _stop(self, page: Page | None, processes: Processes | None, broker: LocalBroker | None) -> None:
        """Stop all that was started, the broker last; a second Ctrl-C does not cut it short."""
        if keep := getattr(self, "_keep", None):
            keep.cancel()
        steps: list[Awaitable[Any]] = []
        if page is not None:
            steps.append(page.stop())
        if self._session is not None:
            steps.append(self._session.close())
        if processes is not None:
            steps.append(processes.stop())
        if broker is not None:
            steps.append(asyncio.to_thread(broker.stop))
        for step in steps:
            await asyncio.shield(asyncio.ensure_future(step))


def until_now(events: Events) -> Events:
    """The same events, moved in time so that the last of them happens now: distances between them stay."""
    if not len(events):
        return events
    shift = int(time.time() * 1000) - int(events.ts[-1])
    return Events(events.user, events.item, events.action, events.ts + shift, events.value)


def told(row: Row) -> dict[str, Any]:
    """A row of the table as the page takes it."""
    return {"name": row.name, "hr10": row.hr.mean, "ndcg10": row.ndcg.mean, "low": row.hr.low, "high": row.hr.high}


def comparison(rows: Sequence[Row], events: int, k: int) -> Table:
    """The table at the end: each list, and its margin over the one above."""
    table = Table(title=f"{events} events, lists of {k} that were read before each", title_justify="left")
    for column in ("list", f"HR@{k}", f"NDCG@{k}", "HR over the row above, 95%", "NDCG over the row above, 95%"):
        table.add_column(column)
    for row in rows:
        over = [f"{i.mean:+.4f}  ({i.low:+.4f} to {i.high:+.4f})" for i in row.over] or ["", ""]
        table.add_row(row.name, f"{row.hr.mean:.4f}", f"{row.ndcg.mean:.4f}", *over)
    return table
