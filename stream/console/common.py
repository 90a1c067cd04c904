"""What all commands share: options, logs, progress, and how an error is told."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from stream.settings import Settings

T = TypeVar("T")

Bootstrap = Annotated[
    str | None,
    typer.Option("--kafka", "-k", metavar="HOST:PORT", help="The broker; instead of kafka.bootstrap_servers."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without this, only say what would be done.")]

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def settings(kafka: str | None = None, **flags: Any) -> Settings:
    """The effective settings, with flags such as `state__name="v2"` on top."""
    from stream.settings import load

    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load({"kafka.bootstrap_servers": kafka, **named})


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


UNITS_MS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000}


def when(text: str | None, now_ms: int, option: str = "--since") -> int | None:
    """A time as someone types it, in milliseconds since 1970: ISO 8601 (UTC unless it says otherwise), milliseconds, or
    a duration such as 7d, 36h or 90m, which is so long before `now_ms`. None stays None.

    Raises:
        typer.BadParameter: it is none of these, or digits that may be a date or seconds as well.
    """
    if text is None:
        return None
    text = text.strip()
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([dhms])", text, re.ASCII):
        return now_ms - round(float(ago[1]) * UNITS_MS[ago[2]])
    if re.fullmatch(r"\d+", text, re.ASCII):
        if 8 <= len(text) <= 10:
            raise typer.BadParameter(
                f"{text!r} may be a date, seconds or milliseconds; write 2026-11-01, or milliseconds in 13 digits",
                param_hint=option,
            )
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; write 2026-11-01T00:00, milliseconds since 1970, or 7d, 36h, 90m for so long ago",
            param_hint=option,
        ) from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def quiet() -> None:
    """Libraries tell what is ordinary as warnings and errors: a new topic's leader, a rebalance."""
    logging.getLogger("aiokafka").setLevel(logging.ERROR)
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)


class Seldom(logging.Filter):
    """Lets one of equal messages of a library through in ten seconds, and the next one tells how many were left out:
    a client that cannot reach its broker says so hundreds of times.
    """

    EVERY_S = 10.0

    def __init__(self, library: str, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(library)
        self._now = now
        self._told: dict[tuple[str, str], float] = {}
        self._left_out: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        if not super().filter(record):  # not of this library
            return True
        key, now = (record.name, str(record.msg)), self._now()
        if key in self._told and now - self._told[key] < self.EVERY_S:
            self._left_out[key] += 1
            return False
        self._told[key] = now
        if left_out := self._left_out.pop(key, 0):
            record.msg, record.args = f"{record.getMessage()} (and {left_out} times before)", None
        return True


def logs(verbose: bool = False) -> None:
    """Log lines on stderr: eddyline's own from INFO, its libraries' from WARNING."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    for name in ("stream", "model", "index"):
        logging.getLogger(name).setLevel(logging.DEBUG if verbose else logging.INFO)
    for name in ("faust", "mode", "aiokafka") if verbose else ():
        logging.getLogger(name).setLevel(logging.INFO)
    if not verbose:
        for handler in logging.getLogger().handlers:
            handler.addFilter(Seldom("aiokafka"))


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a log line at every tenth."""
    if err.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=err, transient=True) as bar:
            task = bar.add_task(title)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(total, 1)
        if tenth > told:
            told = tenth
            err.print(f"{title}: {done} of {total}")

    yield tell
