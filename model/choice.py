"""A choice among a few, explained by features: McFadden's conditional logit, a log-linear blend that is fitted.

Not a model: what is chosen among, and by which features, is for others to say (`tune.py`,
`evaluation/methods/ranked.py`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

ROUNDS = 60
"""Steps of L-BFGS at most; the loss is convex."""
SAME = 1e-5
"""A feature that differs by less is the same everywhere."""


def fitted(
    features: NDArray[np.float32], chosen: NDArray[np.integer], prior: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Weights f32[F] under which softmax(features @ weights) makes what was chosen likeliest. features f32[Q,C,F];
    chosen i64[Q]: which of the C; prior f32[F]: what the weights are drawn to, as strongly as one question would (a
    weight counts by the spread of its feature), so that without a question they are it.
    """
    if not len(chosen):
        return prior
    flat = features.reshape(-1, features.shape[-1])
    spread = flat.std(0)
    spread = np.where(spread > SAME, spread, 1).astype(np.float32)
    x = torch.from_numpy((features - flat.mean(0)) / spread)
    target = torch.from_numpy(np.asarray(chosen, np.int64))
    start = torch.from_numpy(prior * spread)
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        far = ((weights - start) ** 2).sum() / len(target)
        found = torch.nn.functional.cross_entropy(x @ weights, target) + far
        found.backward()
        return found

    optimizer.step(loss)
    return (weights.detach().numpy() / spread).astype(np.float32)
