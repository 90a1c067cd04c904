"""`eddyline replay`: history into the input topics, and how it is told."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn

from stream.console.common import Bootstrap, Json, err, out, run, settings, when

if TYPE_CHECKING:
    from stream.replay.run import At, Order
    from stream.replay.source import Range, Source
    from stream.settings import Settings

STOPPED = 130
SECONDS_BETWEEN_LINES = 10.0


def replay(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="movielens-100k, complete-journey, a folder, a .csv, .parquet or .jsonl file, or topic:NAME=ACTION.",
        ),
    ],
    kafka: Bootstrap = None,
    speed: Annotated[str, typer.Option(help="60x: a minute of history in a second; max: as fast as it goes.")] = "max",
    since: Annotated[str | None, typer.Option(help="Begin at this time: 2026-11-01T00:00, or 7d, so long ago.")] = None,
    until: Annotated[str | None, typer.Option(help="End before this time, written alike.")] = None,
    begin: Annotated[float, typer.Option(help="Begin after this share of the events.", min=0, max=1)] = 0.0,
    end: Annotated[float, typer.Option(help="End after this share of the events.", min=0, max=1)] = 1.0,
    name: Annotated[str | None, typer.Option(help="What to know this replay by; default: made of all this.")] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget how far it was, and publish anew.")] = False,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Count lines that are no event, and go on.")] = False,
    from_servers: Annotated[
        str | None,
        typer.Option("--from-bootstrap-servers", metavar="HOST:PORT", help="Another cluster that has the topics."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Publish history in time order into the input topics. Stopped or killed, the same command goes on where it ended.

    Examples: eddyline replay movielens-100k --end 0.8; eddyline replay topic:old.clicks=click --since 7d --speed 60x
    """
    from stream.replay.run import Order
    from stream.replay.source import Range

    pace, now = _speed(speed), int(time.time() * 1000)
    wanted = Range(when(since, now), when(until, now, "--until"), begin, end)
    s = settings(kafka)
    source = _source(s, data, from_servers, skip_bad, wanted)
    words = data if data.startswith("topic:") or not Path(data).exists() else str(Path(data).resolve())
    asked = {"source": words, "since": since, "until": until, "begin": begin, "end": end}
    order = Order({**asked, "into": sorted(source.targets)}, wanted, name, pace, restart)
    if source.bad:
        err.print(f"{source.bad} lines are no event and are left out", highlight=False)
    began = time.monotonic()
    at = run(_replay(s, source, order))
    _conclude(at, source.bad, max(time.monotonic() - began, 1e-3), as_json)
    if at.stopped:
        raise typer.Exit(STOPPED)


def _source(s: Settings, data: str, servers: str | None, skip_bad: bool, wanted: Range) -> Source:
    from stream.errors import ConfigError

    if data.startswith("topic:"):
        from stream.replay.topics import TopicSource, parse

        if (wanted.begin, wanted.end) != (0.0, 1.0):
            raise ConfigError("topics have no shares", "take --since and --until in place of --begin and --end")
        there = s.kafka if servers is None else settings(servers).kafka
        return run(TopicSource.find(there, s.kafka, parse(data, s.input.topics)))
    if servers is not None:
        raise ConfigError("--from-bootstrap-servers is for topics", "name them: topic:NAME=ACTION, or topic:* for all")
    from model.archive import find
    from stream.replay.source import ArchiveSource

    archive = find(data, s.cache, skip_bad)
    for note in archive.notes:
        err.print(note, highlight=False, markup=False)
    s.input.refuse_foreign(s.input.names)
    return ArchiveSource(archive, s.input.topics, s.input.ts_unit)


async def _replay(s: Settings, source: Source, order: Order) -> At:
    from stream.replay.run import replay as publish

    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def asked_to_stop() -> None:
        stop.set()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)  # who asks again does not want to wait

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, asked_to_stop)
    with _told(order.speed) as tell:
        return await publish(s, source, order, stop, tell, lambda text: err.print(text, highlight=False, markup=False))


@contextmanager
def _told(speed: float | None) -> Iterator[Callable[[At], None]]:
    """A bar with rate and remaining time on a terminal; elsewhere a line in ten seconds."""
    from stream.replay.pace import Meter

    meter: Meter | None = None
    published, next_line = 0, time.monotonic() + SECONDS_BETWEEN_LINES

    def measured(at: At) -> str:
        nonlocal meter, published
        if meter is None:
            meter = Meter(at.total, speed)
            if at.in_all:
                err.print(f"{at.name} goes on after {at.in_all} records", highlight=False)
        meter.add(at.published - published)
        published = at.published
        left = meter.eta(at.done, at.ts, at.last)
        return f"{meter.rate:,.0f}/s" + ("" if left is None or at.finished else f", {_duration(left)} left")

    if err.is_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}")
        with Progress(*columns, TextColumn("{task.fields[told]}"), console=err, transient=True) as bar:
            task = bar.add_task("replaying", told="")
            yield lambda at: bar.update(task, completed=at.done, total=at.total, told=measured(at))
        return

    def line(at: At) -> None:
        nonlocal next_line
        text = measured(at)
        if time.monotonic() >= next_line:
            next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            err.print(f"replaying: {at.done} of {at.total}, {text}", highlight=False)

    yield line


def _conclude(at: At, bad: int, seconds: float, as_json: bool) -> None:
    if as_json:
        told = {**at._asdict(), "bad": bad, "seconds": round(seconds, 3), "rate": round(at.published / seconds, 1)}
        out.print_json(json.dumps(told))
        return
    out.print(f"{at.published} events published in {seconds:.1f} s ({at.published / seconds:,.0f}/s)", highlight=False)
    if at.stopped:
        out.print(f"stopped at {at.done} of {at.total}; the same command goes on from there", highlight=False)
    elif not at.published:
        out.print(f"{at.name} had published all {at.in_all} before; --restart publishes them anew", highlight=False)


def _duration(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02}:{s:02}" if hours < 48 else f"{hours // 24} days"


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"{text!r} is no speed; write 60x, or max", param_hint="--speed")
    return speed
