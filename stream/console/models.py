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
    done = run(announce_release(s.kafka, s.topics.release, path, name or model.kind, model.metrics))
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
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = "--" + str(first["loc"][-1]).replace("_", "-")
        raise ConfigError(f"{name} {first['input']}: {first['msg']}", "see eddyline train --help") from error


def evaluate(
    data: Data,
    folder: Annotated[str | None, typer.Option("--model", metavar="FOLDER", help="A model folder to compare.")] = None,
    begin: Annotated[float, typer.Option(help="Test after this share of the events.", min=0.01, max=0.99)] = 0.8,
    as_json: Json = False,
) -> None:
    """Compare rankers on a data set's later events, one by one. Example: eddyline evaluate movielens-100k"""
    import json
    from pathlib import Path

    from rich.table import Table

    from model import checkpoint
    from model.evaluate import EvaluateConfig, temporal

    found, catalog, texts = _encoded(data, "cpu")
    model = checkpoint.load(Path(folder)) if folder else None
    with progress("testing") as bar:
        table = temporal(found.events, catalog, texts, model, EvaluateConfig(train=begin), bar)
    rows = table.rows()
    if as_json:
        told = {name: {k: getattr(v, "mean", v) for k, v in row.items()} for name, row in rows.items()}
        print(json.dumps({"data": found.name, "events": len(table.users), "rows": told}))
        return
    shown = Table(title=f"{found.name}: {len(table.users)} events after the first {begin:.0%}", title_justify="left")
    for column in ("ranker", *next(iter(rows.values()))):
        shown.add_column(column)
    for name, row in rows.items():
        shown.add_row(name, *(f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()))
    out.print(shown)


def _encoded(data: str, device: str) -> tuple[Dataset, Catalog, np.ndarray]:
    """A data set, its catalogue, and the text vectors of its items; what must be said of it is said."""
    from model.catalog import Catalog
    from model.datasets import load
    from model.encoder import TextEncoder

    s = settings()
    found = load(data, s.cache)
    for note in (found.licence, *found.notes):
        err.print(note, highlight=False, markup=False)
    catalog = Catalog.build(found.items, 1)
    with progress("encoding texts") as bar:
        texts = TextEncoder(s.encoder.name, device, s.cache).encode(
            [found.items[item].text_for_encoder() for item in catalog.ids], bar
        )
    return found, catalog, texts
