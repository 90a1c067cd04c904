"""`eddyline train`: a data set, or the topics themselves, into a model folder. Training itself is `model/train.py`;
here are its flags, and what is told of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from stream.console.common import Bootstrap, Json, err, out, progress, settings
from stream.console.histories import TOPICS, Since, Until, Wanted, catalogued

if TYPE_CHECKING:
    import numpy as np

    from model.adapter import Adapter
    from model.catalog import Catalog
    from model.config import TrainConfig
    from model.dataset import Dataset, Events
    from model.encoder import TextEncoder
    from model.parallel import Group
    from model.recommender import Recommender
    from model.search import Found, Trial

Tell = Callable[[dict[str, Any]], None]


def train(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="movielens-100k, complete-journey, or a folder; none with --from-topics."),
    ] = None,
    from_topics: Annotated[
        bool,
        typer.Option("--from-topics", help="Train on what is in the input topics, the catalogue and the users topic."),
    ] = False,
    since: Since = None,
    until: Until = None,
    kafka: Bootstrap = None,
    folder: Annotated[
        str | None, typer.Option("--out", metavar="FOLDER", help="Where the model folder is written: models/DATA.")
    ] = None,
    end: Annotated[float, typer.Option(help="Train on this first share of the events.", min=0.01, max=1)] = 1.0,
    short_term: Annotated[
        str | None, typer.Option(metavar="NAME", help="gpt, lstm, gru, cnn or cnn-lstm-attention.")
    ] = None,
    long_term: Annotated[str | None, typer.Option(metavar="NAME", help="pooled, counted, document or buckets.")] = None,
    fusion: Annotated[str | None, typer.Option(metavar="NAME", help="attention, steps, alpha or gate.")] = None,
    window: Annotated[int | None, typer.Option(help="Interactions that the encoder reads.", min=1)] = None,
    dim: Annotated[int | None, typer.Option(help="Length of user and item vectors.", min=8)] = None,
    layers: Annotated[
        int | None, typer.Option(help="Layers of the encoder: blocks of gpt, convolutions of cnn, ...", min=1)
    ] = None,
    both_ways: Annotated[bool | None, typer.Option("--both-ways", help="lstm, gru: from both ends.")] = None,
    action_head: Annotated[bool | None, typer.Option("--action-head", help="Also learn the next action.")] = None,
    rating_head: Annotated[bool | None, typer.Option("--rating-head", help="Also learn values of events.")] = None,
    habits: Annotated[
        bool | None,
        typer.Option("--habits", help="Also learn what users come back to, and when; wants [rank] seen = allow."),
    ] = None,
    adapt_texts: Annotated[
        bool, typer.Option("--adapt-texts", help="First adapt the text encoder to what follows what (LoRA).")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="FOLDER", help="Go on from this model: learn what is newer than it.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many.", min=1)] = None,
    batch: Annotated[int | None, typer.Option(help="Windows per step.", min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The greatest; it warms up, then falls.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seed: Annotated[int | None, typer.Option(help="One seed fixes a run.")] = None,
    search: Annotated[
        int,
        typer.Option(metavar="N", help="First try N settings from the ranges of [search]; train with the best."),
    ] = 0,
    tensorboard: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write the curve there, for TensorBoard, too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a model on a data set; interrupted, the same command goes on where it was.

    Examples: eddyline train ./shop, which writes models/shop

    eddyline train ./shop --out models/2 --short-term cnn-lstm-attention --long-term buckets --fusion gate

    eddyline train --from-topics --since 30d --out models/4

    torchrun --standalone --nproc-per-node 2 -m stream.console.cli train ./shop --out models/3

    Flags come before the section [train] of the settings, which has more (EDDYLINE_TRAIN__EMA=0.99, and so on).
    """
    from model.parallel import joined
    from stream.lists.serving import pick_device

    wanted = _wanted(data, from_topics, since, until, kafka)
    with joined(pick_device(device)) as (group, on):
        err.quiet = not group.first  # one speaks for all
        parent = _parent(Path(start)) if start else None
        config = _train_config(
            {
                "epochs": epochs,
                "batch": batch,
                "learning_rate": learning_rate,
                "habits": habits or (parent is not None and parent.model.habits is not None) or None,
                "seed": seed,
                "device": on,
            },
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
            parent.model.config.model_dump(exclude={"mix"}) if parent else {},
            adapt_texts,
        )
        out_folder = Path(folder) if folder else Path("models") / Path(wanted.data).resolve().name
        _made(wanted, out_folder, end, config, parent, search, tensorboard, as_json, group)


