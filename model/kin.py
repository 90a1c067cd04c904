"""Items with few interactions: they borrow from their kin, the items that share their categories (brands, genres).

Not counts and not their shares (`online.py`), only what is made of these. How much an item follows a window is what
was counted, and w times what its kin follow it by on average: over its categories, each weighing 1 / its size, the mean
of the category's items. w = k / (k + n) for n (decayed) interactions of the item, so that what is counted takes over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model.catalog import Catalog

LEAST = 0.05
"""A smaller w is none."""


@dataclass(frozen=True, eq=False)
class Kin:
    """Over a catalogue of N items with C categories: rows i32[M] of those that borrow; mean CSR f32[N,C], shares of
    items to means of categories; lent CSR f32[C,M], what of these means each of them borrows.
    """

    rows: NDArray[np.int32]
    mean: Any
    lent: Any

    @staticmethod
    def of(catalog: Catalog, met: NDArray[np.floating], k: float) -> Kin | None:
        """met f64[N]: interactions of each item; k: interactions at which an item borrows half. None where k is 0, or
        no item that would borrow has a category.
        """
        names, item, kind = catalog.members.number, catalog.members.rows, catalog.members.numbers
        weight = k / (k + met) if k > 0 else np.zeros(len(catalog))
        borrows = weight[item] >= LEAST
        if not borrows.any():
            return None
        size = np.bincount(kind, minlength=len(names))
        mean: Any = sparse.csr_array((1 / size[kind], (item, kind)), shape=(len(catalog), len(names)))
        rows, column = np.unique(item[borrows], return_inverse=True)
        share = 1 / size[kind[borrows]]
        share = share / np.bincount(column, share)[column] * weight[item[borrows]]
        lent: Any = sparse.csr_array((share, (kind[borrows], column)), shape=(len(names), len(rows)))
        return Kin(rows.astype(np.int32), mean.astype(np.float32), lent.astype(np.float32))

    def borrowed(self, followed: Any) -> NDArray[np.float32]:
        """What is borrowed where items are followed by so much, CSR f32[B,N]: f32[B,M], of `rows`."""
        return ((followed @ self.mean) @ self.lent).toarray()

    def looked_up(self, lent: NDArray[np.float32], items: NDArray[np.integer]) -> NDArray[np.float32]:
        """What is lent f32[B,K,M], of `rows`, for items of each user, catalogue rows i[B,n]: f32[B,K,n]."""
        place = np.minimum(np.searchsorted(self.rows, items), len(self.rows) - 1)
        found = np.take_along_axis(lent, np.broadcast_to(place[:, None], (*lent.shape[:2], items.shape[1])), 2)
        return np.where((self.rows[place] == items)[:, None], found, np.float32(0))
