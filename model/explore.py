"""Exploration: which of a list's places are drawn, and how likely each item is there. Off unless it is set.

Not a ranking, and not the rules of a list: both are over when something is drawn, so a probability is that of an item
at its place, given the items above it and all that may not stand there. The same lines say it to the worker that draws
and to an evaluation that asks what another policy would have done (`evaluation/offpolicy.py`). Names: R places (of
lists, or users), W columns, the best first.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

NEWCOMERS = 16
"""Items with few interactions that one list may draw from, drawn evenly from all of these that its user may see."""
WIDEST = 32
"""The largest pool: with the newcomers it fits into the whole numbers that every reader of JSON keeps."""


class ExploreConfig(BaseModel):
    """How much of a list is left to chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Literal["none", "epsilon", "softmax"] = "none"
    epsilon: float = Field(
        default=0.1, ge=0, le=1, description="epsilon: chance that a place is drawn evenly from the pool"
    )
    temperature: float = Field(
        default=0.5, gt=0, description="softmax: a place is drawn by exp(score / temperature), scores in nats"
    )
    pool: int = Field(default=20, ge=1, le=WIDEST, description="the best candidates, of which is drawn")
    new_items: float = Field(
        default=0.0, ge=0, le=1, description="chance that a place is drawn evenly from items with few interactions"
    )
    few: float = Field(default=5.0, gt=0, description="an item with fewer interactions, old ones counting less, is new")

    @property
    def on(self) -> bool:
        """Whether anything is drawn."""
        return self.method != "none" or self.new_items > 0


def chances(
    utility: NDArray[np.floating],
    free: NDArray[np.bool_],
    pool: NDArray[np.bool_],
    new: NDArray[np.bool_],
    config: ExploreConfig,
) -> NDArray[np.float64]:
    """The probability of each column at its place, f64[R,W], from utilities f[R,W] that descend, whether a column may
    stand there, is of the pool (the first columns), and is new, bool[R,W] each. One of the pool must be free in every
    row.
    """
    users, best = np.arange(len(free)), free.argmax(1)
    among = free & pool
    if config.method == "softmax":
        over = np.where(among, utility - utility[users, best][:, None], -np.inf)
        weight = np.exp(over.astype(np.float64) / config.temperature)
        p = weight / weight.sum(1, keepdims=True)
    else:
        share = config.epsilon if config.method == "epsilon" else 0.0
        p = among.astype(np.float64) * (share / among.sum(1, keepdims=True))
        p[users, best] += 1 - share
    if config.new_items:
        fresh = free & new
        many = fresh.sum(1, keepdims=True)
        floor = np.where(many > 0, config.new_items, 0.0)
        p = (1 - floor) * p + fresh * (floor / np.maximum(many, 1))
    return p


def drawn(p: NDArray[np.float64], chance: NDArray[np.float64]) -> NDArray[np.int64]:
    """The column that is drawn in each row of probabilities f64[R,W] by a number from 0 to 1, f64[R]: i64[R]."""
    upto = np.cumsum(p, axis=1)
    # a row's sum may be a little off 1; the last column with any chance ends it
    return (upto > chance[:, None] * upto[:, -1:]).argmax(1)


def uniforms(seeds: NDArray[np.uint64], count: int, stream: int = 0) -> NDArray[np.float64]:
    """Numbers in [0, 1), f64[B,count], that follow from their seeds u64[B] alone: SplitMix64 (Steele, Lea and Flood,
    2014), whose n-th number needs none before it. Streams of one seed have nothing in common.
    """
    step = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)
    z = seeds[:, None] + step * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((z ^ (z >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def newcomers(few: NDArray[np.int32], seeds: NDArray[np.uint64], count: int = NEWCOMERS) -> NDArray[np.int32]:
    """So many different ones of catalogue rows i32[S] for each user, drawn evenly by their seeds u64[B]: i32[B,count],
    -1 where there are no more.
    """
    size = len(few)
    out = np.full((len(seeds), count), -1, np.int32)
    if size <= count:
        out[:, :size] = few
        return out
    # Floyd's sampling (Bentley and Floyd, 1987), a step for all users at once
    chance = uniforms(seeds, count, stream=1)
    at = np.full((len(seeds), count), -1, np.int64)
    for k, last in enumerate(range(size - count, size)):
        one = (chance[:, k] * (last + 1)).astype(np.int64)
        at[:, k] = np.where((at[:, :k] == one[:, None]).any(1), last, one)
    return few[at]
