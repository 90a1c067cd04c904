"""A release that has adapted the text encoder is served as that reads; the fallback beside it by the plain one."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from aiokafka import TopicPartition

from index.config import IndexConfig
from model import checkpoint
from model.adapter import Adapter
from model.catalog import Catalog, Item
from model.config import ModelConfig
from model.encoder import TextEncoder
from model.engine import Engine
from model.recommender import Recommender
from stream.lists.building import READERS
from stream.lists.indexes import Indexes
from stream.lists.lineup import Lineup
from stream.lists.serving import Serving
from stream.lists.variants import FALLBACK, SHADOW
from stream.process.monitor import Monitor
from stream.trends import Trends, TrendsConfig
from tests.stream.test_systems import Record, released

ITEMS = [Item(f"i{n}", title) for n, title in enumerate(("Rye bread", "Merino yarn", "Garden hose", "Blue kettle"))]
CATALOG = Catalog.build({i.item: i for i in ITEMS}, 1)
LAYER = "encoder.layer.5.attention.self.value"


def adapter(seed: int = 0, base: str | None = None) -> Adapter:
    """One that changes a layer at random."""
    rng = np.random.default_rng(seed)
    down, up = rng.normal(0, 0.1, (4, 384)), rng.normal(0, 0.5, (384, 4))
    name = base if base is not None else TextEncoder().base_id()
    return Adapter(name, {LAYER: down.astype(np.float32)}, {LAYER: up.astype(np.float32)})


def announced(folder: Path, brought: Adapter | None) -> Record:
    torch.manual_seed(0)
    model = Recommender(ModelConfig(dim=8, items=len(CATALOG), long_term="document"))
    model.set_items(CATALOG.hashes, np.eye(len(CATALOG), 384, dtype=np.float32))
    model.adapter = brought
    checkpoint.save(folder, model, datetime(2026, 11, 27, tzinfo=UTC))
    return released(folder)


async def serve(encoder: TextEncoder, folder: Path, release: Record) -> tuple[Lineup, Serving]:
    """What a worker serves that follows this release."""
    indexes = Indexes(IndexConfig(keep=False), "cpu", folder / "indexes")
    serving = Serving(encoder, Trends(TrendsConfig()), "cpu", indexes, "catalog", Monitor(), shadow=True)
    tp = TopicPartition("any", 0)
    serving.on_catalog(tp, [Record(i.item.encode(), msgspec.json.encode(i), n) for n, i in enumerate(ITEMS)])
    serving.on_release(tp, [release])
    upkeep = asyncio.ensure_future(serving.run(lambda: True))
    try:
        await asyncio.wait_for(serving.ready.wait(), 60)
        return serving.current, serving
    finally:
        upkeep.cancel()
        serving.close()


def test_each_reads_the_catalogue_with_its_own_encoder(tmp_path: Path) -> None:
    encoder, brought = TextEncoder(cache=tmp_path / "cache"), adapter()
    release = announced(tmp_path / "model", brought)
    lineup, serving = asyncio.run(serve(encoder, tmp_path, release))
    plain = TextEncoder().encode(CATALOG.texts)
    adapted = TextEncoder(adapter=brought).encode(CATALOG.texts)
    assert np.abs(plain - adapted).max() > 0.01
    model = checkpoint.load(tmp_path / "model")
    expected = Engine(CATALOG, adapted, model, encode=encoder.encode).item_vectors
    np.testing.assert_allclose(lineup.first.engine.item_vectors, expected, atol=1e-5)
    shadow = lineup.shadows[SHADOW]
    assert shadow.name == FALLBACK
    np.testing.assert_allclose(shadow.engine.item_vectors, Engine(CATALOG, plain).item_vectors, atol=1e-5)
    documents = serving.builder.reading(model).documents  # what users did is read alike, and does not lie on the disk
    np.testing.assert_allclose(documents.encode(["today: buy Rye bread."])[0] @ adapted[0], 1, atol=0.6)
    assert documents._cache is None and documents.adapter is not None and documents.adapter.id == brought.id


def test_an_adapter_of_other_weights_is_told_and_not_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    release = announced(tmp_path / "model", adapter(base="other weights"))
    with caplog.at_level(logging.ERROR):
        lineup, _ = asyncio.run(serve(TextEncoder(), tmp_path, release))
    assert lineup.name == FALLBACK
    assert "learned on other BERT weights" in caplog.text


def test_a_worker_keeps_a_few_encoders(tmp_path: Path) -> None:
    indexes = Indexes(IndexConfig(keep=False), "cpu", tmp_path)
    serving = Serving(TextEncoder(), Trends(TrendsConfig()), "cpu", indexes, "catalog", Monitor())
    models = [Recommender(ModelConfig(dim=8, items=1)) for _ in range(READERS + 1)]
    for seed, model in enumerate(models[1:]):
        model.adapter = adapter(seed)
    first = [serving.builder.reading(m) for m in models]
    assert len(serving.builder._readers) == READERS
    kept = zip(models[2:], first[2:], strict=True)
    assert all(serving.builder.reading(m) is f for m, f in kept)
    assert serving.builder.reading(None).items is serving.builder.encoder
    serving.close()
