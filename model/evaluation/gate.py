"""Whether a model may take another's place: both answer the same questions, none of which either has learned.

Not a protocol, which compares methods as they are trained: these two are trained already. Questions are the events of
the gate data that are newer than what either has learned, asked as in `temporal`; what is asked for is NDCG@10, and the
difference is paired by user. Without gate data, what two trainings noted of themselves is compared where both were
measured by the same questions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from model.engine import Engine
from model.evaluation.exams import Exam, World
from model.evaluation.methods.served import Served
from model.evaluation.running import Progress, take
from model.evaluation.temporal import papers
from model.metrics import Interval
from model.recommender import Recommender
from model.replay import timeline

K = 10
METRIC = f"ndcg@{K}"
QUESTIONS = 20_000
"""At most, evenly spread."""
REFRESH = 250
NEW, OLD = "candidate", "running"


Noted = tuple[str, Mapping[str, Any]]
"""The hash of the data that a model was trained on, and its metrics."""


class GateError(ValueError):
    """Two models cannot be compared; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """NDCG@10 of both by so many questions; difference: the candidate's less the other's, with its 95% interval where
    the questions were asked here.
    """

    candidate: float
    running: float
    questions: int
    difference: Interval | None = None

    def worse(self, margin: float) -> bool:
        """Whether the candidate falls short of the other by more than this share of the other's."""
        return self.candidate < (1 - margin) * self.running


def judge(
    world: World, candidate: Recommender, running: Recommender | None, progress: Progress | None = None
) -> Verdict:
    """Ask both. running: None for the fallback.

    Raises:
        GateError: a model does not say what it has learned, or nothing in the data is newer.
    """
    line = timeline(world.events, world.catalog, world.weights, world.variation)
    since = max(_learned(model) for model in (candidate, running) if model is not None)
    first, last = int(np.searchsorted(line.times, since, side="right")), len(line)
    exam = Exam("gate", line, first, lambda: papers(world, line, first, last, REFRESH, False), last - first)
    if not sum(len(paper.asked) for paper in exam.papers()):
        raise GateError(
            "the gate data has no event to ask for that is newer than what these models have learned; bring newer "
            "ones, or keep some back: eddyline train --end 0.9"
        )
    exam = exam.every(-(-exam.questions // QUESTIONS))
    table = take([_served(world, candidate, NEW), _served(world, running, OLD)], [exam], world, K, progress)
    mean = {name: float(table.metrics(name)[METRIC].mean()) for name in (NEW, OLD)}
    return Verdict(mean[NEW], mean[OLD], len(table.asks), table.difference(NEW, OLD)[METRIC])


def recorded(candidate: Noted, running: Noted) -> Verdict | None:
    """What both trainings noted; None where they were not measured by the same questions."""
    new, old = _questions(*candidate), _questions(*running)
    if new is None or new != old:
        return None
    reached = [float(metrics["validation"][METRIC]) for _, metrics in (candidate, running)]
    return Verdict(*reached, questions=int(new[-1]))


def _questions(data: str, metrics: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What names the questions that a training held out: its data; events learned, held out and asked for."""
    fitted = metrics.get("validation")
    if not data or not isinstance(fitted, Mapping) or not {METRIC, "events"} <= fitted.keys():
        return None
    return data, metrics.get("events"), metrics.get("held_out"), fitted["events"]


def _learned(model: Recommender) -> int:
    until = model.record.get("until")
    if not isinstance(until, int):
        raise GateError(f"{model.name} does not say which events it has learned; train it again")
    return until


def _served(world: World, model: Recommender | None, name: str) -> Served:
    texts, read = world.read_by(model.adapter if model is not None else None)
    engine = Engine(world.catalog, texts, model, encode=read, exposure=world.exposure, diversity=world.diversity)
    return Served(world, engine, name)
