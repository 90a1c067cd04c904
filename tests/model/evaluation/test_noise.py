"""Noise is what it says, lies before the test, and leaves the questions as they were."""

import numpy as np
import pytest

from model.dataset import Events
from model.evaluation import temporal
from model.evaluation.methods.registry import make
from model.evaluation.noise import NOISES, UnknownNoiseError, noisy, tables
from model.evaluation.told import noise_rows
from tests.model.evaluation.worlds import ring_world, world_of

N = 60


def people(users: int = 30, each: int = 20) -> Events:
    """Users who meet items of 60 at random, a minute or so apart."""
    rng = np.random.default_rng(3)
    n = users * each
    ts = np.sort(rng.integers(0, 60_000 * each, n)).astype(np.int64)
    names, items = (
        np.array([f"{p}{k:02}" for k in rng.integers(m, size=n)], object) for p, m in (("u", users), ("i", N))
    )
    return Events(names, items, np.full(n, 2, np.uint8), ts, np.full(n, np.nan, np.float32))


def injected(kind: str, share: float = 0.2) -> tuple[Events, Events, np.ndarray, int]:
    """(true, with noise, bool: which of the latter is noise, where the test begins in it)."""
    true = people()
    end = round(0.9 * len(true))
    events, place = noisy(true, end, kind, share)
    new = np.ones(len(events), bool)
    new[place] = False
    assert new.sum() == round(share * end)
    assert (np.diff(events.ts) >= 0).all()
    for column in ("user", "item", "action", "ts"):
        assert (getattr(events, column)[place] == getattr(true, column)).all()
    assert not new[place[end] :].any()
    return true, events, new, int(place[end])


@pytest.mark.parametrize("kind", NOISES)
def test_a_seed_fixes_it_and_no_share_is_none(kind: str):
    true = people()
    once, again = (noisy(true, 500, kind, 0.1)[0] for _ in range(2))
    assert (once.item == again.item).all() and (once.ts == again.ts).all()
    assert (noisy(true, 500, kind, 0.1, seed=1)[0].ts != once.ts).any()
    assert (noisy(true, 500, kind, 0.0)[0].item == true.item).all()


def test_a_repeated_click_is_one_that_was_made_seconds_before():
    _, events, new, _ = injected("repeated")
    for e in np.flatnonzero(new):
        same = (events.user == events.user[e]) & (events.item == events.item[e]) & ~new
        ago = events.ts[e] - events.ts[same]
        assert ((ago >= 0) & (ago <= 5000)).any()


def test_bots_are_new_users_with_a_beat_who_want_one_item_seen():
    true, events, new, _ = injected("bots")
    assert not set(events.user[new]) & set(true.user)
    for bot in set(events.user[new]):
        mine = new & (events.user == bot)
        assert np.unique(events.item[mine], return_counts=True)[1].max() >= mine.sum() // 2
        gaps = np.diff(events.ts[mine])[:20]
        assert gaps.std() < 0.3 * gaps.mean()


@pytest.mark.parametrize("kind", ["misclicks", "bulk"])
def test_what_users_did_not_mean_is_of_items_that_they_never_meet(kind: str):
    true, events, new, _ = injected(kind)
    met = set(zip(true.user, true.item, strict=True))
    assert not met & set(zip(events.user[new], events.item[new], strict=True))
    assert set(events.user[new]) <= set(true.user)
    if kind == "bulk":
        assert len(set(zip(events.user[new], events.ts[new], strict=True))) <= 2  # 108 events are two loads


@pytest.mark.parametrize("kind", NOISES)
def test_questions_stay_what_they_were(kind: str):
    true = people()
    end = len(true) if kind == "repeated" else round(0.9 * len(true))
    events, place = noisy(true, end, kind, 0.3)
    cut = tuple((place[round(s * len(true))] / len(events)) for s in (0.85, 0.9))
    (clean,), (test,) = (
        temporal.exams(world_of(e, N), splits)[1] for e, splits in ((true, (0.85, 0.9, 1.0)), (events, (*cut, 1.0)))
    )
    asked, put = (
        [(int(p.asked.now[b]), int(t)) for p in exam.papers() for b, t in enumerate(p.targets)]
        for exam in (clean, test)
    )
    assert asked == put
    assert len(asked) > 20


def test_an_unknown_noise_is_refused():
    with pytest.raises(UnknownNoiseError, match="use one of repeated, bots, misclicks, bulk"):
        noisy(people(), 100, "hum", 0.1)


def test_a_table_says_what_is_lost():
    world = ring_world()
    found = noise_rows(tables(world, lambda w: make(["counts"], w), "bots", [0.5], (0.7, 0.8, 1.0), tune=False))
    clean, noise = found["counts"][0.0], found["counts"][0.5]
    assert "lost" not in clean
    assert noise["lost"].mean == pytest.approx(clean["hr@10"].mean - noise["hr@10"].mean)
