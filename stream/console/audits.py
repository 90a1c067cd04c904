"""What `eddyline evaluate` measures beside ranks: whether reasons are true, who is served how well and what is shown,
and what noise does. Measuring itself is in `model/evaluation`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stream.console.common import out, progress

if TYPE_CHECKING:
    from rich.table import Table as Grid

    from model.evaluation.exams import Method, World
    from model.evaluation.fairness import Served, Shown
    from model.evaluation.report import Tables
    from model.evaluation.tables import Table
    from model.people import Person


class Groups:
    """Who is served how well and what is shown, in tables that are there: by these attributes of users, with commas
    between them. people: who they are, by user. Raises DatasetError where nobody has an attribute.
    """

    def __init__(self, world: World, people: Mapping[str, Person], names: str) -> None:
        import numpy as np

        from model.evaluation.fairness import require

        self._catalog, self._names = world.catalog, [n for n in names.split(",") if n and n != "items"]
        self._users = np.unique(world.events.user.astype(str))
        self._said = {user: person.attributes for user, person in people.items()}
        require(self._said, self._names)

    def as_dict(self, table: Table) -> dict[str, Any]:
        """Plain values of one table."""
        from model.evaluation.told import groups_as_dict

        return groups_as_dict(*self._of(table))

    def shown(self, tables: Tables, title: str) -> Iterator[Grid]:
        """Tables for people, of each row of the protocol."""
        from model.evaluation.told import groups_shown

        for row, (table, _) in tables.items():
            yield from groups_shown(*self._of(table), table.k, f"{title}, {row}")

    def _of(self, table: Table) -> tuple[dict[str, Shown], dict[str, Served]]:
        from model.evaluation.fairness import exposure, quality

        return exposure(table, self._catalog), quality(table, self._users, self._said, self._names)


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


def noise(
    world: World,
    data: str,
    protocol: str,
    methods: Callable[[World], Sequence[Method]],
    kind: str,
    shares: str,
    splits: tuple[float, float, float],
    k: int | None,
    tune: bool,
    as_json: bool,
) -> None:
    """Tells what methods reach when so much of a noise is in what they learn: shares with commas between them."""
    from contextlib import ExitStack

    from model.evaluation.noise import tables
    from model.evaluation.told import noise_as_dict, noise_shown
    from stream.errors import ConfigError

    if protocol != "temporal":
        raise ConfigError(f"--noise is not measured under {protocol}", "leave --protocol out")
    try:
        wanted = [float(share) for share in shares.split(",")]
    except ValueError as e:
        raise ConfigError(f"--share {shares}: {e}", "give numbers with commas between them, as .05,.1,.2") from e
    if min(wanted) < 0:
        raise ConfigError(f"--share {shares}: noise is put in, not taken out", "give shares above 0, as .05,.1,.2")
    with ExitStack() as bars:
        bar = lambda title: bars.enter_context(progress(title))  # noqa: E731
        found = tables(world, methods, kind, wanted, splits, k, tune, bar)
    if as_json:
        print(json.dumps({"data": data, "noise": kind, "methods": noise_as_dict(found)}))
        return
    out.print(noise_shown(found, f"{data}, {kind}"))
