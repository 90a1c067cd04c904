"""A bound on exposure: how much of a list one group of items may take. Off unless it is set.

Not a ranking: what is left keeps its order. A group that has taken its places gives way to what comes next, so the
price is paid in score, and `eddyline evaluate` tells how much. The same lines bound a worker's lists and an
evaluation's.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.catalog import Catalog
from model.terms import Quota

if TYPE_CHECKING:
    from model.online import OnlineScores

HEAD = 0.1
"""The most popular share of the catalogue."""


class ExposureConfig(BaseModel):
    """At most which share of a list; 1 is no bound."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    popular: float = Field(default=1.0, ge=0, le=1, description="of the tenth of the items that is most popular now")
    categories: dict[str, float] = Field(default={}, description="of the items of a category, by its name")

    @field_validator("categories")
    @classmethod
    def _shares(cls, categories: dict[str, float]) -> dict[str, float]:
        for name, most in categories.items():
            if not 0 <= most <= 1:
                raise ValueError(f"{name} is {most}: a share of a list is between 0 and 1")
        return categories


class Bounds:
    """The bounds over one catalogue. Nothing changes after it is made. `any`: whether there are any."""

    def __init__(self, config: ExposureConfig, catalog: Catalog) -> None:
        self._popular = config.popular
        self._members = [(catalog.in_any([name]), most) for name, most in config.categories.items() if most < 1]
        self._head = math.ceil(HEAD * len(catalog))
        self.any = bool(self._members) or self._popular < 1

    def kept(
        self, rows: NDArray[np.int32], scores: NDArray[np.floating], online: OnlineScores, places: int
    ) -> NDArray[np.bool_]:
        """Which items of B users, catalogue rows i32[B,M], may be in a list of so many places: bool[B,M]; those by
        scores f[B,M], ties by row, that come first. What scores -inf is none and takes no place.

        A group has floor(share x places) places. Bounds are taken one after the other: what one leaves out takes no
        place of the next. A list is shorter where nothing else is left.
        """
        order = np.lexsort((rows, -scores), axis=1)
        ordered = np.take_along_axis(rows, order, 1)
        kept = np.isfinite(np.take_along_axis(scores, order, 1))
        for group, most in self._groups(online):
            mine = group[ordered] & kept
            kept &= ~mine | (np.cumsum(mine, axis=1) <= math.floor(most * places + 1e-9))
        out = np.empty_like(kept)
        np.put_along_axis(out, order, kept, 1)
        return out

    def quotas(self, online: OnlineScores, places: NDArray[np.int32]) -> tuple[Quota, ...]:
        """The bounds of lists that have i32[B] places, for where a list is filled place by place. What several bounds
        hold back takes a place of none of them then, so lists are as long as they can be.
        """
        none = np.zeros(len(places), np.int32)
        return tuple(
            Quota(group, none, np.floor(most * places + 1e-9).astype(np.int32)) for group, most in self._groups(online)
        )

    def _groups(self, online: OnlineScores) -> list[tuple[NDArray[np.bool_], float]]:
        if self._popular >= 1:
            return self._members
        head = np.zeros(len(online.popularity), bool)
        head[online.most_popular(self._head)] = True
        return [(head, self._popular), *self._members]
