"""Fatigue: what a user was shown and did not take loses a little each time. Off unless it is set.

Not a rule (only what a user refused stays away, and that too comes where nothing else is left) and not a part of the
history: being shown something is nothing that a user did. A pure function of what came of lists, in event time. Names:
B users, R outcomes of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from model.catalog import Catalog
from model.peruser import PerUser

OUTCOME_CODE: Mapping[str, int] = MappingProxyType(
    {"shown": 1, "clicked": 2, "bought": 3, "liked": 4, "disliked": 5, "hidden": 6}
)
SHOWN = OUTCOME_CODE["shown"]
TAKEN = tuple(OUTCOME_CODE[name] for name in ("clicked", "bought", "liked"))
REFUSED = tuple(OUTCOME_CODE[name] for name in ("disliked", "hidden"))
AWAY = 50.0
"""Nats that what is held back loses: it comes behind everything else, and is not forbidden."""
HALVES = 8
"""Half-lives after which being shown is forgotten."""
HOUR_MS = 3_600_000


class FatigueConfig(BaseModel):
    """What it costs an item to have been shown."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    penalty: float = Field(default=0.0, ge=0, description="nats for each time that it was shown since it was taken")
    half_life_h: float = Field(default=24.0, gt=0, description="hours of event time after which that counts half")
    hold_back_h: float = Field(default=0.0, ge=0, description="hours that it is held back for after it was shown")

    @property
    def on(self) -> bool:
        """Whether feedback is read."""
        return self.penalty > 0 or self.hold_back_h > 0

    @property
    def horizon_ms(self) -> int:
        """How long an outcome can matter."""
        return int(max(HALVES * self.half_life_h if self.penalty else 0, self.hold_back_h) * HOUR_MS)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What came of lists: items u64[B,R] (hashes), times i64[B,R] (ms), codes u8[B,R] (`OUTCOME_CODE`, 0 = none)."""

    items: NDArray[np.uint64]
    times: NDArray[np.int64]
    codes: NDArray[np.uint8]


def fatigue(told: Outcomes, catalog: Catalog, now: NDArray[np.int64], config: FatigueConfig) -> PerUser:
    """What items lose, in nats, for each user as of i64[B] (event time, ms). The order of outcomes does not matter."""
    users = len(now)
    rows = catalog.index_of(told.items)
    user, place = np.nonzero((told.codes > 0) & (rows >= 0))
    codes, times = told.codes[user, place], told.times[user, place]
    keys, which = np.unique(user * len(catalog) + rows[user, place], return_inverse=True)
    taken = np.full(len(keys), np.iinfo(np.int64).min)
    of_taken = np.isin(codes, TAKEN)
    np.maximum.at(taken, which[of_taken], times[of_taken])
    age_h = np.maximum(now[user] - times, 0) / HOUR_MS
    shown = codes == SHOWN
    tiring = shown & (times > taken[which])
    lost = config.penalty * np.bincount(which, tiring * 0.5 ** (age_h / config.half_life_h), len(keys))
    away = np.bincount(which, (shown & (age_h < config.hold_back_h)) | np.isin(codes, REFUSED), len(keys)) > 0
    return PerUser(users, len(catalog), keys, (lost + AWAY * away).astype(np.float32))
