"""`eddyline train`, `evaluate`, `release`: models from data, and models into workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.console.common import Bootstrap, Json, err, out, progress, run, settings

if TYPE_CHECKING:
    import numpy as np

    from model.catalog import Catalog
    from model.config import TrainConfig
    from model.dataset import Dataset

release = typer.Typer(help="The model that workers serve.", no_args_is_help=True)

Data = Annotated[str, typer.Argument(metavar="DATA", help="movielens-100k, complete-journey, or a folder.")]


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


def train(
    data: Data,
    folder: Annotated[str, typer.Option("--out", metavar="FOLDER", help="Where the model folder is written.")],
    end: Annotated[float, typer.Option(help="Train on this first share of the events.", min=0.01, max=1)] = 1.0,
    short_term: Annotated[
        str | None, typer.Option(metavar="NAME", help="gpt, lstm, gru, cnn or cnn-lstm-attention.")
    ] = None,
    long_term: Annotated[str | None, typer.Option(metavar="NAME", help="pooled, counted, document or buckets.")] = None,
    fusion: Annotated[str | None, typer.Option(metavar="NAME", help="attention, steps, alpha or gate.")] = None,
    window: Annotated[int | None, typer.Option(help="Interactions that the encoder reads.", min=1)] = None,
    dim: Annotated[int | None, typer.Option(help="Length of user and item vectors.", min=8)] = None,
    layers: Annotated[int | None, typer.Option(min=1)] = None,
    both_ways: Annotated[bool | None, typer.Option("--both-ways", help="lstm, gru: from both ends.")] = None,
    action_head: Annotated[bool | None, typer.Option("--action-head", help="Also learn the next action.")] = None,
    rating_head: Annotated[bool | None, typer.Option("--rating-head", help="Also learn values of events.")] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="FOLDER", help="Begin from this model, of the same parts.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="One seed fixes a run.")] = None,
    as_json: Json = False,
) -> None:
    """Train a model on a data set; interrupted, the same command goes on where it was.

    Examples: eddyline train movielens-100k --out models/1

    eddyline train ./shop --out models/2 --short-term cnn-lstm-attention --long-term buckets --fusion gate

    Flags come before the section [train] of the settings, which has more (EDDYLINE_TRAIN__EMA=0.99, and so on).
    """
    import json
    from datetime import UTC, datetime
    from pathlib import Path

    from model import checkpoint
    from model.encoder import TextEncoder
    from model.train import train as train_model
    from stream.lists.serving import pick_device

    on = pick_device(device)
    config = _train_config(
        {"epochs": epochs, "batch": batch, "learning_rate": learning_rate, "seed": seed, "device": on},
        {
            "short_term": short_term,
            "long_term": long_term,
            "fusion": fusion,
            "window": window,
            "dim": dim,
            "layers": layers,
            "both_ways": both_ways,
            "action_head": action_head,
            "rating_head": rating_head,
        },
    )
    found, catalog, texts = _encoded(data, on)

    def tell(at: dict[str, Any]) -> None:
        quality = f", HR@10 {at['hr']:.4f}, NDCG@10 {at['ndcg']:.4f}" if "hr" in at else ""
        if as_json:
            print(json.dumps(at), flush=True)
            return
        where = f"{at['phase']}: epoch {at['epoch']} of {at['epochs']}, {at['seconds']:.0f} s"
        err.print(f"{where}, loss {at['loss']:.3f}{quality}", highlight=False)

    events = found.events.take(slice(0, int(end * len(found.events))))
    path = Path(folder)
    unfinished = path.with_name(path.name + ".training")
    if unfinished.is_file():
        err.print(f"going on from {unfinished}, if it is of this training", highlight=False)
    read = TextEncoder(settings().encoder.name, on).encode
    model = train_model(
        events, catalog, texts, config, tell, read, unfinished, checkpoint.load(Path(start)) if start else None
    )
    checkpoint.save(path, model, datetime.now(UTC), checkpoint.data_hash(events))
    if as_json:
        print(json.dumps({"metrics": model.metrics, "folder": folder}), flush=True)
    else:
        out.print(f"{folder}: {model.metrics}", highlight=False)
        out.print(f"announce it to running workers: eddyline release announce {folder}")


def _train_config(run: dict[str, Any], model: dict[str, Any]) -> TrainConfig:
    """The settings' section [train] with these flags over it (None = not given). Raises ConfigError."""
    from pydantic import ValidationError

    from model.config import TrainConfig
    from stream.errors import ConfigError

    s = settings()
    values = s.train.model_dump()
    values["model"] |= {name: value for name, value in model.items() if value is not None}
    values |= {name: value for name, value in run.items() if value is not None}
    values["action_weights"] = {**s.input.weights, **s.train.action_weights}
    if "seen" not in s.train.model_fields_set:
        values["seen"] = s.rank.seen
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][-1]).replace("_", "-")
        raise ConfigError(f"{name} {first['input']}: {first['msg']}", "see eddyline train --help") from error


