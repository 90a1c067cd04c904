"""Candidates: how many a list needs, so that it is the list that ranking the whole catalogue makes.

The last 10% of MovieLens-100K, event by event, as a worker would answer them: as many candidates are sought by vector
as by counts, and the lists held against those of all items. By the untrained fallback or, with `--model`, by a trained
one. The last line is JSON.

    make bench NAME=candidates
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.exact import ExactIndex
from model import checkpoint
from model.catalog import Catalog
from model.datasets import load
from model.encoder import TextEncoder
from model.engine import Engine
from model.online import OnlineParams
from model.replay import steps, timeline
from stream.settings import load as settings
from tests.bench import common

SOUGHT = (200, 100, 64, 50, 32, 16)
PLACES = 10


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a model folder that has not learned the last 10%%, in place of the fallback")
    parser.add_argument("--events", type=int, default=10_000)
    args = parser.parse_args()
    said = settings()
    data = load("movielens-100k", said.cache)
    catalog = Catalog.build(data.items)
    model = checkpoint.load(Path(args.model)) if args.model else None
    encoder = TextEncoder(said.encoder.name, "cpu", said.cache).adapted(model.adapter if model else None)
    engine = Engine(catalog, encoder.encode(catalog.texts), model)
    every = ExactIndex.of(np.arange(len(catalog)), engine.item_vectors)
    line = timeline(data.events, catalog)
    first = int(len(line) * 0.9)
    found: dict[int, list[NDArray[np.int32]]] = {m: [] for m in (len(catalog), *SOUGHT)}
    with common.told(f"{args.events:,} lists, {len(found)} times"):
        for step in steps(line, first, min(first + args.events, len(line)), catalog, OnlineParams()):
            h, online = step.histories, step.online
            fused, followers = engine.encode(h, engine.profiles(h)), engine.followers(h, online)
            for m, lists in found.items():
                candidates = engine.candidates(h, fused, every.search, online, m, followers)
                ranked = engine.rank(h, fused, candidates, online, PLACES, False, followers)
                lists.append(np.pad(ranked.items, ((0, 0), (0, PLACES - ranked.items.shape[1])), constant_values=-1))
    lists = {m: np.concatenate(parts) for m, parts in found.items()}
    truth = lists[len(catalog)]
    taken = line.rows[first : first + len(truth), None]
    rows = {m: ((got == truth).all(1).mean(), (got == taken).any(1).mean()) for m, got in lists.items()}
    columns = ["sought by vector, and by counts", "lists that are those of ranking all", f"HR@{PLACES}"]
    table = [[f"{m:,}", f"{same:.4f}", f"{hits:.4f}"] for m, (same, hits) in rows.items()]
    result = {str(m): {"same": round(float(same), 4), "hr": round(float(hits), 4)} for m, (same, hits) in rows.items()}
    common.report("candidates", columns, table, {"bench": "candidates", "model": engine.name, **result})


if __name__ == "__main__":
    main()
