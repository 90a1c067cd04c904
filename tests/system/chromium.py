"""Drives one headless Chromium over its DevTools protocol: enough to click, look, and listen for errors.

It is not a browser-testing library: one page, real mouse events, and JavaScript for everything else.
Protocol: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-port=0",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
)
START_S = 30.0


class PageError(AssertionError):
    """The page did not do what was asked in time, or JavaScript threw."""


class Tab:
    """The one tab. `errors` collects console errors, uncaught exceptions and failed loads, as text."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._last = 0
        self.errors: list[str] = []

    async def listen(self) -> None:
        """Sort what the browser says into answers and errors; runs as long as the tab lives."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
                continue
            details = said["params"]
            if said["method"] == "Runtime.exceptionThrown":
                self.errors.append(str(details["exceptionDetails"]))
            elif said["method"] == "Log.entryAdded" and details["entry"]["level"] == "error":
                self.errors.append(f"{details['entry']['text']} {details['entry'].get('url', '')}")
            elif said["method"] == "Runtime.consoleAPICalled" and details["type"] == "error":
                self.errors.append(str([a.get("value", a.get("description")) for a in details["args"]]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One protocol command and its result; `PageError` where the browser refuses it."""
        self._last += 1
        answer = self._answers[self._last] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": self._last, "method": method, "params": params})
        said = await asyncio.wait_for(answer, START_S)
        if "error" in said:
            raise PageError(f"{method}: {said['error']['message']}")
        return said["result"]

    async def js(self, expression: str) -> Any:
        """The (JSON) value of an expression in the page."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in said:
            raise PageError(f"{expression}: {said['exceptionDetails']['exception'].get('description')}")
        return said["result"].get("value")

    async def until(self, expression: str, timeout_s: float) -> Any:
        """The expression's value as soon as it is truthy; `PageError` with the page's text if that takes too
        long.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not (value := await self.js(expression)):
            if asyncio.get_running_loop().time() > deadline:
                text = await self.js("document.body?.innerText")
                raise PageError(f"not within {timeout_s} s: {expression}\nthe page says:\n{text}")
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """A real mouse click on the middle of the first element that matches."""
        found = f"document.querySelector({json.dumps(selector)})"
        await self.until(found + " !== null", 10)
        where = (
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'center', behavior: 'instant'}});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2] })()"
        )
        # A list that has just changed still moves its rows: a click goes to where one has come to rest.
        before, at = None, await self.js(where)
        while at != before:
            await asyncio.sleep(0.1)
            before, at = at, await self.js(where)
        x, y = at
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def look(self, width: int, dark: bool = False) -> None:
        """The window's width in CSS pixels (height 900), and the visitor's colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path) -> None:
        """The whole page, as PNG."""
        said = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(said["data"]))


def executable() -> str:
    """A Chromium on this machine (`EDDYLINE_CHROMIUM` wins)."""
    for name in (os.environ.get("EDDYLINE_CHROMIUM"), *NAMES):
        if name and (found := shutil.which(name)):
            return found
    raise FileNotFoundError("no Chromium found: install the package chromium, or set EDDYLINE_CHROMIUM")


@contextlib.asynccontextmanager
async def open_tab(url: str) -> AsyncIterator[Tab]:
    """A fresh browser with one tab on `url`, closed in the end with everything it wrote."""
    async with contextlib.AsyncExitStack() as stack:
        profile = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses to run as root
        browser = await asyncio.create_subprocess_exec(
            executable(),
            *FLAGS,
            *sandbox,
            f"--user-data-dir={profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        stack.push_async_callback(_end, browser)
        port = await _port(Path(profile) / "DevToolsActivePort")
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            targets = await answer.json(content_type=None)
        address = next(t["webSocketDebuggerUrl"] for t in targets if t["type"] == "page")
        socket = await stack.enter_async_context(session.ws_connect(address, max_msg_size=0))
        tab = Tab(socket)
        listening = asyncio.create_task(tab.listen())
        stack.callback(listening.cancel)
        for domain in ("Page", "Runtime", "Log"):
            await tab.call(f"{domain}.enable")
        await tab.look(1280)
        await tab.call("Page.navigate", url=url)
        yield tab


async def _port(file: Path) -> int:
    """The port that Chromium chose; it writes the file when it listens."""
    async with asyncio.timeout(START_S):
        while not (file.exists() and (lines := file.read_text().split())):
            await asyncio.sleep(0.05)
    return int(lines[0])


async def _end(browser: asyncio.subprocess.Process) -> None:
    if browser.returncode is None:
        browser.terminate()
    try:
        await asyncio.wait_for(browser.wait(), 10)
    except TimeoutError:
        browser.kill()
        await browser.wait()
