"""A shop for benches: a catalogue with prices, groups and categories, users with histories, counts of what followed
what, and a model of the default shape whose weights are random. All of it follows from a seed; nothing is trained.

Names: N items, B users.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from index.flat import FlatIndex
from index.graph import GraphIndex
from index.held import FaissIndex
from model.catalog import Catalog, Item
from model.config import ModelConfig, RankConfig
from model.engine import Engine
from model.history import ACTION_CODE, HISTORY, Histories, weight_table
from model.online import Counts, OnlineScores
from model.recommender import Recommender
from tests.bench.common import zipf

CATEGORIES = 200
LIMITED = 8
TEXT_DIM = 384
STARTS_MS = 1_700_000_000_000
RULES = {
    "one_of_group": True,
    "most": {f"c{number}": 3 for number in range(LIMITED)},
    "price": {"max": 90.0},
    "seen": {"view": "allow"},
}
"""One variant a group, at most three of each of the largest categories, a price, and what was clicked or bought stays
away."""


def ranked_by(rules: bool = True) -> RankConfig:
    """The settings of the bench's lists."""
    said = {"rules": RULES, "diversity": {"method": "mmr", "strength": 0.5}} if rules else {}
    return RankConfig.model_validate(said)


@dataclass(frozen=True, eq=False)
class Shop:
    """profiles: of each user's history. index: a graph, or one that compares all where tensors make the lists."""

    catalog: Catalog
    texts: NDArray[np.float32]
    model: Recommender
    index: FaissIndex
    online: OnlineScores
    engine: Engine
    histories: Histories
    profiles: list[NDArray[np.float32]]

    def users(self, at: NDArray[np.integer]) -> tuple[Histories, list[NDArray[np.float32]]]:
        """Some of them: what a micro-batch is made from."""
        return self.histories.take(at), [self.profiles[i] for i in at.tolist()]


def shop(items: int, users: int, seed: int = 0, device: str = "cpu", tensors: bool = False) -> Shop:
    """A shop of so many items and users; device, tensors: as of an engine."""
    rng = np.random.default_rng(seed)
    kinds = zipf(items, CATEGORIES, seed)
    catalog = Catalog.build({item.item: item for item in _items(items, kinds, rng)})
    texts = _texts(np.array([int(c[0][1:]) for c in catalog.categories]), rng)
    torch.manual_seed(seed)
    model = Recommender(ModelConfig(items=items, text_dim=TEXT_DIM))
    model.set_items(catalog.hashes, texts)
    model.eval()
    rank = ranked_by()
    tensors = tensors or device != "cpu"
    settings = {"seen": rank.seen, "rules": rank.rules, "diversity": rank.diversity, "exposure": rank.exposure}
    engine = Engine(catalog, texts, model, device=device, tensors=tensors, **settings)
    kind = FlatIndex if tensors else GraphIndex
    histories = _histories(catalog, users, rng)
    return Shop(
        catalog=catalog,
        texts=texts,
        model=model,
        index=kind.of(np.arange(items), engine.item_vectors),
        online=OnlineScores.build(catalog, _counts(catalog, items * 2, rng), 0).prepared(),
        engine=engine,
        histories=histories,
        profiles=engine.profiles(histories),
    )


def _items(items: int, kinds: NDArray[np.integer], rng: np.random.Generator) -> list[Item]:
    """In threes of one group each where their number is even; some are sold out."""
    price, stock = rng.uniform(1, 100, items).round(2), rng.random(items) > 0.05
    return [
        Item(
            f"i{n:07}",
            f"item {n}",
            categories=[f"c{kinds[n - n % 3]}"],
            price=float(price[n]),
            in_stock=bool(stock[n]),
            item_group_id=f"g{n // 3}" if n // 3 % 2 == 0 else None,
        )
        for n in range(items)
    ]


def _texts(kinds: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.float32]:
    """Those of a category are near to each other."""
    centres = rng.standard_normal((CATEGORIES, TEXT_DIM), np.float32)
    vectors = centres[kinds] + 0.7 * rng.standard_normal((len(kinds), TEXT_DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _by_taste(catalog: Catalog, tastes: NDArray[np.integer], count: int, rng: np.random.Generator) -> NDArray:
    """Rows i64[B,count], of which two in three are of the category that the user likes."""
    members, size = catalog.members, len(catalog)
    of = np.array([members.number.get(f"c{c}", 0) for c in range(CATEGORIES)])[tastes]
    first, many = members.ends[of], np.diff(members.ends)[of]
    within = members.rows[first[:, None] + (rng.random((len(tastes), count)) ** 2 * many[:, None]).astype(np.int64)]
    return np.where(rng.random((len(tastes), count)) < 2 / 3, within, rng.integers(0, size, (len(tastes), count)))


def _histories(catalog: Catalog, users: int, rng: np.random.Generator) -> Histories:
    """As the window table hands them over: from 3 to 128 interactions, half of the users have 32 or more."""
    lengths = np.clip(rng.lognormal(np.log(32), 0.8, users), 3, HISTORY).astype(np.int32)
    there = np.arange(HISTORY) >= HISTORY - lengths[:, None]
    rows = _by_taste(catalog, zipf(users, CATEGORIES, 1), HISTORY, rng)
    actions = rng.choice([ACTION_CODE[name] for name in ("view", "click", "buy")], (users, HISTORY), p=(0.6, 0.3, 0.1))
    times = STARTS_MS + np.cumsum(rng.exponential(6e6, (users, HISTORY)), axis=1).astype(np.int64)
    return Histories(
        np.where(there, catalog.hashes[rows], np.uint64(0)),
        np.where(there, actions, 0).astype(np.uint8),
        np.where(there, times, 0),
        np.where(there, weight_table()[actions], 0).astype(np.float32),
        lengths,
        np.zeros(0, np.uint32),
        np.zeros(users + 1, np.int64),
    )


def _counts(catalog: Catalog, pairs: int, rng: np.random.Generator) -> Counts:
    """So many pairs of items, most of one category, and how often each item was met."""
    ab = _by_taste(catalog, zipf(pairs, CATEGORIES, 2), 2, rng)
    met = 1 + np.bincount(ab.ravel(), minlength=len(catalog))
    zeros, size = np.zeros(pairs, np.int32), len(catalog)
    return Counts(
        catalog.hashes[ab[:, 0]],
        catalog.hashes[ab[:, 1]],
        zeros,
        rng.integers(1, 4, pairs).astype(np.uint32),
        catalog.hashes,
        np.zeros(size, np.int32),
        met.astype(np.uint32),
    )
