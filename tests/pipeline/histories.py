"""Histories to read anew: of which a state is known to be a function, whatever the order that they come in."""

from __future__ import annotations

import numpy as np

from model.dataset import Events
from model.history import ACTION_CODE, item_hash


def in_order(events: Events) -> Events:
    """Events in time order, and those of one time in the order that a window has: what is bought together has one time,
    and a pair is counted for what comes after.
    """
    hashes = np.array([item_hash(item) for item in events.item], np.uint64)
    return events.take(np.lexsort((hashes, events.action, events.ts)))


def late_and_repeated(n: int, users: int, seed: int = 0, share: float = 0.1, items: int = 10) -> Events:
    """Of each three users one keeps to a topic and to time, with items of its own (the first `items`). The others act
    in all topics, a `share` of their events comes up to a minute late, and as many come again; with a share of 0 all
    keep to a topic and to time.
    """
    rng = np.random.default_rng(seed)
    user, action = rng.integers(0, users, n), rng.integers(0, 3, n)
    steady = (user % 3 == 0) | (share == 0)
    action = np.where(steady, (user // 3) % 3, action)
    item = np.where(steady, rng.integers(0, items, n), rng.integers(items, 2 * items, n))
    ts = 1_700_000_000_000 + 50 * np.arange(n)
    for_late = ~steady & (rng.random(n) < share)
    ts = ts - np.where(for_late, rng.integers(1, 60_000, n), 0)
    again = np.flatnonzero(~steady & (rng.random(n) < share))
    order = np.argsort(np.r_[np.arange(n), again + rng.integers(1, 500, len(again))], kind="stable")
    rows = np.r_[np.arange(n), again][order]
    codes = np.array([ACTION_CODE[name] for name in ("view", "click", "buy")], np.uint8)
    return Events(
        np.array([f"u{u}" for u in user], object)[rows],
        np.array([f"i{i}" for i in item], object)[rows],
        codes[action][rows],
        ts[rows],
        np.full(len(rows), np.nan, np.float32),
    )
