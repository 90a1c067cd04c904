"""How much of everything a deployment needs: arithmetic over rates and costs, and what it rests on.

Not where these come from: rates are those of someone's own events (`rates`), costs were measured on the spot
(`stream.trial`). Pure functions of both.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from model.dataset import Events, numbered
from stream.answers.emission import EmitConfig
from stream.settings import Settings

HOUR_MS = 3_600_000
BUSY = 0.5
"""The share of a core that is planned for in the busiest hour: the rest is for its peaks, and for catching up."""
GROWTH = 2
"""Partitions for each worker: so many times as many workers can be started before topics must be widened, which moves
users to other partitions."""
RECORD = 12
"""Bytes that Kafka adds to a record in a batch: lengths, and differences of time and offset."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What happens in a second: over the whole range (`mean`) and in its busiest hour (`peak`), or in all of it, where
    it is shorter. touched: users whose rows are flushed, once a commit interval each; lists: that are spoken. event:
    bytes of an event with its key.
    """

    events: int
    users: int
    items: int
    days: float
    event: float
    mean: float
    peak: float
    touched: float
    lists: float


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of fetching, and of decoding, applying and counting, an event; of packing a row; of making a list.
    Bytes of a user in memory, of a row in the changelog, of trends an event, of a list; and of a process: `base` of the
    libraries alone, `serving` of items, index and model.
    """

    fetching: float
    applying: float
    packing: float
    listing: float
    user: float
    row: float
    trends: float
    list: float
    base: int
    serving: int


@dataclass(frozen=True, slots=True)
class Needs:
    """What these rates need. cores are those that are busy in the busiest hour; memory is that of a worker, changelog
    and network are bytes a second then; changelog_kept is what stays of it once compacted.
    """

    cores: float
    workers: int
    partitions: int
    memory: int
    changelog: float
    changelog_kept: int
    network_in: float
    network_out: float


def rates(events: Events, size: float, speaks: Collection[int], settings: Settings, share: float = 1.0) -> Rates:
    """The rates of events in time order, at least one, of `size` bytes each; speaks: codes of actions that are answered
    by a list. share: of all users, those whose events these are; the others are reckoned to do as they do.
    """
    ts = events.ts
    span_ms = max(int(ts[-1] - ts[0]), 1000)
    long_ms = min(HOUR_MS, span_ms)
    # The busiest stretch begins with an event; its end is left out, as the first event after it is in the next.
    within = np.searchsorted(ts, ts + long_ms, side="left") - np.arange(len(ts))
    first = int(within.argmax())
    hour = events.take(slice(first, first + int(within[first])))
    seconds = long_ms / 1000
    users = numbered(hour.user)[0]
    spoken = np.isin(hour.action, list(speaks))
    return Rates(
        events=round(len(ts) / share),
        users=round(len(set(events.user.tolist())) / share),
        items=len(set(events.item.tolist())),
        days=span_ms / 86_400_000,
        event=size,
        mean=len(ts) / (span_ms / 1000) / share,
        peak=len(hour) / seconds / share,
        touched=_distinct(users, hour.ts, settings.state.commit_interval_s * 1000) / seconds / share,
        lists=_spoken(users[spoken], hour.ts[spoken], settings.emit) / seconds / share,
    )


def _spoken(users: np.ndarray, ts: np.ndarray, emit: EmitConfig) -> int:
    """Lists at the most: one an event, or one an interval."""
    return _distinct(users, ts, emit.min_interval_ms) if emit.min_interval_ms else len(ts)


def _distinct(users: np.ndarray, ts: np.ndarray, interval_ms: float) -> int:
    """In how many intervals somebody did something, summed over users."""
    both = np.stack([users, (ts // interval_ms).astype(np.int64)])
    return np.unique(both, axis=1).shape[1] if len(ts) else 0


def needs(r: Rates, c: Costs) -> Needs:
    """What is needed in the busiest hour of all."""
    cores = r.peak * (c.fetching + c.applying) + r.touched * c.packing + r.lists * c.listing
    workers = max(1, math.ceil(cores / BUSY))
    changelog = r.touched * (c.row + RECORD) + r.peak * c.trends
    return Needs(
        cores=cores,
        workers=workers,
        partitions=workers * GROWTH,
        memory=round(c.base + c.serving + r.users * c.user / workers),
        changelog=changelog,
        changelog_kept=round(r.users * (c.row + RECORD)),
        network_in=r.peak * (r.event + RECORD),
        network_out=r.lists * (c.list + RECORD) + changelog,
    )
