"""What becomes of one model as periods pass: it is left as it is, or goes on from period to period. The protocol
`continual` holds these against models that are trained anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from model.evaluation.continual import ends
from model.evaluation.methods.trained import Trained
from model.recommender import Recommender
from model.replay import Timeline

WAYS: Mapping[str, Mapping[str, float] | None] = MappingProxyType(
    {
        "not updated": None,
        "continued": {},
        "continued, replay 1": {"replay": 1.0},
        "continued, replay 3": {"replay": 3.0},
        "continued, distilled": {"distill": 1.0},
        "continued, both": {"replay": 3.0, "distill": 1.0},
    }
)
"""By name: nothing, or settings of [train.continual] over those at hand."""


class Lived(Trained):
    """A model of the first period, which `whole` trains, and what one of `WAYS` has made of it since. Its counts go
    on in any case.
    """

    def __init__(self, whole: Trained, way: str) -> None:
        super().__init__(whole.world, whole.name, whole.config.seed, whole.config)
        self.name, self._whole, self._changes = f"{whole.name}, {way}", whole, WAYS[way]
        going_on = self.config.continual.model_copy(update=dict(self._changes or {}))
        self.config = self.config.model_copy(update={"continual": going_on})
        self._ends = ends(len(whole.world.events))

    def model(self, line: Timeline, end: int) -> Recommender:
        """What has become of it after `end` events."""
        if self._changes is None or end <= self._ends[0]:
            return self._whole.model(line, min(end, self._ends[0]))
        return super().model(line, end)

    def _begin(self, line: Timeline, end: int) -> tuple[Recommender, int]:
        last = max(e for e in self._ends if e < end)
        return self.model(line, last), int(line.times[last - 1])


def ways(whole: Trained) -> list[Lived]:
    """All of `WAYS`."""
    return [Lived(whole, way) for way in WAYS]
