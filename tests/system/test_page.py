"""A visitor on the live page: clicks become events, and lists come back with their reasons.

Needs Chromium and the fixture `live_page`: the URL of a page over a real broker, with a real worker behind
it, whose catalogue holds an item titled `HOSTILE`. Screenshots go to the folder `EDDYLINE_SCREENSHOTS`, if
that is set.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.system.chromium import Tab, open_tab

pytestmark = pytest.mark.system

HOSTILE = "<img src=x onerror="
"""How the hostile title begins; the fixture may choose what its handler would do."""

LIST = "[...document.querySelectorAll('#list > li')]"
TITLES = f"{LIST}.map(row => row.querySelector('.title').firstChild.textContent)"
REASONS = "[...document.querySelectorAll('#list .interaction em')].map(e => e.textContent)"
ITEMS = f"{LIST}.map(row => row.dataset.item)"
ANSWERED = "document.querySelector('#latency').textContent.endsWith(' ms')"
LIST_S = 60.0
"""How long the first list may take: the pipeline may still be loading its model."""


async def shoot(tab: Tab, name: str) -> None:
    folder = os.environ.get("EDDYLINE_SCREENSHOTS")
    if folder:
        await asyncio.sleep(0.7)  # rows that move are to arrive first
        Path(folder).mkdir(parents=True, exist_ok=True)
        await tab.screenshot(Path(folder) / f"{name}.png")


async def ready(tab: Tab) -> None:
    await tab.until("document.body?.dataset.kafka === 'ready'", 30)
    await tab.until("document.querySelectorAll('#catalogue .title').length > 1", 10)


async def click_row(tab: Tab, row: int) -> str:
    """Click a catalogue row's title; returns the title."""
    selector = f"#catalogue li:nth-child({row}) .title"
    title = await tab.js(f"document.querySelector({json.dumps(selector)}).firstChild.textContent")
    await tab.click(selector)
    return title


async def named(tab: Tab, title: str) -> None:
    """Wait for a full list that gives the title as a reason."""
    await tab.until(f"{LIST}.length >= 10 && {REASONS}.includes({json.dumps(title)})", LIST_S)


def test_a_click_comes_back_as_a_list_that_names_it(live_page: str) -> None:
    async def visit() -> None:
        async with open_tab(live_page) as tab:
            await ready(tab)
            await shoot(tab, "arrival")
            first = await click_row(tab, 1)
            await named(tab, first)
            titles = await tab.js(TITLES)
            items = await tab.js(ITEMS)
            assert len(set(items)) == len(items), "an item is in the list twice"
            assert first not in titles, "an item that the visitor clicked is recommended to them"
            await tab.until(ANSWERED, 10)
            await shoot(tab, "first-list")

            second = await click_row(tab, 3)
            await named(tab, second)
            assert await tab.js(TITLES) != titles
            assert await tab.js("document.querySelectorAll('#window li').length") == 2
            await tab.until("document.querySelectorAll('#window .under-way').length === 0", LIST_S)

            clicked = (await tab.js(ITEMS))[0]
            await tab.click("#list > li .title")
            await tab.until(f"!{ITEMS}.includes({json.dumps(clicked)})", LIST_S)
            await shoot(tab, "second-list")
            for name, width, dark in (("dark", 1280, True), ("phone", 390, False)):
                await tab.look(width, dark)
                await shoot(tab, name)
                assert await tab.js("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
            assert tab.errors == []

    asyncio.run(visit())


def test_a_reason_lights_up_the_click_it_names(live_page: str) -> None:
    async def visit() -> None:
        async with open_tab(live_page) as tab:
            await ready(tab)
            title = await click_row(tab, 2)
            await named(tab, title)
            await tab.js("document.querySelector('#list .interaction button').focus()")
            lit = await tab.js("[...document.querySelectorAll('#window .lit span')].map(e => e.textContent)")
            assert lit == [title]
            await tab.js("document.activeElement.blur()")
            assert await tab.js("document.querySelectorAll('#window .lit').length") == 0
            assert tab.errors == []

    asyncio.run(visit())


def test_a_hostile_title_is_text(live_page: str) -> None:
    async def visit() -> None:
        async with open_tab(live_page) as tab:
            await ready(tab)
            await tab.js("search.value = 'onerror'; search.dispatchEvent(new Event('input'))")
            await tab.until("document.querySelectorAll('#catalogue .title').length === 1", 10)
            title = await click_row(tab, 1)
            assert title.startswith(HOSTILE)
            await tab.until(f"{LIST}.length >= 10", LIST_S)
            assert await tab.js("document.querySelector('#window li span').textContent") == title
            await shoot(tab, "hostile-title")
            assert await tab.js("document.querySelectorAll('main img').length") == 0
            assert tab.errors == []  # an image that fails to load would be one

    asyncio.run(visit())


def test_a_new_visitor_starts_over_and_keeps_nothing(live_page: str) -> None:
    async def visit() -> None:
        async with open_tab(live_page) as tab:
            await ready(tab)
            await named(tab, await click_row(tab, 1))
            before = await tab.js("visitor.title")
            assert await tab.js("document.cookie") == "", "scripts can read the visitor's cookie"
            await tab.click("#renew")
            await tab.until(f"visitor.title && visitor.title !== {json.dumps(before)}", 10)
            await tab.until(f"{LIST}.length === 0 && document.querySelectorAll('#window li').length === 0", 10)
            assert tab.errors == []

    asyncio.run(visit())
