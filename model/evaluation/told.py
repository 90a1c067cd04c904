"""What is measured beside ranks, as tables for people and as plain values for programs: explanations, noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table as Grid

from model.evaluation.explanations import Found
from model.evaluation.report import plain


def explanations_as_dict(found: Mapping[str, Found]) -> dict[str, Any]:
    """By method: how many lists, what was named and explained, and each ranker's measures as [mean, low, high]."""
    return {
        method: {
            "lists": len(one.users),
            "named": float(one.named.mean()),
            "explained": float(one.explained.mean()),
            "rankers": {r: {m: plain(v) for m, v in row.items()} for r, row in one.rows().items()},
        }
        for method, one in found.items()
    }


def explanations_shown(found: Mapping[str, Found], data: str) -> Iterator[Grid]:
    """A table a method."""
    for method, one in found.items():
        said = f"{one.named.mean():.0%} of items name an interaction, {one.explained.mean():.0%} is explained"
        grid = Grid(title=f"{data}, {method}: {len(one.users)} lists, {said}", title_justify="left")
        rows = one.rows()
        columns = list(next(iter(rows.values())))
        for column in ("by", *columns):
            grid.add_column(column)
        for ranker, row in rows.items():
            grid.add_row(ranker, *(str(row[c]) if c in row else "" for c in columns))
        yield grid
