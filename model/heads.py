"""What else a window says: which action comes next, and what value it will have. Learned beside the recommender,
reported by training, and no part of serving.

Names: X positions, D the length of a vector.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.shortterm.base import ACTIONS


class NextAction(nn.Module):
    """The window's vector f32[X,D] -> a logit for each action code, f32[X,16]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.Linear(dim, ACTIONS)

    def forward(self, short_XD: Tensor) -> Tensor:
        return self.net(short_XD)


class Rating(nn.Module):
    """The value of an item to a user, f32[X]: the mean, what is of the item, what is of the window, and what is of
    both (as in biased matrix factorisation; Koren et al. 2009).
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.item, self.window, self.both = nn.Linear(dim, 1), nn.Linear(dim, 1), nn.Linear(dim, 1, bias=False)
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("spread", torch.tensor(1.0))

    def set_values(self, values: NDArray[np.float32]) -> None:
        """Before training: the known values, of which mean and spread are taken."""
        if len(values):
            self.mean.fill_(float(values.mean()))
            self.spread.fill_(max(float(values.std()), 1e-3))

    def forward(self, short_XD: Tensor, items_XD: Tensor) -> Tensor:
        said = self.item(items_XD) + self.window(short_XD) + self.both(short_XD * items_XD)
        return self.mean + self.spread * said[:, 0]


def accuracy_f1(said: NDArray[np.integer], true: NDArray[np.integer]) -> tuple[float, float]:
    """The share of positions that are right, and the mean F1 over the classes that are said or true."""
    scores = []
    for one in np.union1d(said, true):
        right = np.sum((said == one) & (true == one))
        scores.append(2 * right / (np.sum(said == one) + np.sum(true == one)))
    return float(np.mean(said == true)), float(np.mean(scores))
