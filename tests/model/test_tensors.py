"""Lists made by tensors are those that numpy makes: on the CPU, as on any device."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from model.config import ModelConfig, RankConfig
from model.device.arranging import Limits, filled, reranked
from model.device.arriving import carried
from model.diversity import DiversityConfig
from model.engine import Engine
from model.fusion import Fused
from model.history import ACTION_CODE, Histories, weight_table
from model.kin import Kin
from model.mix import Mix
from model.online import OnlineScores
from model.people import Words
from model.peruser import PerUser
from model.reasons import RankedLists
from model.recommender import Recommender
from model.rules import Ask, Asked, PriceRange
from tests.model.test_serving_calls import CATALOG, TEXT, N, calls, counted, searched

USERS, LENGTH = 48, 60
RULES = {
    "one_of_group": True,
    "most": {"c0": 1, "c1": 2, "c3": 0},
    "least": {"c2": 3, "c5": 1},
    "price": {"max": 90},
    "seen": {"view": "allow"},
    "pinned": {"i0007": 2, "i0100": 4, "i0095": 5},
    "boosts": {"categories": {"c6": 0.7}, "items": {"i0031": 2.0}},
    "categories": {"deny": ["c8"]},
}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rules": {"rules": RULES},
    "wide groups": {"rules": {"one_of_group": True, "items": {"allow": [f"i{n:04}" for n in range(0, N, 3)]}}},
    "mmr": {"rules": {"one_of_group": True}, "diversity": {"method": "mmr", "strength": 2.0}},
    "dpp": {"diversity": {"method": "dpp", "strength": 0.3, "pool": 30}},
    "all": {"rules": RULES, "diversity": {"method": "mmr"}, "exposure": {"categories": {"c4": 0.2}}},
    "exposure": {"exposure": {"popular": 0.3, "categories": {"c4": 0.1, "c1": 0.2}}},
    "seen": {"seen": "allow"},
}
ONLINE = counted()


def histories(users: int = USERS, seed: int = 3) -> Histories:
    """Users who viewed, clicked and bought, some nothing, some what the catalogue does not have; some is forgotten."""
    rng = np.random.default_rng(seed)
    rows, lengths = rng.integers(0, N, (users, LENGTH)), rng.integers(0, LENGTH + 1, users)
    there = np.arange(LENGTH) >= LENGTH - lengths[:, None]
    actions = rng.choice([ACTION_CODE[name] for name in ("view", "click", "buy")], (users, LENGTH))
    strange = rng.random((users, LENGTH)) < 0.1
    beyond = rng.integers(0, 30, users)
    return Histories(
        np.where(there, np.where(strange, np.uint64(12345), CATALOG.hashes[rows]), np.uint64(0)),
        np.where(there, actions, 0).astype(np.uint8),
        np.where(there, 1000 * np.cumsum(rng.integers(1, 5000, (users, LENGTH)), 1), 0),
        np.where(there, weight_table()[actions], 0).astype(np.float32),
        lengths.astype(np.int32),
        rng.choice(CATALOG.seen32, int(beyond.sum())),
        np.concatenate([[0], np.cumsum(beyond)]).astype(np.int64),
    )


def trained(text: float = 0.0) -> Recommender:
    torch.manual_seed(0)
    model = Recommender(
        ModelConfig(items=N, text_dim=12, dim=16, mix=Mix(neural=0.7, repeat=0.2, text=text, by_window=(0.5, 1, 2)))
    )
    model.set_items(CATALOG.hashes, TEXT)
    return model.eval()


MODEL = trained()


def engines(settings: dict[str, Any], model: Recommender | None) -> tuple[Engine, Engine]:
    """By numpy, and by tensors."""
    rank = RankConfig.model_validate(settings)
    parts = {name: getattr(rank, name) for name in ("seen", "rules", "exposure", "diversity")}
    plain, tensors = (
        Engine(CATALOG, TEXT, model, window_ttl_ms=60_000_000, tensors=tensors, **parts) for tensors in (None, True)
    )
    return plain, tensors


def made(engine: Engine, h: Histories, online: OnlineScores = ONLINE, sought: int = N, **more: Any) -> RankedLists:
    fused = engine.encode(h, engine.profiles(h), None, True)
    return engine.lists(h, fused, searched(engine), online, 10, sought, **more)


def same(one: RankedLists, other: RankedLists) -> None:
    """The same items and, to rounding, the same scores and reasons."""
    np.testing.assert_array_equal(other.items, one.items)
    np.testing.assert_allclose(other.scores, one.scores, atol=1e-5, rtol=1e-4)
    assert (one.propensity is None) == (other.propensity is None)
    if one.propensity is not None and other.propensity is not None:
        np.testing.assert_array_equal(other.propensity, one.propensity)
    assert one.reasons is not None and other.reasons is not None
    np.testing.assert_allclose(other.reasons.share, one.reasons.share, atol=2e-4)
    np.testing.assert_allclose(other.reasons.explained, one.reasons.explained, atol=2e-4)


@pytest.mark.parametrize("model", [None, MODEL], ids=["fallback", "trained"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_lists_by_tensors_are_those_by_numpy(settings: dict[str, Any], model: Recommender | None) -> None:
    plain, tensors = engines(settings, model)
    h = histories()
    same(made(plain, h), made(tensors, h))


def test_what_users_ask_for_hide_and_are_tired_of_is_the_same() -> None:
    plain, tensors = engines(SETTINGS["all"], MODEL)
    rng, h = np.random.default_rng(5), histories()
    hidden = Words.of([np.sort(CATALOG.hashes[rng.choice(N, 40, replace=False)]) for _ in range(USERS)])
    tired = PerUser(USERS, N, np.flatnonzero(rng.random(USERS * N) < 0.05), np.zeros(0, np.float32))
    tired = PerUser(USERS, N, tired.keys, rng.exponential(1, len(tired.keys)).astype(np.float32))
    asks = [
        Ask(category="c4", item="i0009"),
        Ask(price=PriceRange(max=30), exclude=("i0003", "i0004")),
        Ask(only=tuple(f"i{n:04}" for n in range(0, 90, 4))),
    ]
    asked = Asked.by(USERS, {user: (asks[user % 3], 3 + user % 9, 50_000) for user in range(0, USERS, 2)})
    assert asked is not None
    same(*(made(e, asked.on_page(h), hidden=hidden, asked=asked, tired=tired) for e in (plain, tensors)))


def test_counts_lent_by_kin_are_the_same() -> None:
    online = OnlineScores(
        ONLINE.steps, ONLINE.popularity, ONLINE.params, Kin.of(CATALOG, np.arange(N) % 7.0, 3.0), ONLINE.total
    )
    plain, tensors = engines(SETTINGS["rules"], MODEL)
    h = histories()
    same(made(plain, h, online), made(tensors, h, online))


def test_few_candidates_make_the_lists_that_all_of_them_make() -> None:
    """Candidates are the best of all by the score itself, so that no more than a pool of them is needed."""
    _, tensors = engines(SETTINGS["all"], MODEL)
    h = histories()
    np.testing.assert_array_equal(made(tensors, h, sought=60).items, made(tensors, h).items)


def test_users_are_compared_part_after_part_where_scores_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    _, tensors = engines(SETTINGS["all"], MODEL)
    h = histories()
    whole = made(tensors, h)
    monkeypatch.setattr("model.device.lists.SCORES", 7 * N)
    same(whole, made(tensors, h))


def test_an_engine_that_is_like_another_shares_its_items_on_the_device() -> None:
    _, tensors = engines(SETTINGS["plain"], MODEL)
    other = Engine(CATALOG, TEXT, MODEL, Mix(neural=2.0), like=tensors, tensors=True)
    assert other._shelf is tensors._shelf
    h = histories()
    same(made(Engine(CATALOG, TEXT, MODEL, Mix(neural=2.0)), h), made(other, h))


def test_many_users_take_as_many_calls_as_few() -> None:
    _, tensors = engines(SETTINGS["all"], MODEL)
    few, many = (histories().take(np.arange(users) % USERS) for users in (USERS, 10 * USERS))
    profiles = {id(h): tensors.profiles(h) for h in (few, many)}

    def lists(h: Histories) -> RankedLists:
        fused = tensors.encode(h, profiles[id(h)], None, True)
        return tensors.lists(h, fused, searched(tensors), ONLINE, 10, 60)

    for h in (few, many):
        lists(h)
    assert calls(lambda: lists(few)) == calls(lambda: lists(many))  # each after the other: a micro-batch is remembered


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_lists_are_arranged_without_waiting_for_the_device_or_leaving_it(method: Literal["mmr", "dpp"]) -> None:
    """On torch's device without data whatever asks for a value fails, and whatever is made elsewhere does not fit."""
    users, found, items, places = 4, 30, 100, 5
    with torch.device("meta"):
        rows, scores = torch.zeros(users, found, dtype=torch.int64), torch.zeros(users, found)
        of_users = torch.zeros(3, users, dtype=torch.int64)
        member, one_of = torch.zeros(3, items, dtype=torch.bool), torch.zeros(items, dtype=torch.int64)
        vectors = torch.zeros(items, 8)
    limits = Limits(of_users[0], rows[:, :places], member, of_users, of_users, one_of, wanting=True, pins=True)
    utility = reranked(rows, scores, vectors, places, DiversityConfig(method=method, pool=10))
    assert filled(rows, utility, limits).shape == (users, places)


def test_columns_cross_in_one_buffer_as_what_they_are() -> None:
    columns = [
        np.arange(3, dtype=np.uint8),
        np.array([[2**63 + 5, 1]], np.uint64),
        np.zeros((0, 4), np.float32),
        np.array([True, False]),
        np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2],
    ]
    found = carried(columns, torch.device("cpu"))
    assert [tuple(t.shape) for t in found] == [c.shape for c in columns]
    for tensor, column in zip(found, columns, strict=True):
        np.testing.assert_array_equal(tensor.numpy().view(column.dtype), column)
    assert len({t.untyped_storage().data_ptr() for t in found}) == 1
    assert carried([], torch.device("cpu")) == []


@pytest.mark.parametrize("model", [None, MODEL, trained(text=0.4)], ids=["fallback", "trained", "blended"])
def test_fused_users_are_the_same_read_from_columns_on_the_device(model: Recommender | None) -> None:
    plain, tensors = engines(SETTINGS["plain"], model)
    for h in (histories(), Histories.empty(3)):
        one, other = (e.encode(h, e.profiles(h), None, True) for e in (plain, tensors))
        for name in Fused.__slots__:
            torch.testing.assert_close(getattr(other, name), getattr(one, name), atol=1e-5, rtol=1e-5)
