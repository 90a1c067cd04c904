"""`eddyline evaluate --protocol variants`: what came of each variant, told as tables or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from stream.console.common import err, out, run, settings

if TYPE_CHECKING:
    from rich.table import Table as Grid

    from model.evaluation.variants import Comparison
    from model.metrics import Interval

PROTOCOL = "variants"


def compare(data: str, as_json: bool, kafka: str | None = None) -> None:
    """Read lists and feedback from a folder or from the topics, and tell how variants compare."""
    from model.evaluation.variants import MISMATCH, as_dict
    from model.evaluation.variants import compare as compared
    from stream.lists.variants import shares
    from stream.logged import columns, of

    s = settings(kafka)
    log = run(of(data, s.kafka, s.topics))
    logged, repeated = columns(log)
    found = compared(logged, shares(s.variants) if s.variants else None)
    if as_json:
        said = {"data": data, "protocol": PROTOCOL, **as_dict(found), "repeated": repeated}
        print(json.dumps(said | {"unreadable": log.unreadable}))
        return
    for grid in _tables(found, data):
        out.print(grid)
    for text, number in (
        ("outcomes name no list, and belong to no variant", found.unnamed),
        ("outcomes name a list that is not in the log", found.unknown),
        ("users had lists of more than one variant: shares were changed, or the experiment", found.crossed),
        ("records said again what another had said, and count once", repeated),
        ("records could not be read", log.unreadable),
    ):
        if number:
            out.print(f"{number} {text}", highlight=False)
    if found.mismatch is None:
        out.print("whether users were split as meant is not known: set \\[variants] as workers have them")
    elif found.mismatch < MISMATCH:
        err.print(
            f"[bold red]sample ratio mismatch:[/] a split so far from the shares has a chance of {found.mismatch:.1g}; "
            "what loses users of one variant also shifts its rates, so find that first"
        )
    else:
        out.print(f"users are split as the shares say (chi-squared, p = {found.mismatch:.2g})", highlight=False)


def _tables(found: Comparison, data: str) -> Iterator[Grid]:
    from rich.table import Table as Grid

    from model.evaluation.variants import RATES

    lists = sum(result.lists for result in found.results.values())
    grid = Grid(title=f"{data}: {lists} lists; 95% intervals over users", title_justify="left")
    counts = ("shown", "clicked", "bought")
    for column in ("variant", "users", "lists", *counts, *RATES, "coverage"):
        grid.add_column(column)
    for name, r in found.results.items():
        numbers = (r.users, r.lists, *(r.counts[c] for c in counts))
        grid.add_row(name, *map(str, numbers), *(_cell(r.rates[rate]) for rate in RATES), f"{r.coverage:.4f}")
    yield grid
    first, *others = found.results
    if others:
        grid = Grid(title=f"above {first}", title_justify="left")
        for column in ("variant", *RATES):
            grid.add_column(column)
        for name in others:
            grid.add_row(name, *(_cell(found.results[name].over[rate]) for rate in RATES))
        yield grid
    if found.shadows:
        grid = Grid(title="shadow lists beside what was emitted", title_justify="left")
        for column in ("shadow", "emitted", "lists", "overlap", "Kendall's tau of what both have"):
            grid.add_column(column)
        for (shadow, emitted), likeness in found.shadows.items():
            grid.add_row(shadow, emitted, str(likeness.lists), _cell(likeness.overlap), _cell(likeness.tau))
        yield grid


def _cell(interval: Interval | None) -> str:
    return "-" if interval is None else str(interval)
