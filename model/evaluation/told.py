"""What is measured beside ranks, as tables for people and as plain values for programs: explanations, groups, noise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table as Grid

from model.evaluation.explanations import Found
from model.evaluation.fairness import Served, Shown
from model.evaluation.report import grid_of, plain
from model.evaluation.tables import Table
from model.metrics import Interval, bootstrap


def explanations_as_dict(found: Mapping[str, Found]) -> dict[str, Any]:
    """By method: how many lists, facts of them and each ranker's measures, as [mean, low, high]."""
    return {
        method: {
            "lists": len(one.users),
            **{f: plain(bootstrap(one.users, v, seed=0)) for f, v in one.facts.items()},
            "rankers": {r: {m: plain(v) for m, v in row.items()} for r, row in one.rows().items()},
        }
        for method, one in found.items()
    }


def explanations_shown(found: Mapping[str, Found], data: str) -> Iterator[Grid]:
    """A table a method."""
    for method, one in found.items():
        said = ", ".join(f"{f} {v.mean():.4f}" for f, v in one.facts.items())
        rows = one.rows()
        columns = list(next(iter(rows.values())))
        grid = grid_of(f"{data}, {method}: {len(one.users)} lists; {said}", ("by", *columns))
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
    columns = ("items", "of the catalogue", "of what is taken", *methods)
    grid = grid_of(f"{title}: places in lists by group of items, and HR@{k} where that is taken", columns)
    for group, s in shown.items():
        cells = (f"{s.places[m]:.4f}" + (f", HR {s.hr[m]:.4f}" if m in s.hr else "") for m in methods)
        grid.add_row(group, f"{s.catalog:.4f}", f"{s.taken:.4f}", *cells)
    yield grid
    if not served:
        return
    columns = ("users", "how many", "questions", *methods)
    grid = grid_of(f"{title}: HR@{k} and NDCG@{k} by group of users", columns)
    for group, s in served.items():
        grid.add_row(
            group, str(s.users), str(s.questions), *("\n".join(map(str, s.quality[m].values())) for m in methods)
        )
    yield grid


def noise_rows(tables: Mapping[float, Table]) -> dict[str, dict[float, dict[str, Interval]]]:
    """By method and share of noise: HR@k and NDCG@k, and how much the first is below that without noise, paired."""
    clean = tables[0.0]
    found: dict[str, dict[float, dict[str, Interval]]] = {}
    for method in clean.answers:
        before = clean.metrics(method)
        for share, table in tables.items():
            now = table.metrics(method)
            row = {m: clean.interval(now[m]) for m in (f"hr@{clean.k}", f"ndcg@{clean.k}")}
            lost = clean.interval(before[f"hr@{clean.k}"] - now[f"hr@{clean.k}"])
            found.setdefault(method, {})[share] = row | ({"lost": lost} if share else {})
    return found


def noise_as_dict(tables: Mapping[float, Table]) -> dict[str, Any]:
    """`noise_rows` in plain values."""
    return {
        method: {f"{share:g}": {m: plain(v) for m, v in row.items()} for share, row in by_share.items()}
        for method, by_share in noise_rows(tables).items()
    }


def noise_shown(tables: Mapping[float, Table], title: str) -> Grid:
    """One table: a row a method and share."""
    k = tables[0.0].k
    columns = ("method", "noise", f"hr@{k}", f"ndcg@{k}", f"hr@{k} lost")
    grid = grid_of(f"{title}: {tables[0.0].means}", columns)
    for method, by_share in noise_rows(tables).items():
        for share, row in by_share.items():
            grid.add_row(method, f"{share:g}", *map(str, row.values()))
    return grid
