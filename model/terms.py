"""The terms of lists: what each list of a micro-batch must keep to, as columns.

Not where they come from (settings and requests say it, `rules.py` reads it) and not how a list is filled by them
(`arrange.py`). Names: B users, N items of the catalogue, M candidates of a user, n places of a list, -1 = none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Quota:
    """Of a group of items, member bool[N], at least and at most so many in a list, i32[B] each. Where there are too few
    members that may be shown, all of these are in it and the list is not shorter for it.
    """

    member: NDArray[np.bool_]
    least: NDArray[np.int32]
    most: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Terms:
    """places i32[B]: items that each list is to have. pinned i32[B,n]: catalogue rows that stand at a place whatever
    they score. boosts f32[N]: added to scores, where there are any. one_of i32[N]: a number for each `item_group_id`;
    of items that share one, -1 apart, a list has one.
    """

    places: NDArray[np.int32]
    pinned: NDArray[np.int32]
    quotas: tuple[Quota, ...] = ()
    boosts: NDArray[np.float32] | None = None
    one_of: NDArray[np.int32] | None = None

    @property
    def width(self) -> int:
        """Places of the longest list: n."""
        return self.pinned.shape[1]

    @staticmethod
    def plain(users: int, places: int) -> Terms:
        """Nothing but a number of places."""
        return Terms(np.full(users, places, np.int32), np.full((users, places), -1, np.int32))
