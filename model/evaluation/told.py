"""What is measured beside ranks, as tables for people and as plain values for programs: explanations, groups, noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table as Grid

from model.evaluation.explanations import Found
from model.evaluation.fairness import Served, Shown
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


def groups_as_dict(shown: Mapping[str, Shown], served: Mapping[str, Served]) -> dict[str, Any]:
    """Exposure by group of items, quality by group of users."""
    return {
        "exposure": {g: asdict(s) for g, s in shown.items()},
        "quality": {
            g: {
                "users": s.users,
                "questions": s.questions,
                **{method: {m: plain(v) for m, v in row.items()} for method, row in s.quality.items()},
            }
            for g, s in served.items()
        },
    }


def groups_shown(shown: Mapping[str, Shown], served: Mapping[str, Served], k: int, title: str) -> Iterator[Grid]:
    """A table of each."""
    methods = list(next(iter(shown.values())).places)
    grid = Grid(
        title=f"{title}: places in lists by group of items, and HR@{k} where that is taken", title_justify="left"
    )
    for column in ("items", "of the catalogue", "of what is taken", *methods):
        grid.add_column(column)
    for group, s in shown.items():
        cells = (f"{s.places[m]:.4f}" + (f", HR {s.hr[m]:.4f}" if m in s.hr else "") for m in methods)
        grid.add_row(group, f"{s.catalog:.4f}", f"{s.taken:.4f}", *cells)
    yield grid
    if not served:
        return
    grid = Grid(title=f"{title}: HR@{k} and NDCG@{k} by group of users", title_justify="left")
    for column in ("users", "how many", "questions", *methods):
        grid.add_column(column)
    for group, s in served.items():
        grid.add_row(
            group, str(s.users), str(s.questions), *("\n".join(map(str, s.quality[m].values())) for m in methods)
        )
    yield grid
