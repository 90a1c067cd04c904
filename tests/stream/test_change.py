"""A catalogue changes while lists are made: what is withdrawn is gone from the swap on, and nobody waits long."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from aiokafka import TopicPartition

from index import choose
from index.config import IndexConfig
from index.recall import IndexBuildError
from stream.lists.indexes import Indexes
from stream.lists.serving import Serving
from stream.process.monitor import Monitor
from stream.trends import Trends, TrendsConfig
from tests.stream.alive import RATE, Change, Words, change, item, live, made, people

ITEMS = 100_000
TP = TopicPartition("catalog", 0)


@pytest.mark.timeout(900)
def test_a_tenth_of_the_catalogue_changes_under_way_and_queries_go_on(tmp_path: Path) -> None:
    """The ratio is of one run; a machine that was busy with something else meanwhile gets one more."""
    said = change(ITEMS, 0.1, 0)
    for last in (False, True):
        lived = asyncio.run(live(tmp_path / f"{last}", ITEMS, 0.1, 1, 22))
        assert lived.errors == []
        assert len(lived.answers) > 40 * RATE and all(answer.items for answer in lived.answers)
        assert lived.forbidden() == []
        assert lived.served.catalog.version == ITEMS + len(said.items) + len(said.withdrawn)
        assert len(lived.served.catalog) == ITEMS  # as many were added as withdrawn
        near, other = lived.p999()
        if last or near <= 5 * other:
            assert near <= 5 * other
            return


class Counted(Words):
    """How many texts it was asked for, by call."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def encode(self, texts: Sequence[str], progress: object = None) -> np.ndarray:
        self.asked.append(len(texts))
        return super().encode(texts)


def serving(folder: Path, encoder: Words, kind: IndexConfig | None = None) -> Serving:
    indexes = Indexes(kind or IndexConfig(), "cpu", folder)
    return Serving(encoder, Trends(TrendsConfig()), "cpu", indexes, TP.topic, Monitor())


def said(what: Serving, changed: Change, first: int) -> None:
    """Taken in, and built."""
    what.on_catalog(TP, changed.records(first))
    asyncio.run(what._rebuild())


def test_only_new_texts_are_encoded_and_lists_are_those_of_a_catalogue_built_at_once(tmp_path: Path) -> None:
    encoder, moved = Counted(), change(400, 0.2, 0)
    changed, anew = serving(tmp_path, encoder), serving(tmp_path, Words())
    first = Change([item(n) for n in range(400)], [])
    said(changed, first, 0)
    said(changed, moved, 400)
    assert encoder.asked == [400, 40]  # 20 were added, 20 have another text; stock and withdrawal change none
    anew.on_catalog(TP, first.records(0))
    said(anew, moved, 400)
    assert np.array_equal(changed.current.first.engine.item_vectors, anew.current.first.engine.item_vectors)
    assert made(changed.current.first, people(400)) == made(anew.current.first, people(400))
    for one in (changed, anew):
        one.close()


@pytest.mark.parametrize("kind", ["hnsw", "flat"])
def test_where_a_build_finds_too_little_the_old_one_serves_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    what = serving(tmp_path, Words(), IndexConfig.model_validate({"kind": kind}))
    said(what, Change([item(n) for n in range(300)], []), 0)
    before = what.current

    def poor(*_: object) -> float:
        raise IndexBuildError("recall@50 is 0.500, below 0.95")

    with monkeypatch.context() as patched:
        patched.setattr(choose, "sufficient_recall", poor)
        said(what, Change([item(n, 1) for n in range(50)], ["i60"]), 300)
    assert what.current is before and "the new catalogue is not served: recall@50 is 0.500" in caplog.text
    said(what, Change([], ["i61"]), 351)
    assert what.current.catalog.version == 352 and len(what.current.catalog) == 298
    assert what.current.first.index.index.stats()["recall"] == 1.0
    what.close()
