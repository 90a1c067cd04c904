"""Compression: what a cheaper text encoder and shorter vectors save, and what they cost in quality.

Text encoders: full precision, bf16, int8 (dynamic quantisation of all linear layers), and half of the layers. Speed is
texts a CPU-second on one thread, of titles in batches and of documents (a history in words); quality is that of the
untrained fallback's vectors alone, which are the texts', under `temporal`. Vectors: of the fallback and of a model
folder, their first numbers only, or as many directions in which the items differ most (SVD); speed is of comparing all
of 100,000 such vectors by FAISS. The last line is JSON; `--plot` draws quality against speed.

    make bench NAME=compression ARGS="--model models/1 --plot build/compression.svg"
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model import checkpoint
from model.catalog import Catalog
from model.datasets import load
from model.encoder import TextEncoder
from model.engine import Engine
from model.evaluation import temporal
from model.evaluation.exams import Asked, Method, World
from model.evaluation.methods.served import Served
from model.evaluation.running import take
from model.metrics import Interval
from stream.settings import load as settings
from tests.bench import common

ENCODERS = ("fp32", "bf16", "int8", "half the layers")
LENGTHS = (256, 128, 64, 32)
SEARCHED, QUERIES = 100_000, 64
TITLES, DOCUMENTS = 512, 32
REPEATS = 3


class Reader(TextEncoder):
    """A text encoder that was made cheaper, with nothing kept on disk."""

    def __init__(self, name: str | None, kind: str) -> None:
        super().__init__(name, precision="bf16" if kind == "bf16" else "fp32")
        self.kind = kind

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            tokenizer, bert = super()._load()
            if self.kind == "int8":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch means to move it to a package of its own
                    bert = torch.ao.quantization.quantize_dynamic(bert, {torch.nn.Linear}, dtype=torch.qint8)
            elif self.kind == "half the layers":
                bert.encoder.layer = bert.encoder.layer[: len(bert.encoder.layer) // 2]
            self._loaded = tokenizer, bert
        assert self._loaded is not None
        return self._loaded

    def megabytes(self) -> float:
        """Of its weights."""
        bert = self._load()[1]
        packed = [m.weight() for m in bert.modules() if "quantized" in type(m).__module__ and hasattr(m, "weight")]
        return sum(t.numel() * t.element_size() for t in [*bert.parameters(), *packed]) / 1e6


class Shortened(Method):
    """An engine's vectors alone, users' and items' multiplied by a basis f32[D,d] first."""

    def __init__(self, name: str, engine: Engine, basis: NDArray[np.float32]) -> None:
        self.name, self._engine, self._basis = name, engine, basis
        self._items = engine.item_vectors @ basis

    def learn(self, line: object, end: int) -> None: ...

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        h = asked.histories
        users = self._engine.encode(h, self._engine.profiles(h)).vectors.numpy()
        return (users @ self._basis) @ self._items.T


@dataclass(frozen=True)
class Row:
    """One way, how fast it is, and what it reaches; HR@10 less that of the first way is paired by user."""

    name: str
    speed: Mapping[str, float]
    hr: Interval
    ndcg: Interval
    less: Interval


