"""Worlds for evaluations: events in a line or two, and what a method must make of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from model.catalog import Item
from model.dataset import Events
from model.evaluation.exams import World
from tests.model.worlds import ring_walks, shelf, text_vectors


def happened(rows: Sequence[tuple[str, int, int]], action: int = 2) -> Events:
    """Events (user, item's row, time in ms), in this order."""
    users, items, times = zip(*rows, strict=True)
    return Events(
        np.array(users, object),
        np.array([f"i{i:02}" for i in items], object),
        np.full(len(rows), action, np.uint8),
        np.array(times, np.int64),
        np.full(len(rows), np.nan, np.float32),
    )


def world_of(events: Events, items: int) -> World:
    """These events over a shelf; texts are random."""
    catalog = shelf(items)
    described = {
        i: Item(i, t, categories=list(c))
        for i, t, c in zip(catalog.ids, catalog.titles, catalog.categories, strict=True)
    }
    return World(events, catalog, described, lambda: text_vectors(items))


def ring_world(users: int = 40, steps: int = 9) -> World:
    """Everybody walks round a ring of 12: what comes next is certain."""
    events, catalog = ring_walks(users, steps)
    return world_of(events, len(catalog))
