"""How the neural score and the online counts become one score. Only arithmetic: the weights are fitted in
`evaluate.py`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class Mix(BaseModel):
    """Weights of a product of experts: score = neural x (user . item + text x (user's texts . item's text))
    + online x log((1 - popular - repeat) x related + popular x popularity + repeat x returned).

    The defaults suit the fallback, whose user and item vectors are unit vectors of text (chosen on
    MovieLens-100K, events 72% to 80% in time order); a trained model carries its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    neural: float = Field(default=1.5, ge=0, description="weight of the inner product of user and item vector")
    text: float = Field(
        default=0.0, ge=0, description="of that: weight of the texts' own similarity beside the trained"
    )
    online: float = Field(default=1.0, ge=0, description="weight of the log of what the counts say")
    popular: float = Field(default=0.1, gt=0, le=1, description="share of popularity in what the counts say")
    repeat: float = Field(
        default=0.0, ge=0, le=1, description="share of the user's own history; 0 where what was met is never shown"
    )
    repeat_recency: float = Field(
        default=0.9, gt=0, le=1, description="weight of an interaction in that share relative to the next newer one"
    )
    alpha: float = Field(
        default=0.85, ge=0, le=1, description="fallback only: weight of the window against the profile"
    )


def counted(
    related: NDArray[np.floating],
    popularity: NDArray[np.floating],
    mix: Mix,
    returned: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """What the counts say: (1 - popular - repeat) x related + popular x popularity + repeat x returned, elementwise;
    above 0 wherever popularity is. returned: None for none.
    """
    if returned is None:
        return (1 - mix.popular) * related + mix.popular * popularity
    related_share = max(1 - mix.popular - mix.repeat, 0.0)
    return related_share * related + mix.popular * popularity + mix.repeat * returned


def combined(
    neural: NDArray[np.floating],
    related: NDArray[np.floating],
    popularity: NDArray[np.floating],
    mix: Mix,
    returned: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """The score in nats (log of an unnormalised probability), elementwise over arrays of one shape."""
    return mix.neural * neural + mix.online * np.log(counted(related, popularity, mix, returned))