def _wanted(data: str | None, from_topics: bool, since: str | None, until: str | None, kafka: str | None) -> Wanted:
    """What to train on. Raises ConfigError."""
    from stream.errors import ConfigError

    if from_topics and data not in (None, TOPICS):
        raise ConfigError(f"both {data} and --from-topics are asked for", "leave one of them out")
    if not from_topics and data is None:
        raise ConfigError("nothing is said to train on", "name a data set or a folder, or say --from-topics")
    return Wanted.of(TOPICS if from_topics or data is None else data, since, until, kafka)


def _made(
    wanted: Wanted,
    path: Path,
    end: float,
    config: TrainConfig,
    parent: Parent | None,
    trials: int,
    tensorboard: str | None,
    as_json: bool,
    group: Group,
) -> None:
    """Trains, and writes the folder."""
    import json
    from datetime import UTC, datetime

    from model import checkpoint
    from model.board import Board
    from model.dataset import as_history
    from model.leaning import leanings_of
    from model.people import People
    from model.replay import human
    from model.train import train as train_model
    from stream.errors import ConfigError

    if trials and group.size > 1:
        raise ConfigError("--search runs in one process", "search first, then train with what it found")
    if path.exists() and not (path / checkpoint.MANIFEST).is_file():  # told now, not after hours of training
        raise checkpoint.ModelFolderError(f"{path}: exists and is no model folder; name another with --out")
    board = Board(Path(tensorboard)) if tensorboard and group.first else None
    found, catalog = catalogued(wanted, group)
    # The share is of events as they are: an evaluation of the rest cuts there too.
    events = as_history(found.events.take(slice(0, int(end * len(found.events)))))
    events = human(events, settings().trends.variation)
    named = checkpoint.data_hash(events)
    _valued(events, config, parent)
    adapter = parent.model.adapter if parent else _adapter(events, catalog, config, group)
    texts = texts_of(found, catalog, config.device, adapter)
    read = reader(config.device, adapter).forgetful().encode

    def fit(c: TrainConfig, tell: Tell, resumable: Path | None = None) -> Recommender:
        start, since = (parent.model, parent.until) if parent else (None, None)
        return train_model(events, catalog, texts, c, tell, read, resumable, start, group, since)

    tried: dict[str, Any] = {}
    if trials:
        config, tried = _searched(config, trials, fit, path, named, as_json)
    unfinished = path.with_name(path.name + ".training")
    if unfinished.is_file() and group.first:
        err.print(f"going on from {unfinished}, if it is of this training", highlight=False)

    def tell(at: dict[str, Any]) -> None:
        _told(at, as_json)
        if board is not None:
            board(at)

    model = fit(config, tell, unfinished)
    if board is not None:
        board.close()
    if not group.first:
        return
    model.record |= tried
    if parent is not None:
        model.record["parent"] = {"model": parent.model.name, "sha256": parent.sha256, "until": parent.until}
    model.adapter = adapter
    people = People.of(found.people[user] for user in sorted(found.people))
    model.leanings = leanings_of(events, people, catalog, config.action_weights)
    checkpoint.save(path, model, datetime.now(UTC), named)
    if as_json:
        print(json.dumps({"metrics": model.metrics, "folder": str(path)}), flush=True)
    else:
        out.print(f"{path}: {model.metrics}", highlight=False)
        out.print(f"announce it to running workers: eddyline release announce {path}")


def _valued(events: Events, config: TrainConfig, parent: Parent | None) -> None:
    """Says so where a rating head has nothing to learn from. Raises ConfigError where it never had."""
    import numpy as np

    from stream.errors import ConfigError

    if not config.model.rating_head or np.isfinite(events.value).any():
        return
    if parent is None:
        raise ConfigError(
            "--rating-head: no event has a value to learn", "leave it out, or bring values: a column `value`"
        )
    err.print("no new event has a value: the rating head stays as it was", highlight=False)


def _adapter(events: Events, catalog: Catalog, config: TrainConfig, group: Group) -> Adapter | None:
    """What these events say of the texts, where that is asked for; learned by one process for all."""
    if not config.adapt.enabled:
        return None
    from model.adapt import learned

    if not group.first:
        return group.agreed(None)
    with progress("adapting texts") as bar:
        return group.agreed(learned(events, catalog, reader(config.device), config, progress=bar))


