"""A trained model beside the plain reading of the same texts, as one model: the vectors of both, side by side.

The inner product of two such vectors is the sum of what each says, so indexes, reasons and the mix with the
counts need not know. Texts say what a trained model forgets where events are few: on Complete Journey's first
purchases (`complete-journey-100k`, events 80% to 100%) the trained vectors and the counts alone stay behind
the untrained fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.adapter import Adapter
from model.baselines import Fallback, Reading, UserModel
from model.catalog import Catalog
from model.fusion import Fused
from model.habits import Habits
from model.history import Histories
from model.leaning import Leanings
from model.longterm import Encode, LongTerm
from model.mix import Mix


class Blended:
    """Vectors of `model` and, times `weight`, of the fallback; the window weighs in both what `model` says."""

    def __init__(self, model: UserModel, text_dim: int, weight: float) -> None:
        self.model = model
        self.weight = weight
        self.dim = model.dim + text_dim
        self.window = model.window
        self._text = Fallback(text_dim, Mix(), model.window)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def mix(self) -> Mix:
        return self.model.mix

    @property
    def leanings(self) -> Leanings | None:
        return self.model.leanings

    @property
    def adapter(self) -> Adapter | None:
        return self.model.adapter

    @property
    def habits(self) -> Habits | None:
        return self.model.habits

    def contents(self, catalog: Catalog, text: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.model.contents(catalog, text)

    def item_vectors(self, hashes: NDArray[np.uint64], text: NDArray[np.float32]) -> Tensor:
        trained = self.model.item_vectors(hashes, text)
        return torch.cat([trained, self._text.item_vectors(hashes, text).to(trained.device)], 1)

    def long_term(self, text: NDArray[np.float32], titles: Sequence[str], encode: Encode | None) -> LongTerm:
        return self.model.long_term(text, titles, encode)

    def encode(
        self,
        window: Histories,
        rows: NDArray[np.int32],
        items: Tensor,
        profiles: list[NDArray[np.float32]],
        explained: bool = False,
    ) -> Fused:
        own = self.model.dim
        trained = self.model.encode(window, rows, items[:, :own], profiles)
        weight = trained.short.cpu().numpy()[:, None]
        text = self._text.mixed(window, rows, profiles, weight, items.device)
        return self._both(trained, text)

    def read(self, items: Tensor, reading: Reading, explained: bool = False) -> Fused:
        own = self.model.dim
        trained = self.model.read(items[:, :own], reading)
        return self._both(trained, self._text.mixed_there(items[:, own:], reading, trained.short[:, None]))

    def _both(self, trained: Fused, text: Fused) -> Fused:
        return Fused(
            torch.cat([trained.vectors, self.weight * text.vectors], 1),
            trained.short,
            torch.cat([trained.long, self.weight * text.long], 1),
        )
