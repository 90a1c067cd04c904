"""What variants are made from: one of whatever is the same, and each model as it stands under its alias."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from index.config import IndexConfig
from model import checkpoint
from model.config import ModelConfig, RankConfig
from model.encoder import TextEncoder
from model.explore import ExploreConfig
from model.exposure import ExposureConfig
from model.mix import Mix
from model.online import OnlineScores
from model.recommender import Recommender
from stream.lists import building
from stream.lists.indexes import Indexes, ItemIndex
from stream.lists.lineup import Lineup
from stream.lists.release import Release, manifest_sha256
from stream.lists.serving import Serving
from stream.lists.variants import VariantConfig
from stream.lists.warming import SIZES
from stream.process.monitor import Monitor
from stream.trends import Trends, TrendsConfig
from tests.stream.test_systems import NOW, items

BOUND = RankConfig(exposure=ExposureConfig(popular=0.2))


class Texts(TextEncoder):
    """Vectors without a model: nothing here depends on what they say."""

    def encode(self, texts: Any) -> np.ndarray:
        return np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)


class Counted(Indexes):
    """Tells which were made."""

    made: list[str]

    def of(self, name: str, *more: Any) -> Any:
        self.made.append(name)
        return super().of(name, *more)


def release(folder: Path, name: str, version: int, dim: int = 16) -> Release:
    if not folder.exists():
        torch.manual_seed(0)
        checkpoint.save(folder, Recommender(ModelConfig(dim=dim, layers=1, items=1)).eval(), NOW)
    return Release(name, version, str(folder), manifest_sha256(folder))


def serving(tmp_path: Path, shadow: bool = False, **variants: VariantConfig) -> tuple[Serving, list[str]]:
    indexes = Counted(IndexConfig(keep=False), "cpu", tmp_path)
    indexes.made = []
    trends = Trends(TrendsConfig())
    return Serving(Texts(), trends, "cpu", indexes, "catalog", Monitor(), shadow, variants=variants), indexes.made


def built(one: Serving, releases: dict[str, Release], before: Lineup | None = None) -> Lineup:
    return one.builder.build({item.item: item for item in items()}, 1, releases, [], before)


def test_variants_of_one_model_share_its_vectors_and_index_and_all_share_the_counts(tmp_path: Path) -> None:
    one, indexes = serving(
        tmp_path,
        a=VariantConfig(),
        b=VariantConfig(rank=BOUND),
        c=VariantConfig(mix=Mix(online=0.5), candidates=7),
        d=VariantConfig(model="again"),
        e=VariantConfig(model="other"),
        f=VariantConfig(rank=BOUND, shadow=True),
    )
    same, other = release(tmp_path / "same", "ours", 1), release(tmp_path / "other", "new", 3, dim=24)
    again = release(tmp_path / "same", "ours", 2)
    lineup = built(one, {"default": same, "again": again, "other": other})
    a, b, c, d, e = lineup.emitted
    assert indexes == ["ours@1", "new@3"]
    assert [s.name for s in lineup.emitted] == ["ours@1", "ours@1", "ours@1", "ours@2", "new@3"]
    assert all(s.engine.item_vectors is a.engine.item_vectors and s.index is a.index for s in (b, c, d))
    assert e.index is not a.index and {id(s.online) for s in lineup.emitted} == {id(a.online)}
    assert lineup.shadows["f"] is b and d.engine is a.engine
    assert (b.engine.bounds.any, a.engine.bounds.any, c.engine.mix.online, c.candidates) == (True, False, 0.5, 7)
    assert lineup.readers().keys() == {same.sha256, other.sha256}
    newer = lineup.with_online(OnlineScores.empty(a.catalog))
    assert newer.shadows["f"] is newer.emitted[1] and newer.emitted[1].engine is b.engine
    assert len({id(s.online) for s in (*newer.emitted, *newer.models.values())}) == 1


def test_without_variants_there_is_one_and_the_fallback_beside_it_only_where_a_model_is_released(
    tmp_path: Path,
) -> None:
    one, indexes = serving(tmp_path, shadow=True)
    lineup = built(one, {})
    assert (lineup.told, dict(lineup.shadows), indexes) == ("fallback", {}, ["fallback"])
    lineup = built(one, {"default": release(tmp_path / "m", "ours", 1)}, lineup)
    assert lineup.split.names == ("a",) and lineup.first is lineup.models["default"]
    assert {name: served.name for name, served in lineup.shadows.items()} == {"shadow": "fallback"}
    assert lineup.told == "a: ours@1, shadow: fallback"


def test_a_release_that_fails_leaves_its_own_alias_what_it_had(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = serving(tmp_path, a=VariantConfig(), b=VariantConfig(model="other"))
    releases = {"default": release(tmp_path / "m", "ours", 1)}
    lineup = built(one, releases)
    assert [s.name for s in lineup.emitted] == ["ours@1"] * 2 and "release announce FOLDER --alias other" in caplog.text
    releases["other"] = release(tmp_path / "o", "new", 2, dim=24)
    lineup = built(one, releases, lineup)
    gone = Release("gone", 3, "/nowhere/model", "0" * 64)
    lineup = built(one, releases | {"other": gone}, lineup)
    assert [s.name for s in lineup.emitted] == ["ours@1", "new@2"]
    lineup = built(one, releases | {"default": gone}, lineup)
    assert [s.name for s in lineup.emitted] == ["ours@1", "new@2"] and "release gone@3 is not served" in caplog.text


def test_a_model_that_cannot_make_lists_is_refused_before_anybody_waits_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = serving(tmp_path)
    lineup = built(one, {"default": release(tmp_path / "1", "ours", 1)})
    assert lineup.refused == {}

    def broken(served: Any) -> None:
        raise RuntimeError("no list")

    monkeypatch.setattr(building, "warm", broken)
    after = built(one, {"default": release(tmp_path / "2", "new", 2, dim=24)}, lineup)
    assert after.name == "ours@1" and after.refused == {"default": "new@2: no list"}


def test_a_model_makes_its_first_lists_as_any_other_and_nobody_gets_them(tmp_path: Path) -> None:
    one, _ = serving(tmp_path, a=VariantConfig(rank=RankConfig(explore=ExploreConfig(method="epsilon"))))
    asked: list[int] = []
    search = ItemIndex.search
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ItemIndex, "search", lambda self, v, k: (asked.append(len(v)), search(self, v, k))[1])
        built(one, {"default": release(tmp_path / "1", "ours", 1)})
    assert asked == list(SIZES)


def test_a_release_alone_builds_no_catalogue_and_what_is_served_needs_its_folder_no_more(tmp_path: Path) -> None:
    one, _ = serving(tmp_path, a=VariantConfig(), b=VariantConfig(model="other"))
    first, second = release(tmp_path / "1", "ours", 1), release(tmp_path / "2", "new", 2, dim=24)
    lineup = built(one, {"default": first})
    shutil.rmtree(tmp_path / "1")
    after = built(one, {"default": first, "other": second}, lineup)
    assert after.catalog is lineup.catalog and after.refused == {}
    assert [served.name for served in after.emitted] == ["ours@1", "new@2"]
    assert after.first.engine.given is lineup.first.engine.given