def evaluate(
    data: Data,
    protocol: Annotated[str, typer.Option(help="temporal, basket, loo or session-stream.")] = "temporal",
    models: Annotated[
        str,
        typer.Option(
            help="Methods, with commas between them; short/long/fusion is trained. Default: what suits the protocol."
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
    every: Annotated[int, typer.Option(help="Ask every N-th question of the test only.", min=1)] = 1,
    plot: Annotated[str | None, typer.Option(metavar="FILE", help="Write a plot: PNG, SVG or PDF.")] = None,
    as_json: Json = False,
) -> None:
    """Compare methods on a data set under a protocol. Example: eddyline evaluate movielens-100k --models counts,ease"""
    import json
    from contextlib import ExitStack
    from functools import cache
    from pathlib import Path

    from model.encoder import TextEncoder
    from model.evaluation.exams import World
    from model.evaluation.methods.registry import DEFAULTS, make, released
    from model.evaluation.protocols import evaluate as run_protocol
    from model.evaluation.report import as_dict, draw, shown

    found, catalog = _catalogued(data)
    texts = cache(lambda: _texts(found, catalog, "cpu"))
    s = settings()
    # Without a disk cache: what users did would lie there as vectors for ever.
    encode = TextEncoder(s.encoder.name).encode
    world = World(found.events, catalog, found.items, texts, weights=s.input.weights, encode=encode)
    methods = make(models.split(",") if models else DEFAULTS.get(protocol, ()), world, seeds)
    if folder:
        methods += released(world, Path(folder))
    wanted = [r for r in rows.split(",") if r]
    with ExitStack() as bars:
        splits = (begin - 0.05, begin, 1.0)
        bar = lambda title: bars.enter_context(progress(title))  # noqa: E731
        tables = run_protocol(world, protocol, methods, splits, k, tune, bar, wanted, every)
    if plot:
        draw(tables, found.name, Path(plot))
    if as_json:
        print(json.dumps({"data": found.name, "protocol": protocol, "rows": as_dict(tables, world)}))
        return
    for table in shown(tables, found.name, world):
        out.print(table)


def _encoded(data: str, device: str) -> tuple[Dataset, Catalog, np.ndarray]:
    """A data set, its catalogue, and the text vectors of its items; what must be said of it is said."""
    found, catalog = _catalogued(data)
    return found, catalog, _texts(found, catalog, device)


def _catalogued(data: str) -> tuple[Dataset, Catalog]:
    from model.catalog import Catalog
    from model.datasets import load

    found = load(data, settings().cache)
    for note in (found.licence, *found.notes):
        err.print(note, highlight=False, markup=False)
    return found, Catalog.build(found.items, 1)


def _texts(found: Dataset, catalog: Catalog, device: str) -> np.ndarray:
    from model.encoder import TextEncoder

    s = settings()
    with progress("encoding texts") as bar:
        return TextEncoder(s.encoder.name, device, s.cache).encode(
            [found.items[item].text_for_encoder() for item in catalog.ids], bar
        )
