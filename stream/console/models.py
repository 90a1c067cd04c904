"""`eddyline evaluate`, `release`: how good models are, and models into workers. They are made in `training.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.audits import Groups, explain
from stream.console.audits import noise as put_noise
from stream.console.common import Bootstrap, Json, out, progress, run, settings
from stream.console.training import Data, catalogued, texts_of

release = typer.Typer(help="The model that workers serve.", no_args_is_help=True)


@release.command()
def announce(
    folder: Annotated[str, typer.Argument(help="A model folder, where every worker can read it.")],
    kafka: Bootstrap = None,
    name: Annotated[str | None, typer.Option(help="The model's name in recommendations; default: its parts.")] = None,
) -> None:
    """Announce a model: running workers take it up. Example: eddyline release announce models/1"""
    from pathlib import Path

    from model import checkpoint
    from stream.lists.release import announce as announce_release

    s = settings(kafka)
    path = Path(folder)
    model = checkpoint.load(path)
    done = run(announce_release(s.kafka, s.topics.release, path, model.metrics, name))
    out.print(f"{done.model}@{done.version} announced from {done.location}")


@release.command()
def show(kafka: Bootstrap = None, as_json: Json = False) -> None:
    """Show the release that workers serve. Example: eddyline release show"""
    import json

    import msgspec

    from stream.lists.release import current

    s = settings(kafka)
    found = run(current(s.kafka, s.topics.release))
    if as_json:
        out.print_json(json.dumps(msgspec.to_builtins(found)))
    elif found is None:
        out.print("none: workers serve the fallback")
    else:
        out.print(f"{found.model}@{found.version} from {found.location}, {found.metrics}", highlight=False)


@release.command()
def withdraw(kafka: Bootstrap = None) -> None:
    """Withdraw the release: workers return to the fallback. Example: eddyline release withdraw"""
    from stream.lists.release import withdraw as withdraw_release

    s = settings(kafka)
    run(withdraw_release(s.kafka, s.topics.release))
    out.print("withdrawn: workers return to the fallback")


def evaluate(
    data: Data,
    protocol: Annotated[str, typer.Option(help="temporal, basket, loo, continual or session-stream.")] = "temporal",
    models: Annotated[
        str,
        typer.Option(
            help="Methods, with commas between them; short/long/fusion is trained. Default: what suits the protocol; "
            "under temporal the model of [train] is trained too."
        ),
    ] = "",
    folder: Annotated[
        str | None, typer.Option("--model", metavar="FOLDER", help="A model folder, trained on no event of the test.")
    ] = None,
    begin: Annotated[
        float,
        typer.Option(help="Test after this share of the events, settings chosen on the 5% before.", min=0.06, max=0.99),
    ] = 0.9,
    k: Annotated[int | None, typer.Option(help="Length of a list: 10, or 20 in session-stream.", min=1)] = None,
    tune: Annotated[bool, typer.Option(help="Choose each method's settings on the validation events.")] = True,
    rows: Annotated[
        str, typer.Option(help="Only these rows of the protocol, as temporal,strict or static,online.")
    ] = "",
    seeds: Annotated[int, typer.Option(help="So many seeds; a method that uses none is run once.", min=1)] = 1,
    parts: Annotated[
        bool,
        typer.Option("--parts", help="Each part of a trained model too, alone and left out: window, profile, counts."),
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Keep trained models here; an interrupted training goes on from here."),
    ] = None,
    every: Annotated[int, typer.Option(help="Ask every N-th question of the test only.", min=1)] = 1,
    explanations: Annotated[
        int,
        typer.Option(metavar="N", help="Instead: hold the reasons of N lists against scores without each interaction."),
    ] = 0,
    noise: Annotated[
        str,
        typer.Option(
            metavar="KIND", help="Instead: put repeated, bots, misclicks or bulk into what is learned (temporal only)."
        ),
    ] = "",
    share: Annotated[str, typer.Option(help="Noise, as shares of the events that are learned.")] = ".05,.1,.2",
    groups: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Also exposure by groups of items, and quality by attributes of users: items,gender,age.",
        ),
    ] = "",
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a plot: PNG, SVG or PDF.")] = None,
    as_json: Json = False,
) -> None:
    """Compare methods on a data set under a protocol. Example: eddyline evaluate movielens-100k --models counts,ease"""
    import json
    from contextlib import ExitStack
    from dataclasses import replace
    from functools import cache
    from pathlib import Path

    from model.encoder import TextEncoder
    from model.evaluation.exams import World
    from model.evaluation.methods.lived import ways
    from model.evaluation.methods.registry import defaults, make, released
    from model.evaluation.methods.trained import Trained
    from model.evaluation.protocols import evaluate as run_protocol
    from model.evaluation.protocols import length_of
    from model.evaluation.report import as_dict, draw, of_values, plain, shown
    from model.evaluation.values import engines, told
    from model.people import People

    found, catalog = catalogued(data)
    texts = cache(lambda: texts_of(found, catalog, "cpu"))
    s = settings()
    # Without a disk cache: what users did would lie there as vectors for ever.
    encode = TextEncoder(s.encoder.name, precision=s.encoder.precision).encode
    splits = (begin - 0.05, begin, 1.0)
    # Models choose on the events that other methods' settings are chosen on, where these are the last that are learned.
    how = s.train.model_copy(update={"held_out": 0.05 / begin} if protocol in ("temporal", "basket") else {})
    world = World(found.events, catalog, found.items, texts, weights=s.input.weights, encode=encode, train=how)
    world = replace(world, keep=Path(keep) if keep else None, people=People.of(found.people.values()))
    world = replace(world, exposure=s.rank.exposure, places=k or length_of(protocol), variation=s.trends.variation)
    grouped = Groups(world, data, groups) if groups else None
    named = models.split(",") if models else defaults(protocol, how.model)
    if noise:
        put_noise(world, found.name, protocol, lambda w: make(named, w, seeds), noise, share, splits, k, tune, as_json)
        return
    methods = make(named, world, seeds)
    if parts:
        methods += [part for method in methods if isinstance(method, Trained) for part in method.parts()]
    if protocol == "continual":
        methods += [way for method in methods if isinstance(method, Trained) for way in ways(method)]
    if folder:
        methods += released(world, Path(folder))
    wanted = [r for r in rows.split(",") if r]
    if explanations:
        explain(world, found.name, protocol, splits, methods, explanations, as_json)
        return
    with ExitStack() as bars:
        bar = lambda title: bars.enter_context(progress(title))  # noqa: E731
        tables = run_protocol(world, protocol, methods, splits, k, tune, bar, wanted, every)
    values = told(world, engines(tables["temporal"][1]), begin) if "temporal" in tables else None
    if plot:
        draw(tables, found.name, Path(plot))
    if as_json:
        said = as_dict(tables, world)
        if grouped is not None:
            said = {row: told | grouped.as_dict(tables[row][0]) for row, told in said.items()}
        valued = {n: {m: plain(v) for m, v in row.items()} for n, row in values.rows().items()} if values else {}
        print(json.dumps({"data": found.name, "protocol": protocol, "rows": said, "values": valued}))
        return
    for table in [*shown(tables, found.name, world), *(grouped.shown(tables, found.name) if grouped else [])]:
        out.print(table)
    if values is not None:
        out.print(of_values(values))
