"""What `eddyline release announce` asks before it announces: whether the model is as good as what is served.

How two models are compared is `model.evaluation.gate`'s; here both are found, and it is decided.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.console.common import err, progress

if TYPE_CHECKING:
    from model.evaluation.gate import Verdict
    from stream.lists.depot import Depot
    from stream.lists.release import Release


def gate(
    folder: Path, standing: Release | None, depot: Depot, data: str | None, margin: float, force: bool
) -> dict[str, Any]:
    """What is noted of the comparison in the release; nothing where there was nothing to compare.

    data: the gate data, or None: then only what both trainings have noted can be compared.

    Raises:
        ModelError: it is worse by more than the margin, or cannot be compared, and `force` does not say to go on.
    """
    from model.evaluation.gate import GateError
    from stream.errors import EddylineError, ModelError

    name = standing.name if standing is not None else "the fallback"
    try:
        verdict = _verdict(folder, standing, depot, data)
    except (EddylineError, GateError, OSError) as error:
        if not force:
            raise ModelError(
                f"{folder} cannot be compared with {name}: {error}", "or announce it without: --force"
            ) from error
        err.print(f"not compared with {name}: {error}", highlight=False, markup=False)
        return {}
    if verdict is None:
        if standing is not None:
            err.print(
                f"not compared with {name}: they were not measured by the same questions; "
                "--gate DATA asks both those that are newer than either",
                highlight=False,
            )
        return {}
    told = (
        f"NDCG@10 {verdict.candidate:.4f}, {name} {verdict.running:.4f}, by {verdict.questions:,} questions"
        f"{f', difference {verdict.difference}' if verdict.difference is not None else ''}"
    )
    if verdict.worse(margin) and not force:
        raise ModelError(
            f"{folder} is worse than {name} by more than {margin:.0%}: {told}",
            "it is not announced; train it better, or announce it all the same: --force",
        )
    err.print(told, highlight=False, markup=False)
    noted: dict[str, Any] = {
        "against": name,
        "data": data or "its training's",
        "questions": verdict.questions,
        "ndcg@10": verdict.candidate,
        "running_ndcg@10": verdict.running,
    }
    if verdict.difference is not None:
        noted["difference"] = [verdict.difference.mean, verdict.difference.low, verdict.difference.high]
    return {"gate": noted | ({"forced": True} if verdict.worse(margin) else {})}


def _verdict(folder: Path, standing: Release | None, depot: Depot, data: str | None) -> Verdict | None:
    from model import checkpoint
    from model.evaluation.gate import judge, recorded
    from stream.console.evaluating import world_of
    from stream.console.histories import Wanted, catalogued

    candidate = checkpoint.load(folder)
    if data is not None:
        running = checkpoint.load(depot.at(standing)) if standing is not None else None
        world = world_of(*catalogued(Wanted(data)))
        with progress("gate") as bar:
            return judge(world, candidate, running, bar)
    if standing is None:
        return None
    return recorded((checkpoint.manifest(folder).data, candidate.metrics), (standing.data, standing.metrics))
