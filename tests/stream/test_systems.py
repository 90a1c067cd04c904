"""Each described system, and every part there is, is trained, released and served: by the worker's own code, from the
folder that `train` writes to the list that would be sent. No broker: records are handed over as followers bring them.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec
import numpy as np
import pytest
from aiokafka import TopicPartition

from index.config import IndexConfig
from model import checkpoint
from model.catalog import Item
from model.encoder import TextEncoder
from model.train import train
from stream import messages
from stream.answers.emission import EmitConfig
from stream.answers.progress import Trigger, Waiting
from stream.errors import ModelError
from stream.lists.indexes import Indexes
from stream.lists.interests import Interests
from stream.lists.people import Register
from stream.lists.recommend import RecommendConfig, Recommender
from stream.lists.release import Release, kind, manifest_sha256
from stream.lists.serving import Serving
from stream.process.monitor import Monitor
from stream.trends import Trends, TrendsConfig
from tests.model.test_variants import CATALOG, EVENTS, SYSTEMS, config, one_thread
from tests.model.worlds import met

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LISTS, SHADOW = "lists", "shadow"
HISTORIES = ([1, 2, 3], [], list(range(18)))

__all__ = ["one_thread"]  # a fixture


class Record(NamedTuple):
    """What a follower brings."""

    key: bytes
    value: bytes
    offset: int


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder()


@pytest.fixture(scope="module")
def texts(encoder: TextEncoder) -> np.ndarray:
    return encoder.encode(CATALOG.texts)


def items() -> list[Item]:
    return [
        Item(i, title, categories=list(categories))
        for i, title, categories in zip(CATALOG.ids, CATALOG.titles, CATALOG.categories, strict=True)
    ]


def released(folder: Path) -> Record:
    """The announcement of a model folder, as `eddyline release announce` writes it."""
    release = Release(kind(folder), 1, str(folder), manifest_sha256(folder))
    return Record(b"default", msgspec.json.encode(release), 0)


async def answered(encoder: TextEncoder, folder: Path) -> dict[str, list[messages.Recommendation]]:
    """The lists of three users, and the fallback's beside them, by a worker that follows this release."""
    monitor = Monitor()
    indexes = Indexes(IndexConfig(keep=False), "cpu", folder / "indexes")
    serving = Serving(encoder, Trends(TrendsConfig()), "cpu", indexes, "catalog", monitor, shadow=True)
    tp, nothing = TopicPartition("any", 0), cast(Any, None)
    serving.on_catalog(tp, [Record(i.item.encode(), msgspec.json.encode(i), n) for n, i in enumerate(items())])
    serving.on_release(tp, [released(folder)])
    upkeep = asyncio.ensure_future(serving.run(lambda: True))
    recommender = Recommender(
        RecommendConfig(shadow=True, exact=True),
        EmitConfig(),
        nothing,
        "v1",
        serving,
        Register(),
        nothing,
        LISTS,
        SHADOW,
        monitor,
        ThreadPoolExecutor(1),
        True,
        lambda: 0,
    )
    try:
        await asyncio.wait_for(serving.ready.wait(), 60)
        trigger = Trigger("click", 7, 0, 0.0, None)
        users = [Waiting(0, f"u{n}", n, trigger) for n in range(len(HISTORIES))]
        h = met(*HISTORIES)
        interests = Interests(users, h, h.lengths.tolist(), [{"click": 7}] * len(users))
        parts = serving.current.parts(interests, None)
        assert [recommender._profiles_of(part) for part in parts] == [None, None]
        made = recommender._compute(interests, parts, [None, None])
        return {topic: [messages.decode(out.value or b"") for out in outs] for topic, outs in made.outs}
    finally:
        upkeep.cancel()
        serving.close()


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_released_and_served(
    system: str, tmp_path: Path, encoder: TextEncoder, texts: np.ndarray
) -> None:
    events = replace(EVENTS, value=np.arange(len(EVENTS)) % 5 + np.float32(1))
    c = config(**SYSTEMS[system]).model_copy(update={"epochs": 1, "refit": False})
    model = train(events, CATALOG, texts, c, encode=encoder.encode)
    checkpoint.save(tmp_path / "model", model, NOW)
    lists = asyncio.run(answered(encoder, tmp_path / "model"))
    assert {one.model for one in lists[LISTS]} == {f"{model.kind}@1"}
    assert {one.model for one in lists[SHADOW]} == {"fallback"}
    for found in lists.values():
        assert [len(one.items) for one in found] == [10, 10, 2]
        for one, history in zip(found, HISTORIES, strict=True):
            shown = {item.item for item in one.items}
            assert len(shown) == len(one.items) and not shown & {f"i{k:02}" for k in history}
            assert one.interest.short == 1.0 if not history else one.interest.profile_age_s is not None


def test_a_model_is_named_by_what_was_trained(tmp_path: Path, texts: np.ndarray) -> None:
    c = config(short_term="gru", fusion="gate").model_copy(update={"epochs": 1, "refit": False})
    checkpoint.save(tmp_path / "model", train(EVENTS, CATALOG, texts, c), NOW)
    assert kind(tmp_path / "model") == "gru-gate"
    with pytest.raises(ModelError, match=r"(?s)elsewhere is no model folder.*eddyline train"):
        kind(tmp_path / "elsewhere")
