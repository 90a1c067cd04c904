"""`/health` and `/status` of one worker over HTTP, bound to this machine. Numbers only: no user is named here.

`/health/live`: 503 where the worker stands still, and should be started again. `/health/ready`: 200 where it answers
events. `/health`: both.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from stream.app import Pipeline


class StatusServer:
    """Serves what a worker's monitor knows."""

    def __init__(self, pipeline: Pipeline, port: int, host: str = "127.0.0.1") -> None:
        self._pipeline = pipeline
        self._host, self._port = host, port
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/health/live", self._live)
        app.router.add_get("/health/ready", self._ready)
        app.router.add_get("/status", self._status)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        port = self._runner.addresses[0][1]
        return f"http://{self._host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _health(self, request: web.Request) -> web.Response:
        ready, stalled = self._pipeline.ready, self._pipeline.health.reason
        return _answer(ready and stalled is None, {"ready": ready, "live": stalled is None, "reason": stalled})

    async def _live(self, request: web.Request) -> web.Response:
        stalled = self._pipeline.health.reason
        return _answer(stalled is None, {"live": stalled is None, "reason": stalled})

    async def _ready(self, request: web.Request) -> web.Response:
        return _answer(self._pipeline.ready, {"ready": self._pipeline.ready})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._pipeline.status() | held(self._pipeline))


def _answer(well: bool, told: dict[str, Any]) -> web.Response:
    return web.json_response(told, status=200 if well else 503)


def held(pipeline: Pipeline) -> dict[str, int]:
    """What this process has open, so that a leak is seen from outside: `threads`, asyncio `tasks`, and, where the
    system tells them, descriptors as `fds`.
    """
    thread: Any = getattr(pipeline.app.consumer, "_thread", None)
    fetching = getattr(thread, "thread_loop", None)
    tasks = len(asyncio.all_tasks()) + (len(asyncio.all_tasks(fetching)) if fetching is not None else 0)
    counts = {"threads": threading.active_count(), "tasks": tasks}
    with suppress(OSError):
        counts["fds"] = len(list(Path("/proc/self/fd").iterdir()))
    return counts
