"""What `eddyline evaluate` measures instead of ranks: whether reasons are true. Measuring is `model/evaluation`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from stream.console.common import out, progress

if TYPE_CHECKING:
    from model.evaluation.exams import Method, World


def explain(
    world: World,
    data: str,
    protocol: str,
    splits: tuple[float, float, float],
    methods: Sequence[Method],
    questions: int,
    as_json: bool,
) -> None:
    """Holds reasons against scores without each interaction, in the first test of a protocol."""
    from model.evaluation.explanations import explained
    from model.evaluation.protocols import exams
    from model.evaluation.told import explanations_as_dict, explanations_shown

    _, tests = next(iter(exams(world, protocol, splits).values()))
    with progress("scoring without each interaction") as bar:
        found = explained(world, tests[0], methods, questions, bar)
    if as_json:
        print(json.dumps({"data": data, "protocol": protocol, "explanations": explanations_as_dict(found)}))
        return
    for table in explanations_shown(found, data):
        out.print(table)
