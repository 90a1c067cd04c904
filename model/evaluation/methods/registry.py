"""Methods by the names that `--models` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError

from model import checkpoint
from model.catalog import Catalog
from model.config import ModelConfig
from model.engine import Engine
from model.evaluation import basket, session_stream
from model.evaluation.exams import Method, World
from model.evaluation.methods.ease import Ease
from model.evaluation.methods.itemknn import ItemKnn
from model.evaluation.methods.personal import Personal
from model.evaluation.methods.popularity import Popularity
from model.evaluation.methods.rankedwalks import RankedWalks
from model.evaluation.methods.regulars import Regulars
from model.evaluation.methods.served import Counts, Served
from model.evaluation.methods.text import TextSvd
from model.evaluation.methods.trained import Trained
from model.evaluation.methods.walks import Walks
from model.feedback import FeedbackConfig
from model.mix import Mix


class UnknownMethodError(ValueError):
    """A name that no method has."""


def _titles(world: World) -> list[str]:
    catalog: Catalog = world.catalog
    return [world.items[i].text_for_encoder() for i in catalog.ids]


METHODS: Mapping[str, Callable[[World], Method]] = MappingProxyType(
    {
        "popular": lambda w: Popularity(len(w.catalog)),
        "popular-7d": lambda w: Popularity(len(w.catalog), 7.0),
        "item-knn": lambda w: ItemKnn(len(w.catalog)),
        "ease": lambda w: Ease(len(w.catalog)),
        "personal": lambda w: Personal(len(w.catalog), 0.0),
        "personal+popular": lambda w: Personal(len(w.catalog)),
        "tfidf-svd": lambda w: TextSvd(_titles(w)),
        "counts": lambda w: Counts(w, Mix(), repeat=False),
        "counts+repeat": lambda w: Counts(w, Mix(repeat=0.3), repeat=True),
        "walks": lambda w: Walks(len(w.catalog)),
        "walks-ranked": lambda w: RankedWalks(Walks(len(w.catalog)), partial(session_stream.papers, w)),
        "regulars": lambda w: Regulars(w.catalog, partial(basket.papers, w)),
        "fallback": lambda w: Served(
            w, Engine(w.catalog, w.texts(), exposure=w.exposure, diversity=w.diversity), "fallback"
        ),
        "fallback-neural": lambda w: Served(w, Engine(w.catalog, w.texts()), "fallback-neural", neural_only=True),
    }
)


DEFAULTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "temporal": ("popular", "popular-7d", "item-knn", "tfidf-svd", "counts", "fallback-neural", "fallback"),
        "basket": (
            "popular",
            "popular-7d",
            "item-knn",
            "personal",
            "personal+popular",
            "counts",
            "counts+repeat",
            "regulars",
        ),
        "loo": ("popular", "item-knn", "ease", "tfidf-svd", "counts", "fallback-neural", "fallback"),
        "session-stream": ("popular", "counts", "counts+repeat", "walks", "walks-ranked"),
    }
)
"""By protocol: what is compared unless methods are named; see `defaults`."""


def defaults(protocol: str, model: ModelConfig) -> list[str]:
    """What is compared under a protocol unless methods are named: under `temporal`, by which defaults are chosen, also
    this model, and under `continual` it alone. Elsewhere it is to be asked for: papers compare others there, and a
    training is long.
    """
    own = [f"{model.short_term}/{model.long_term}/{model.fusion}"] if protocol in ("temporal", "continual") else []
    return [*DEFAULTS.get(protocol, ()), *own]


def make(names: Sequence[str], world: World, seeds: int = 1) -> list[Method]:
    """Methods by name: those of `METHODS`, and short/long/fusion for a model that is trained, one of each seed. Raises
    UnknownMethodError.
    """
    methods: list[Method] = []
    for name in names:
        if name in METHODS:
            methods.append(METHODS[name](world))
        elif name.count("/") == 2:
            methods += [_trained(world, name, seed) for seed in range(world.seed, world.seed + seeds)]
        else:
            known = ", ".join(METHODS)
            raise UnknownMethodError(f"no method {name!r}: use some of {known}, or short/long/fusion")
    return methods


def _trained(world: World, name: str, seed: int) -> Method:
    try:
        return Trained(world, name, seed)
    except ValidationError as e:
        said = "; ".join(str(error["msg"]) for error in e.errors())
        raise UnknownMethodError(f"no model {name!r}: {said}") from e


def released(world: World, folder: Path) -> list[Method]:
    """A model folder: as it is released, its vectors alone, those of its texts alone where it has adapted them (beside
    `fallback-neural`); as if feedback moved nobody, where it does; and, where people are described, as if they were
    not.
    """
    model = checkpoint.load(folder)
    texts, read = world.read_by(model.adapter)
    engine = Engine(world.catalog, texts, model, encode=read, exposure=world.exposure, diversity=world.diversity)
    made: list[Method] = [Served(world, engine, "released"), Served(world, engine, "neural", neural_only=True)]
    if model.adapter is not None:
        made.append(Served(world, Engine(world.catalog, texts), "adapted texts", neural_only=True))
    if world.feedback.on:
        made.append(Served(replace(world, feedback=FeedbackConfig()), engine, "released, no feedback"))
    return [*made, Served(world, engine, "released, no users.csv", people=False)] if len(world.people) else made
