"""How the neural score and the online counts become one score. Only arithmetic: the weights are fitted in
`tune.py`, and the same lines mix in a worker and in an evaluation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat

SHORT, MEDIUM = 8, 24
"""Interactions of a window that count as few, and as some."""
EVEN = (1.0, 1.0, 1.0)


class Mix(BaseModel):
    """Weights of a product of experts: score = neural x (user . item + text x (user's texts . item's text))
    + online x log((1 - popular - repeat) x related + popular x popularity + repeat x returned), neural times the weight
    that `by_window` has for the user's window.

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
    by_window: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        default=EVEN,
        description=f"times neural, for windows of at most {SHORT}, of at most {MEDIUM}, and of more items",
    )
    alpha: float = Field(
        default=0.85, ge=0, le=1, description="fallback only: weight of the window against the profile"
    )

    @property
    def related(self) -> float:
        """The share of what follows the window in what the counts say."""
        return max(1 - self.popular - self.repeat, 0.0)

    def window_weight(self, lengths: NDArray[np.integer]) -> NDArray[np.float32]:
        """f32[B]: what neural is multiplied by, for windows of so many known items."""
        return np.array(self.by_window, np.float32)[np.searchsorted([SHORT, MEDIUM], lengths)]


def counted(
    related: NDArray[np.floating],
    popularity: NDArray[np.floating],
    mix: Mix,
    returned: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """What the counts say: (1 - popular - repeat) x related + popular x popularity + repeat x returned, elementwise;
    above 0 wherever popularity is. returned: None where nothing that was met may be shown.
    """
    said = mix.related * related + mix.popular * popularity
    return said if returned is None else said + mix.repeat * returned


def combined(
    neural: NDArray[np.floating],
    related: NDArray[np.floating],
    popularity: NDArray[np.floating],
    mix: Mix,
    returned: NDArray[np.floating] | None = None,
) -> NDArray[np.floating]:
    """The score in nats (log of an unnormalised probability), elementwise over arrays of one shape."""
    return mix.neural * neural + mix.online * np.log(counted(related, popularity, mix, returned))
