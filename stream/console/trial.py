"""`eddyline trial`: what eddyline would do with someone's own topics, by looking at them only.

How good lists would be is asked by `eddyline evaluate`'s own code; what is measured of the machine is in
`stream/trial.py`, what follows from it in `stream/sizing.py`. Here it is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as Grid

from stream.console.common import Bootstrap, Json, err, out, progress, settings
from stream.console.histories import TOPICS, Until, Wanted, from_topics
from stream.console.training import texts_of

if TYPE_CHECKING:
    from model.evaluation.tables import Table
    from stream.sizing import Costs, Needs, Rates
    from stream.topicdata import TopicData

FEW = 1000
"""Events below which an interval says little."""
QUESTIONS = 20_000
"""Events of the test that are asked at the most."""
BASELINES = ("popular", "item-knn")
ONLINE, FALLBACK = "counts", "fallback"


def trial(
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Events from this time on: 7d (so long ago), 2026-11-01, milliseconds.")
    ] = "7d",
    until: Until = None,
    kafka: Bootstrap = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            metavar="N",
            help="Read only so many partitions of each topic, and so the users in them: where there are many events.",
            min=1,
        ),
    ] = None,
    train: Annotated[
        bool, typer.Option("--train", help="Also train the model of [train] on them, which takes longer.")
    ] = False,
    tune: Annotated[bool, typer.Option(help="Choose each method's settings on the events before the test.")] = True,
    as_json: Json = False,
) -> None:
    """Try eddyline on your own topics: how good lists would be, and what machines it would take. Leave to read the
    topics of [input.topics] is enough, for nothing is written or committed. Example: eddyline trial --since 30d
    """
    from model.catalog import Catalog
    from model.history import ACTION_CODE
    from stream.lists.serving import pick_device
    from stream.sizing import needs, rates
    from stream.trial import Sample, listed, measured, resident

    base, sample = resident(), Sample()
    found = from_topics(Wanted.of(TOPICS, since, until, kafka), sample, most)
    for note in found.data.notes:
        err.print(note, highlight=False, markup=False)
    s = settings(kafka)
    items, device = listed(found), pick_device(s.recommend.device)
    texts_of(replace(found.data, items=items), Catalog.build(items), device)  # they are kept, and this may take minutes
    costs = measured(found, items, sample, s, device, base)
    quality, every = _quality(found, train, tune)
    speaks = {ACTION_CODE[action] for action in s.input.topics if s.emit.speaks_on(action)}
    r = rates(found.data.events, found.size / found.records, speaks, s, found.share)
    needed = needs(r, costs)
    notes = _notes(found, quality, every)
    if as_json:
        print(json.dumps(_as_dict(quality, every, r, costs, needed, found, notes)))
        return
    if quality is not None:
        out.print(_methods(quality))
        out.print(_differences(quality))
    out.print(_sizes(r, costs, needed, found))
    for note in notes:
        out.print(note, highlight=False, markup=False)


def _quality(found: TopicData, train: bool, tune: bool) -> tuple[Table | None, int]:
    """What `eddyline evaluate` says, and that every so many-th question was asked; None where there is none to ask."""
    from model.catalog import Catalog
    from model.config import TrainConfig
    from model.evaluation.methods.registry import defaults, make
    from model.evaluation.protocols import evaluate
    from model.evaluation.running import NothingToAskError
    from model.evaluation.temporal import SPLITS
    from stream.console.evaluating import world_of

    world = world_of(found.data, Catalog.build(found.data.items, 1), "temporal", SPLITS[1])
    every = max(1, round((SPLITS[2] - SPLITS[1]) * len(found.data.events)) // QUESTIONS)
    named = [*BASELINES, ONLINE, *([FALLBACK] if found.described or found.lent else [])]
    if train:
        named.append(defaults("temporal", (world.train or TrainConfig()).model)[-1])
    with ExitStack() as bars:
        bar = lambda title: bars.enter_context(progress(title))  # noqa: E731
        try:
            tables = evaluate(world, "temporal", make(named, world), SPLITS, None, tune, bar, ["temporal"], every)
        except NothingToAskError:
            return None, every
    return tables["temporal"][0], every


def _notes(found: TopicData, quality: Table | None, every: int) -> list[str]:
    """What a reader should know before believing any of it."""
    notes, n = [], len(found.data.events)
    if found.share < 1:
        notes.append(
            f"{_read(found)} partitions were read, and rates and users are reckoned up to all of them; counts of what "
            "follows what are those of the users who were read"
        )
    if quality is None:
        notes.append(
            f"{n:,} events are too few to compare anything: none of the last tenth can be asked for. "
            "Begin earlier: --since 30d"
        )
    elif n < FEW:
        notes.append(
            f"{len(quality.asks):,} questions out of {n:,} events: intervals are wide, and figures of users and "
            f"memory are those of a few. Begin earlier (--since), to have {FEW:,} events at least"
        )
    elif every > 1:
        notes.append(
            f"every {every}th question of the last tenth was asked; eddyline evaluate topics --every {every} agrees"
        )
    if not found.described and not found.lent:
        notes.append(
            "no item is described, so what texts would add is not in it: publish a catalogue (eddyline catalog "
            "publish), and try again"
        )
    if quality is not None:
        notes.append(
            "the last tenth of the events is asked for, one by one, as eddyline evaluate topics does: docs/quality.md"
        )
    return notes


def _read(found: TopicData) -> str:
    """How many partitions were read."""
    return f"{round(found.share * found.partitions)} of {found.partitions}"


# For people


def _methods(table: Table) -> Grid:
    events = f"{len(table.asks):,} events asked for, {table.items:,} items to choose from"
    grid = Grid(title=f"how often the next item is among ten: {events}", title_justify="left")
    for column in ("method", f"hr@{table.k} (95% interval)", f"ndcg@{table.k}", ""):
        grid.add_column(column)
    for name in table.answers:
        metrics = table.metrics(name)
        shown = (str(table.interval(metrics[f"{m}@{table.k}"])) for m in ("hr", "ndcg"))
        grid.add_row(name, *shown, SAID.get(name, "eddyline, trained on the first nine tenths"))
    return grid


SAID = {
    "popular": "what is met most often, for everybody",
    "item-knn": "what the same people met",
    ONLINE: "eddyline's counts alone: what follows what, from the first event on",
    FALLBACK: "eddyline before any training: counts, and BERT over texts",
}


def _ours(table: Table) -> list[str]:
    return [name for name in table.answers if name not in BASELINES]


def _differences(table: Table) -> Grid:
    grid = Grid(title=f"hr@{table.k}: eddyline less the others, paired by user", title_justify="left")
    for column in ("", *BASELINES):
        grid.add_column(column)
    for name in _ours(table):
        said = (table.difference(name, other)[f"hr@{table.k}"] for other in BASELINES)
        grid.add_row(name, *map(str, said))
    return grid


def _sizes(r: Rates, c: Costs, n: Needs, found: TopicData) -> Grid:
    hour = "busiest hour" if r.days > 1 / 24 else "whole range"
    title = f"what {_rate(r.mean)} events a second need, {_rate(r.peak)} in the {hour}"
    grid = Grid(title=title, title_justify="left")
    for column in ("what", "how much", "how it was measured"):
        grid.add_column(column)
    for row in (*_machines(r, c, n, found, hour), *_traffic(r, c, n), *_costs(c)):
        grid.add_row(*row)
    return grid


Row = tuple[str, str, str]


def _machines(r: Rates, c: Costs, n: Needs, found: TopicData, hour: str) -> Iterator[Row]:
    yield "cores, busy", _rate(n.cores), f"rates of the {hour} times the costs below"
    spare = "; a second one takes over at once where one stops" if n.workers == 1 else ""
    yield "workers", f"{n.workers}", f"each busy for half of a core at the most{spare}"
    yield "partitions", f"{n.partitions} or more", f"so that workers can be doubled; there are {found.partitions}"
    parts = (
        f"{_bytes(c.base)} of libraries, {_bytes(c.serving)} to make lists, {_bytes(r.users * c.user)} of state in all"
    )
    yield "memory a worker", _bytes(n.memory), parts


def _traffic(r: Rates, c: Costs, n: Needs) -> Iterator[Row]:
    rows = f"{_rate(r.touched)} rows a second of {c.row:,.0f} bytes, {c.trends:,.0f} bytes of trends an event, packed"
    yield "changelog", f"{_bytes(n.changelog)}/s", rows
    yield "changelog, kept", _bytes(n.changelog_kept), f"a row for each of {r.users:,} users, once compacted"
    yield "network, in", f"{_bytes(n.network_in)}/s", f"events of {r.event:,.0f} bytes, as they are"
    lists = f"{_rate(r.lists)} lists a second of {c.list:,.0f} bytes, and the changelog; replicas come on top"
    yield "network, out", f"{_bytes(n.network_out)}/s", lists


def _costs(c: Costs) -> Iterator[Row]:
    each = 1 / (c.fetching + c.applying)
    yield "events a CPU-second", f"{each:,.0f}", "your events, fetched, decoded and applied just now"
    lists = "lists with their reasons for your users, before any training, made just now"
    yield "lists a CPU-second", f"{1 / c.listing:,.0f}", lists
    yield "bytes a user", f"{c.user:,.0f}", "the state of your users after these events, in memory just now"


def _rate(n: float) -> str:
    return f"{n:,.0f}" if n >= 100 else f"{n:.2g}"


def _bytes(n: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if n < 1000:
            return f"{n:,.0f} {unit}" if n >= 10 or unit == "bytes" else f"{n:,.1f} {unit}"
        n /= 1000
    return f"{n:,.1f} GB"


# For programs


def _as_dict(
    table: Table | None, every: int, r: Rates, c: Costs, n: Needs, found: TopicData, notes: list[str]
) -> dict[str, Any]:
    """All of it in plain values, an interval as [mean, low, high]."""
    from model.evaluation.report import plain

    methods: dict[str, Any] = {}
    differences: dict[str, Any] = {}
    if table is not None:
        at = f"hr@{table.k}", f"ndcg@{table.k}"
        methods = {m: {k: plain(table.interval(table.metrics(m)[k])) for k in at} for m in table.answers}
        differences = {
            m: {other: plain(table.difference(m, other)[at[0]]) for other in BASELINES} for m in _ours(table)
        }
    ts = found.data.events.ts
    return {
        "range": [int(ts[0]), int(ts[-1]) + 1],
        "events": len(ts),
        "questions": 0 if table is None else len(table.asks),
        "every": every,
        "methods": methods,
        "differences": differences,
        "rates": asdict(r),
        "costs": asdict(c),
        "needs": asdict(n),
        "partitions": found.partitions,
        "share": found.share,
        "unreadable": found.unreadable,
        "notes": [*found.data.notes, *notes],
    }
