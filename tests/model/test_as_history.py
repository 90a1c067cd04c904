"""Events in the order of histories: what is learned depends on what happened, and not on how it came."""

from __future__ import annotations

import numpy as np

from model.dataset import Events, as_history, numbered
from model.history import by_user, item_hashes
from model.replay import arrives_in_order


def some(n: int = 400, seed: int = 0) -> Events:
    """Few times, users, items and actions, so that there are ties of every kind, and repeats."""
    rng = np.random.default_rng(seed)
    return Events(
        np.array([f"u{u}" for u in rng.integers(0, 12, n)], object),
        np.array([f"i{i}" for i in rng.integers(0, 6, n)], object),
        rng.integers(1, 4, n).astype(np.uint8),
        np.sort(rng.integers(0, 30, n)).astype(np.int64),
        rng.random(n).astype(np.float32),
    )


def rows(events: Events) -> list[tuple[str, str, int, int]]:
    return list(
        zip(events.user.tolist(), events.item.tolist(), events.action.tolist(), events.ts.tolist(), strict=True)
    )


def test_any_order_of_arrival_gives_one_sequence() -> None:
    events = some()
    expected = as_history(events)
    assert len(expected) == len(set(rows(events))) < len(events)
    for seed in range(5):
        mixed = events.take(np.random.default_rng(seed).permutation(len(events)))
        assert rows(as_history(mixed)) == rows(expected)


def test_each_user_is_in_the_order_of_a_history() -> None:
    events = as_history(some())
    assert (np.diff(events.ts) >= 0).all()
    users, items = numbered(events.user)[0], item_hashes(events.item)
    assert arrives_in_order(users, events, items)
    order, _ = by_user(users, events.ts, events.action, items)
    assert len(order) == len(events)


def test_of_exact_repeats_the_first_stays_with_its_value() -> None:
    events = some()
    first: dict[tuple[str, str, int, int], float] = {}
    for row, value in zip(rows(events), events.value.tolist(), strict=True):
        first.setdefault(row, value)
    found = as_history(events)
    assert dict(zip(rows(found), found.value.tolist(), strict=True)) == first


def test_none_and_one() -> None:
    events = some()
    nothing = events.take(slice(0, 0))
    assert len(as_history(nothing)) == 0
    assert rows(as_history(events.take(slice(0, 1)))) == rows(events)[:1]


def test_numbers_follow_the_order_of_names() -> None:
    codes, names = numbered(np.array(["b", "ä", "a", "b", "B"], object))
    assert names == ["B", "a", "b", "ä"] and codes.tolist() == [2, 3, 1, 2, 0]
    assert codes.tolist() == np.unique(["b", "ä", "a", "b", "B"], return_inverse=True)[1].tolist()