def main() -> None:
    """Measure, print the tables, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="movielens-100k", help="a data set by name, or a folder")
    parser.add_argument("--model", type=Path, help="a model folder, trained on the first 90%% of the data")
    parser.add_argument("--every", type=int, default=1, help="ask every N-th question only")
    parser.add_argument("--plot", type=Path, help="draw quality against speed to this file: SVG, PNG or PDF")
    args = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    s = settings()
    data = load(args.data, s.cache)
    catalog = Catalog.build(data.items, 1)
    texts = [data.items[i].text_for_encoder() for i in catalog.ids]
    encoder = TextEncoder(s.encoder.name, cache=s.cache)
    full = encoder.encode(texts)
    world = World(data.events, catalog, data.items, lambda: full, weights=s.input.weights)
    found = {"text encoder": encoders(world, texts, s.encoder.name, args.every)}
    engines = {"fallback": Engine(catalog, full)}
    if args.model:
        model = checkpoint.load(args.model)
        engines["trained"] = Engine(catalog, encoder.adapted(model.adapter).encode(texts), model)
    for name, engine in engines.items():
        found[f"vectors, {name}"] = vectors(world, engine, args.every)
    if args.plot:
        draw(found, args.plot)
    summary(found)


def encoders(world: World, texts: Sequence[str], name: str | None, every: int) -> list[Row]:
    """Each text encoder, its speed and its fallback."""
    documents = [f"today: click {'. '.join(texts[n : n + 16])}" for n in range(DOCUMENTS)]
    speeds: list[dict[str, float]] = []
    methods: list[Method] = []
    for kind in ENCODERS:
        with common.told(f"text encoder, {kind}"):
            reader = Reader(name, kind)
            titles = fastest(lambda r=reader: r.encode(texts[:TITLES]), TITLES)
            long = fastest(lambda r=reader: r.encode(documents), DOCUMENTS)
            speeds.append({"MB": reader.megabytes(), "titles / CPU-s": titles, "documents / CPU-s": long})
            engine = Engine(world.catalog, reader.encode(texts))
            methods.append(Served(world, engine, kind, neural_only=True))
    return rows(world, methods, speeds, every)


def vectors(world: World, engine: Engine, every: int) -> list[Row]:
    """An engine's vectors in full, and shortened in both ways."""
    full = engine.item_vectors.shape[1]
    directions = np.linalg.svd(engine.item_vectors, full_matrices=False)[2].T
    whole = np.eye(full, dtype=np.float32)
    ways = [Shortened(str(full), engine, whole)]
    lengths = [full]
    for d in (d for d in LENGTHS if d < full):
        ways.append(Shortened(f"{d}, SVD", engine, directions[:, :d].copy()))
        ways.append(Shortened(f"{d}, first", engine, whole[:, :d].copy()))
        lengths += [d, d]
    with common.told("comparing vectors"):
        speed = {d: {"bytes": 4.0 * d, "queries / CPU-s": searches(d)} for d in dict.fromkeys(lengths)}
    return rows(world, ways, [speed[d] for d in lengths], every)


def searches(dim: int) -> float:
    """Users a CPU-second whose 100 nearest of 100,000 vectors of this length are found by comparing all."""
    rng = np.random.default_rng(0)
    index = faiss.IndexFlatIP(dim)
    index.add(rng.normal(size=(SEARCHED, dim)).astype(np.float32))
    asked = rng.normal(size=(QUERIES, dim)).astype(np.float32)
    return fastest(lambda: index.search(asked, 100), QUERIES)


def fastest(work: Callable[[], object], n: int) -> float:
    """The most of n pieces of work that were done in a CPU-second, of a few times after a first one."""
    best = np.inf
    work()
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return n / best


def rows(world: World, methods: Sequence[Method], speeds: Sequence[Mapping[str, float]], every: int) -> list[Row]:
    """What all of them make of the events of the last tenth."""
    test = temporal.exams(world)[1][0].every(every)
    with common.told("asking"):
        papers = list(test.papers())
        test = replace(test, papers=lambda: papers)  # the same for all: histories are made once
        table = take(methods, [test], world, 10)
    made = []
    for method, speed in zip(methods, speeds, strict=True):
        of = table.metrics(method.name)
        less = table.difference(method.name, methods[0].name)["hr@10"]
        made.append(Row(method.name, speed, table.interval(of["hr@10"]), table.interval(of["ndcg@10"]), less))
    return made


def draw(found: Mapping[str, Sequence[Row]], path: Path) -> None:
    """A panel each: HR@10 with its interval against speed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(found), 4), layout="constrained")
    for axis, (title, some) in zip(np.atleast_1d(figure.subplots(1, len(found))), found.items(), strict=True):
        unit = list(some[0].speed)[1]
        for row in some:
            at, error = (row.speed[unit], row.hr.mean), [[row.hr.mean - row.hr.low], [row.hr.high - row.hr.mean]]
            axis.errorbar(*at, yerr=error, fmt="o", color="#4878a8", ecolor="#bbbbbb")
            axis.annotate(row.name, at, xytext=(4, 4), textcoords="offset points", fontsize=7)
        axis.set_title(title)
        axis.set_xlabel(unit)
        axis.set_ylabel("HR@10")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def summary(found: Mapping[str, Sequence[Row]]) -> None:
    """A table each, and all of it as a line of JSON."""
    for title, some in found.items():
        grid = Table(title=title)
        for column in ("way", *some[0].speed, "HR@10", "NDCG@10", "HR@10 less the first's"):
            grid.add_column(column)
        for row in some:
            speed = (f"{v:,.0f}" for v in row.speed.values())
            grid.add_row(row.name, *speed, str(row.hr), str(row.ndcg), str(row.less))
        Console().print(grid)
    print(json.dumps({"bench": "compression", **{t: [asdict(row) for row in some] for t, some in found.items()}}))


if __name__ == "__main__":
    main()
