"""Small worlds with an obvious answer, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.catalog import Catalog, Item
from model.dataset import Events
from model.history import Histories, HistoryLog, item_hash
from model.peruser import PerUser, Shown

RING = 12


def text_vectors(count: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    """Random unit vectors f32[count, dim]."""
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def shelf(count: int, withdrawn: tuple[int, ...] = ()) -> Catalog:
    """Items i00, i01, ... in rows of the same number; even ones are films, odd ones books."""
    return Catalog.build(
        {
            f"i{k:02}": Item(
                f"i{k:02}",
                f"Item {k}",
                categories=["book" if k % 2 else "film"],
                in_stock=k not in withdrawn,
            )
            for k in range(count)
        }
    )


def met(*users: Sequence[int | str]) -> Histories:
    """Histories of users who clicked these items (by row, or by name) one second apart."""
    log = HistoryLog()
    for u, items in enumerate(users):
        for t, item in enumerate(items):
            name = item if isinstance(item, str) else f"i{item:02}"
            log.add(u, 1000 * (t + 1), 2, item_hash(name), 2.0)
    return log.histories(range(len(users)))


def shown(allowed: np.ndarray) -> Shown:
    """What may be shown to whom, from bool[B,N]."""
    user, row = np.nonzero(~allowed)
    return Shown(np.ones(allowed.shape[1], bool), PerUser.summed(*allowed.shape, user, row, np.ones(len(user))))


def ring_walks(users: int = 60, steps: int = 9, ring: int = RING, seed: int = 0) -> tuple[Events, Catalog]:
    """Users who go round a ring of items, one at a time: what comes next is always the next on the
    ring.
    """
    rng = np.random.default_rng(seed)
    start = rng.integers(ring, size=users)
    when, who = np.divmod(np.arange(users * steps), users)
    item = (start[who] + when) % ring
    events = Events(
        user=np.array([f"u{w}" for w in who], object),
        item=np.array([f"i{i:02}" for i in item], object),
        action=np.full(len(who), 2, np.uint8),
        ts=(1000 * np.arange(len(who))).astype(np.int64),
        value=np.full(len(who), np.nan, np.float32),
    )
    return events, shelf(ring)
