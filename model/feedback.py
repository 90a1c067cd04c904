"""Feedback moves a user: towards what they liked, away from what they refused, at once. Off unless it is set.

Not learned, and not about one item alone (what was shown in vain is `fatigue.py`'s): whatever is like it moves, too. It
is the adaptive update of system C, new = old + rate x feedback, put on the fused vector:

    V' = V + rate |V| f        f = sum_j v_j x_j / max(1, sum_j |v_j|)

x_j is the vector of an item at length 1, v_j what the user said of it: 1 for liked, -1 for disliked or hidden, and an
action's weight where that is below zero (-1 at the least); half of it after each half-life of event time. So a rate of
0.1 moves a vector by a tenth of its length at most, however long a model makes them. Of an item the newest word
counts: what is clicked or bought after all is not refused any more. A user who has no vector has none to move.

A pure function of histories, outcomes and times, the same in a worker and in an evaluation. Names: B users, M words.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import sparse

from model.catalog import Catalog
from model.fatigue import HALVES, HOUR_MS, OUTCOME_CODE, REFUSED, TAKEN, Outcomes
from model.history import Histories

if TYPE_CHECKING:  # torch is behind this, and whoever only reads settings should not wait for it
    from model.fusion import Fused

LIKED = OUTCOME_CODE["liked"]


class FeedbackConfig(BaseModel):
    """How far what a user says of items moves their vector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: float = Field(default=0.0, ge=0, le=1, description="of its length, at most; 0 = not at all")
    half_life_h: float = Field(default=168.0, gt=0, description="hours of event time after which a word counts half")

    @property
    def on(self) -> bool:
        """Whether feedback is read."""
        return self.rate > 0

    @property
    def horizon_ms(self) -> int:
        """How long an outcome can matter."""
        return int(HALVES * self.half_life_h * HOUR_MS) if self.on else 0


def moved(
    fused: Fused,
    h: Histories,
    told: Outcomes | None,
    now: NDArray[np.int64],
    catalog: Catalog,
    items: NDArray[np.float32],
    config: FeedbackConfig,
) -> Fused:
    """Users with what they said in their vectors, as a part of what lasts; the very same where they said nothing.

    h, told: what they did and what came of their lists; now i64[B]: event time, ms; items f32[N,D]: a row of the
    catalogue each.
    """
    words = _words(h, told, now, catalog, config) if config.on else None
    if words is None:
        return fused
    full = np.maximum(abs(words).sum(1), 1)[:, None]
    words.data /= np.maximum(np.linalg.norm(items[words.indices], axis=1), 1e-12)
    shift = fused.vectors.new_tensor(words @ items / full)
    shift = config.rate * fused.vectors.norm(dim=1, keepdim=True) * shift
    return replace(fused, vectors=fused.vectors + shift, long=fused.long + shift)


def _words(
    h: Histories, told: Outcomes | None, now: NDArray[np.int64], catalog: Catalog, config: FeedbackConfig
) -> Any:
    """What counts of what was said: CSR f32[B,N]; None where that is nothing."""
    speaks = np.any(h.weights < 0, axis=1)
    valued = np.zeros((len(h), 0), np.float32)
    if told is not None:
        valued = (told.codes == LIKED).astype(np.float32) - np.isin(told.codes, REFUSED)
        speaks = speaks | np.any(valued != 0, axis=1)
    if not speaks.any():
        return None
    user, place = np.nonzero(speaks[:, None] & (h.items != 0))
    said = [(user, h.items[user, place], h.times[user, place], np.clip(h.weights[user, place], -1, 0))]
    if told is not None:
        user, place = np.nonzero(speaks[:, None] & ((valued != 0) | np.isin(told.codes, TAKEN)))
        said.append((user, told.items[user, place], told.times[user, place], valued[user, place]))
    user, item, time, value = (np.concatenate(column) for column in zip(*said, strict=True))
    row = catalog.index_of(item)
    order = np.lexsort((value, time, row, user))  # of words of one time the kinder is the newer
    user, row, time, value = (column[order] for column in (user, row, time, value))
    last = np.ones(len(user), bool)
    last[:-1] = (user[1:] != user[:-1]) | (row[1:] != row[:-1])
    at = np.flatnonzero(last & (row >= 0) & (value != 0))
    if not len(at):
        return None
    age_h = np.maximum(now[user[at]] - time[at], 0) / HOUR_MS
    faded = (value[at] * 0.5 ** (age_h / config.half_life_h)).astype(np.float32)
    return sparse.csr_array((faded, (user[at], row[at])), shape=(len(h), len(catalog)))
