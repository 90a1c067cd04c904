"""A model that is about to be served makes a few lists for nobody first, on the builder's thread.

The first lists of a model are slow: its vectors and index are in no cache of the processor, libraries choose their
kernels. Those are not to be lists that somebody waits for; and a model that cannot make any is refused before anybody
does. It asks as the recommender does, and keeps nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from model.history import ACTION_CODE, Histories, weight_table

if TYPE_CHECKING:
    from model.catalog import Catalog
    from stream.lists.building import Served

SIZES = (1, 8, 1)
"""Users of each micro-batch."""
MET, LIST, SOUGHT = 8, 10, 100


def warm(served: Served) -> None:
    """Make lists of a model's. Raises what making them raises."""
    if len(served.catalog):
        for number, users in enumerate(SIZES):
            _lists(served, people(served.catalog, users, number))


def people(catalog: Catalog, users: int, seed: int) -> Histories:
    """Users who have clicked on items at random."""
    rows, click = np.random.default_rng(seed).integers(0, len(catalog), (users, MET)), ACTION_CODE["click"]
    return replace(
        Histories.empty(users, MET),
        items=catalog.hashes[rows],
        actions=np.full(rows.shape, click, np.uint8),
        times=np.broadcast_to(1000 * np.arange(1, MET + 1, dtype=np.int64), rows.shape).copy(),
        weights=np.full(rows.shape, weight_table()[click], np.float32),
        lengths=np.full(users, MET, np.int32),
    )


def _lists(served: Served, h: Histories) -> None:
    engine, online = served.engine, served.online
    nothing = np.zeros((0, served.profile_dim), np.float32)  # a profile may be read by BERT: longer than all the rest
    fused = engine.encode(h, [nothing] * len(h), explained=True)
    engine.lists(h, fused, served.search, online, LIST, SOUGHT, seeds=np.arange(len(h), dtype=np.uint64))
