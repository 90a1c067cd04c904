"""`eddyline evaluate`: how good methods are, under a protocol. What else is measured of them is in `audits.py`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stream.console.audits import Groups, explain
from stream.console.audits import noise as put_noise
from stream.console.common import Bootstrap, Json, out, progress, settings
from stream.console.comparing import PROTOCOL as VARIANTS
from stream.console.comparing import compare
from stream.console.histories import Data, Since, Until, Wanted, catalogued
from stream.console.offpolicy import OUTCOMES, POLICIES, off_policy
from stream.console.offpolicy import PROTOCOL as OFF_POLICY
from stream.console.training import texts_of
from stream.errors import ConfigError

if TYPE_CHECKING:
    from model.catalog import Catalog
    from model.dataset import Dataset
    from model.evaluation.exams import World


def evaluate(
    data: Data,
    protocol: Annotated[
        str,
        typer.Option(
            help="temporal, basket, loo, continual or session-stream; off-policy or variants, where DATA is a folder "
            "with lists and feedback as they are in their topics, or `topics` for these themselves."
        ),
    ] = "temporal",
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
    shards: Annotated[
        int, typer.Option(help="What it costs if users are split among N workers that share no counts.", min=1)
    ] = 1,
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
    policies: Annotated[
        str, typer.Option(help="off-policy: what else might have been shown; softmax=0.5+new=0.05 too.")
    ] = POLICIES,
    outcomes: Annotated[
        str, typer.Option(help="off-policy: what a list is worth by what came of it, as clicked=1,bought=5.")
    ] = OUTCOMES,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a plot: PNG, SVG or PDF.")] = None,
    since: Since = None,
    until: Until = None,
    kafka: Bootstrap = None,
    as_json: Json = False,
) -> None:
    """Compare methods on a data set under a protocol. Example: eddyline evaluate movielens-100k --models counts,ease"""
    if protocol in (VARIANTS, OFF_POLICY) and (since or until):
        raise ConfigError(f"--protocol {protocol} reads lists and feedback whole", "leave --since and --until out")
    if protocol == VARIANTS:
        compare(data, as_json, kafka)
        return
    if protocol == OFF_POLICY:
        off_policy(data, policies, outcomes, as_json, kafka)
        return
    from model.config import TrainConfig
    from model.evaluation.methods.lived import ways
    from model.evaluation.methods.registry import defaults, make, released
    from model.evaluation.methods.trained import Trained
    from model.evaluation.protocols import evaluate as run_protocol
    from model.evaluation.report import as_dict, draw, drawable, of_values, plain, shown
    from model.evaluation.values import engines, told

    found, catalog = catalogued(Wanted.of(data, since, until, kafka))
    world = world_of(found, catalog, protocol, begin, k, keep, shards)
    splits = (begin - 0.05, begin, 1.0)
    named = named_in(models) or defaults(protocol, (world.train or TrainConfig()).model)
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
    if explanations:
        explain(world, found.name, protocol, splits, methods, explanations, as_json)
        return
    grouped = Groups(world, found.people, groups) if groups else None
    if plot:
        drawable(Path(plot))
    with ExitStack() as bars:
        bar = lambda title: bars.enter_context(progress(title))  # noqa: E731
        tables = run_protocol(world, protocol, methods, splits, k, tune, bar, named_in(rows), every)
    values = told(world, engines(tables["temporal"][1]), begin) if "temporal" in tables else None
    if plot:
        draw(tables, found.name, Path(plot))
    if as_json:
        said = as_dict(tables, world)
        if grouped is not None:
            said = {row: of | grouped.as_dict(tables[row][0]) for row, of in said.items()}
        valued = {n: {m: plain(v) for m, v in row.items()} for n, row in values.rows().items()} if values else {}
        print(json.dumps({"data": found.name, "protocol": protocol, "rows": said, "values": valued}))
        return
    for table in [*shown(tables, found.name, world), *(grouped.shown(tables, found.name) if grouped else [])]:
        out.print(table)
    if values is not None:
        out.print(of_values(values))


def named_in(text: str) -> list[str]:
    """What is named between commas, each once."""
    return list(dict.fromkeys(filter(None, map(str.strip, text.split(",")))))


def world_of(
    found: Dataset,
    catalog: Catalog,
    protocol: str = "temporal",
    begin: float = 0.9,
    k: int | None = None,
    keep: str | None = None,
    shards: int = 1,
) -> World:
    """What methods may know of a data set, as the settings say."""
    from model.encoder import TextEncoder
    from model.evaluation.exams import World
    from model.evaluation.protocols import length_of, trained_for
    from model.people import People

    s = settings()
    # Models choose on the events that other methods' settings are chosen on, where these are the last that are learned.
    held_out = {"held_out": 0.05 / begin} if protocol == "temporal" else {}
    how = trained_for(protocol, s.train.model_copy(update=held_out))
    # Without a disk cache: what users did would lie there as vectors for ever, and what was tried with texts.
    encoder = TextEncoder(s.encoder.name, precision=s.encoder.precision)
    return World(
        found.events,
        catalog,
        found.items,
        cache(lambda: texts_of(found, catalog, "cpu")),
        weights=s.input.weights,
        encode=encoder.encode,
        encoder=encoder,
        train=how,
        keep=Path(keep) if keep else None,
        rules=s.rank.rules,
        exposure=s.rank.exposure,
        diversity=s.rank.diversity,
        feedback=s.rank.feedback,
        places=k or length_of(protocol),
        variation=s.trends.variation,
        shards=shards,
        people=People.of(found.people.values()),
    )