class Parent(NamedTuple):
    """A model to go on from: the time of the newest event that it has learned (ms), and the checksum of its folder."""

    model: Recommender
    until: int
    sha256: str


def _parent(folder: Path) -> Parent:
    from model import checkpoint
    from stream.errors import ModelError
    from stream.lists.release import manifest_sha256

    model = checkpoint.load(folder)
    until = model.record.get("until")
    if not isinstance(until, int):
        raise ModelError(f"{folder} does not say which events it has learned", "train it again, then go on from that")
    return Parent(model, until, manifest_sha256(folder))


def _told(at: dict[str, Any], as_json: bool) -> None:
    """Says what came of an epoch."""
    import json

    if as_json:
        print(json.dumps(at), flush=True)
        return
    quality = f", HR@10 {at['hr']:.4f}, NDCG@10 {at['ndcg']:.4f}" if "hr" in at else ""
    where = f"{at['phase']}: epoch {at['epoch']} of {at['epochs']}, {at['seconds']:.0f} s"
    err.print(f"{where}, loss {at['loss']:.3f}{quality}", highlight=False)


def _searched(
    config: TrainConfig, trials: int, fit: Callable[..., Recommender], path: Path, data: str, as_json: bool
) -> tuple[TrainConfig, dict[str, Any]]:
    """The settings that were found best, and what the record of the experiment says of the search."""
    import json
    from dataclasses import asdict

    from model.search import as_toml, changed, search

    def told(n: int, trial: Trial) -> None:
        if as_json:
            print(json.dumps({"phase": "search", "trial": n, "trials": trials, **asdict(trial)}), flush=True)
            return
        reached = "stopped early" if trial.ndcg is None else f"NDCG@10 {trial.ndcg:.4f}"
        err.print(f"search: trial {n} of {trials}, {reached}, {trial.settings}", highlight=False)

    study = path.with_name(path.name + ".search")
    found: Found = search(config, settings().search.ranges, trials, fit, study, data, told)
    if not as_json:
        out.print(as_toml(found.best), highlight=False, markup=False)
    return changed(config, found.best), {"search": [asdict(t) for t in found.trials]}


def _train_config(
    run: dict[str, Any], model: dict[str, Any], parts: Mapping[str, Any] | None = None, adapt: bool = False
) -> TrainConfig:
    """The settings' section [train] with these flags over it (None = not given). parts: what a model that goes on is
    made of, in place of the section's; it reads texts as it did before. Raises ConfigError.
    """
    from pydantic import ValidationError

    from model.config import BOTH_WAYS, TrainConfig
    from stream.errors import ConfigError

    s = settings()
    values = s.train.model_dump()
    values["model"] |= dict(parts or {})
    values["model"] |= {name: value for name, value in model.items() if value is not None}
    values |= {name: value for name, value in run.items() if value is not None}
    if adapt and parts:
        raise ConfigError("--adapt-texts with --from", "a model that goes on reads texts as before: leave one out")
    values["adapt"]["enabled"] = (adapt or s.train.adapt.enabled) and not parts
    values["action_weights"] = {**s.input.weights, **s.train.action_weights}
    if "seen" not in s.train.model_fields_set:
        values["seen"] = s.rank.seen
    try:
        made = TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"][-1] == "model":  # what does not go together; each setting by itself is sound
            raise ConfigError(first["msg"].removeprefix("Value error, "), "see --dim and [train.model]") from error
        name = "--" + str(first["loc"][-1]).replace("_", "-")
        raise ConfigError(f"{name} {first['input']}: {first['msg']}", "see eddyline train --help") from error
    if made.model.both_ways and made.model.short_term not in BOTH_WAYS:
        raise ConfigError(
            f"--both-ways: {made.model.short_term} reads a window from one end only",
            f"leave it out, or name an encoder that can: --short-term {' or '.join(BOTH_WAYS)}",
        )
    return made


def reader(device: str, adapter: Adapter | None = None) -> TextEncoder:
    """The text encoder of the settings, with what a model adapts it by."""
    from model.encoder import TextEncoder

    s = settings()
    return TextEncoder(s.encoder.name, device, s.cache, s.encoder.precision, adapter)


def texts_of(found: Dataset, catalog: Catalog, device: str, adapter: Adapter | None = None) -> np.ndarray:
    """The text vectors of its items."""
    with progress("encoding texts") as bar:
        return reader(device, adapter).encode([found.items[item].text_for_encoder() for item in catalog.ids], bar)
