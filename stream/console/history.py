"""`eddyline backfill`, `verify`: a state version from history, and whether it is the one that lived through it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.console.common import Bootstrap, Json, err, logs, out, run, settings, when
from stream.console.running import StatusPort, Verbose

if TYPE_CHECKING:
    from rich.table import Table

    from stream.backfill import Part, Tell

TOLD_EVERY_S = 5.0

New = Annotated[str, typer.Option("--as", metavar="NAME", help="The new state version.")]
Offsets = Annotated[
    Path | None, typer.Option(metavar="FILE", help='Offsets instead of a time: {"TOPIC": {"PARTITION": OFFSET}}.')
]


def backfill(
    name: New,
    kafka: Bootstrap = None,
    since: Annotated[
        str | None, typer.Option(help="When to begin: 2026-11-01T00:00, or 7d ago; default: the earliest event.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="When to stop, likewise; default: what is there by now.")] = None,
    from_offsets: Offsets = None,
    until_offsets: Offsets = None,
    into: Annotated[
        str | None, typer.Option(metavar="TOPIC", help="Also make history's lists, into a topic of their own.")
    ] = None,
    archive: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Parquet of what the brokers have forgotten: topic, partition, offset."),
    ] = None,
    allow_gap: Annotated[bool, typer.Option(help="Read on where offsets are in neither.")] = False,
    serve: Annotated[bool, typer.Option(help="Go on as its worker once it has caught up.")] = False,
    cut_over: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The same, and answer in place of this state version."),
    ] = None,
    status_port: StatusPort = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Read history anew into a new state version; started N times, N share it. Example: eddyline backfill --as v2"""
    from stream.backfill import Asked
    from stream.backfill import backfill as read_anew
    from stream.ranges import offsets_file

    now = int(time.time() * 1000)
    begin, end = when(since, now), when(until, now, "--until")
    _one_of("--since", since, "--from-offsets", from_offsets)
    _one_of("--until", until, "--until-offsets", until_offsets)
    _one_of("--into", into, "--serve", serve or None)
    _one_of("--into", into, "--cut-over", cut_over)
    logs(verbose)
    s = settings(kafka, state__name=name)
    asked = Asked(
        offsets_file(from_offsets, s) if from_offsets is not None else begin,
        offsets_file(until_offsets, s) if until_offsets is not None else end,
        into,
        serve or cut_over is not None,
        archive,
        allow_gap,
        cut_over,
    )
    with _progress(name) as tell:
        done = run(read_anew(s, asked, status_port, tell))
    if as_json:
        out.print_json(json.dumps({"state": name, **done.told()}))
    elif done.complete:
        out.print(f"state {name} has caught up; run it with: eddyline worker --state {name}", highlight=False)
    else:
        out.print(f"state {name} has not caught up; the same command goes on where it stopped", highlight=False)
    raise typer.Exit(done.code or int(not done.complete and not serve))


def verify(
    name: Annotated[str, typer.Option("--as", metavar="NAME", help="The state version that is in question.")],
    against: Annotated[str, typer.Option(metavar="NAME", help="The one that it should be equal to.")],
    kafka: Bootstrap = None,
    show: Annotated[int, typer.Option(help="Differences to show in full.", min=0)] = 3,
    profiles: Annotated[
        int, typer.Option(help="Also compute the profiles of so many users from both, by the model that is served.")
    ] = 0,
    trends: Annotated[
        bool, typer.Option(help="Compare counts as well; they depend on more where events come out of time order.")
    ] = True,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Compare two state versions: exit code 0 equal, 1 different. Example: eddyline verify --as v2 --against v1"""
    from stream.process.keys import settled
    from stream.verify import compare

    logs(verbose)
    here, there = (run(settled(settings(kafka, state__name=one)))[0] for one in (name, against))
    found = run(compare(here, there, show, profiles, trends))
    if as_json:
        out.print_json(json.dumps({"as": name, "against": against, **found.told()}))
    else:
        for line in found.lines(name, against):
            out.print(line, highlight=False, markup=False)
        for difference in found.rows.differences:
            out.print_json(json.dumps(difference.told()))
    raise typer.Exit(int(not found.same))


def _one_of(one: str, value: object, other: str, other_value: object) -> None:
    if value is not None and other_value is not None:
        raise typer.BadParameter(f"{one} and {other} say different things; give one of them", param_hint=other)


@contextmanager
def _progress(name: str) -> Iterator[Tell]:
    """A table on a terminal; elsewhere a line now and then."""
    if err.is_terminal:
        from rich.live import Live

        with Live(console=err, transient=True, refresh_per_second=2) as live:
            yield lambda parts: live.update(_table(name, parts))
        return
    told = 0.0

    def tell(parts: Sequence[Part]) -> None:
        nonlocal told
        complete = all(part.done >= part.total for part in parts)
        if complete or time.monotonic() - told >= TOLD_EVERY_S:
            told = time.monotonic()
            err.print(_line(name, parts), highlight=False)

    yield tell


def _line(name: str, parts: Sequence[Part]) -> str:
    done, total = sum(part.done for part in parts), sum(part.total for part in parts)
    each = ", ".join(
        f"{part.partition}: {_share(part)}{f' ({_left(part.eta_s)})' if part.done < part.total else ''}"
        for part in parts
    )
    return f"backfill {name}: {done:,} of {total:,} offsets, {_left(_eta(parts))}; by partition {each}"


def _table(name: str, parts: Sequence[Part]) -> Table:
    from rich.table import Table

    done, total = sum(part.done for part in parts), sum(part.total for part in parts)
    table = Table(title=f"backfill {name}: {done:,} of {total:,} offsets, {_left(_eta(parts))}")
    for column in ("partition", "read", "of", "", "offsets/s", "left"):
        table.add_column(column, justify="right")
    for part in parts:
        pace = f"{part.per_s:,.0f}" if part.per_s else ""
        whose = f"{part.partition}" if part.ours else f"{part.partition} (another worker)"
        table.add_row(whose, f"{part.done:,}", f"{part.total:,}", _share(part), pace, _left(part.eta_s))
    return table


def _share(part: Part) -> str:
    return f"{100 * part.done // max(part.total, 1) if part.total else 100}%"


def _eta(parts: Sequence[Part]) -> float | None:
    """Partitions are read beside each other: the slowest one says."""
    left = [part.eta_s for part in parts if part.done < part.total]
    return None if None in left else max((eta for eta in left if eta is not None), default=0.0)


def _left(seconds: float | None) -> str:
    if seconds is None:
        return "time left not known yet"
    return f"{seconds:.0f} s left" if seconds < 120 else f"{seconds / 60:.0f} min left"
