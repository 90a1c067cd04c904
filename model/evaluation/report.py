"""An evaluation as text, as JSON, and as a plot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table as Grid

from model.evaluation.exams import Method, World
from model.evaluation.methods.text import tfidf_svd
from model.evaluation.tables import Table
from model.evaluation.values import Values
from model.metrics import Interval

Tables = Mapping[str, tuple[Table, list[Method]]]
SHOWN = ("hr", "ndcg", "mrr@", "coverage", "novelty", "diversity", "seconds")


class PlotError(RuntimeError):
    """A plot that cannot be drawn; the message says what to do."""


def drawable(path: Path) -> None:
    """Before hours of work: raises PlotError where `draw` could not write to this path."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise PlotError("plots are drawn by matplotlib: pip install 'eddyline[plot]'") from e
    if not path.parent.is_dir():
        raise PlotError(f"{path}: there is no folder {path.parent}; make it, or name another file with --plot")
    if path.suffix[1:].lower() not in Figure().canvas.get_supported_filetypes():
        raise PlotError(f"{path}: its ending says no kind of plot; use .png, .svg or .pdf")


def grid_of(title: str, columns: Iterable[str]) -> Grid:
    """A table without rows; where it is too narrow, cells go on in the next line: no figure is cut."""
    grid = Grid(title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, overflow="fold")
    return grid


def rows_of(table: Table, world: World) -> dict[str, dict[str, Any]]:
    """By method, every metric. Novelty is by what was learned first; diversity by the words of items (TF-IDF + SVD)."""
    texts = [world.items[i].text_for_encoder() for i in world.catalog.ids]
    return table.rows(tfidf_svd(texts, 64))


def of_values(values: Values) -> Grid:
    """How far off values were told."""
    columns = ("told by", "mae", "biases less this, paired by user")
    grid = grid_of(f"values of {len(values.users)} events: MAE", columns)
    for name, row in values.rows().items():
        grid.add_row(name, *map(str, row.values()))
    return grid


def as_dict(tables: Tables, world: World) -> dict[str, Any]:
    """All of it in plain values, an interval as [mean, low, high]."""
    found: dict[str, Any] = {}
    for name, (table, methods) in tables.items():
        settings = {m.name: m.settings() for m in methods}
        found[name] = {
            "questions": len(table.asks),
            "users": len(np.unique(table.asks.users)),
            "methods": {
                method: {"settings": settings.get(method, {}), **{m: plain(v) for m, v in row.items()}}
                for method, row in rows_of(table, world).items()
            },
            "best": table.best,
            "behind": _behind_plain(table, None),
            "segments": table.by_segment(),
            "behind_by_segment": {n: _behind_plain(table, keep) for n, keep in table.segments().items() if keep.any()},
        }
    return found


def _behind_plain(table: Table, keep: NDArray[np.bool_] | None) -> dict[str, dict[str, object]]:
    return {n: {m: plain(v) for m, v in row.items()} for n, row in table.behind(keep).items()}


def plain(value: object) -> object:
    """An interval as [mean, low, high], anything else as it is."""
    return [value.mean, value.low, value.high] if isinstance(value, Interval) else value


def shown(tables: Tables, data: str, world: World) -> Iterator[Grid]:
    """Tables a row of the protocol: metrics with their intervals, how far others are behind the best, HR by segment."""
    for name, (table, _) in tables.items():
        rows = rows_of(table, world)
        columns = [c for c in next(iter(rows.values())) if c.startswith(SHOWN)]
        grid = grid_of(f"{data}, {name}: {table.means}", ("method", *columns))
        for method, row in rows.items():
            grid.add_row(method, *(_cell(row[c]) for c in columns))
        yield grid
        if len(table.answers) > 1:
            yield _behind(table)
        yield _segments(table, f"HR@{table.k} by segment")
        if len(table.answers) > 1:
            yield _behind_by_segment(table)


def _behind(table: Table) -> Grid:
    columns = ("method", f"hr@{table.k}", f"ndcg@{table.k}")
    grid = grid_of(f"{table.best} less the others, paired by user", columns)
    for method, row in table.behind().items():
        grid.add_row(method, *(str(interval) for interval in row.values()))
    return grid


def _segments(table: Table, title: str) -> Grid:
    grid = grid_of(title, ("segment", "questions", *table.answers))
    for segment, row in table.by_segment().items():
        grid.add_row(segment, str(row["questions"]), *(f"{row[n]:.4f}" for n in table.answers))
    return grid


def _behind_by_segment(table: Table) -> Grid:
    found = {segment: table.behind(keep) for segment, keep in table.segments().items() if keep.any()}
    columns = ("segment", *next(iter(found.values())))
    grid = grid_of(f"NDCG@{table.k} of {table.best} less the others, by segment", columns)
    for segment, rows in found.items():
        grid.add_row(segment, *(str(row[f"ndcg@{table.k}"]) for row in rows.values()))
    return grid


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def draw(tables: Tables, data: str, path: Path) -> None:
    """Means and intervals of HR and NDCG, a panel each. Raises PlotError as `drawable` does."""
    drawable(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2 + 0.35 * sum(len(t.answers) for t, _ in tables.values())), layout="constrained")
    axes: Sequence[Any] = figure.subplots(1, 2, sharey=True)
    k = next(iter(tables.values()))[0].k
    labels = [f"{method} ({row})" for row, (table, _) in tables.items() for method in table.answers]
    for axis, metric in zip(axes, (f"hr@{k}", f"ndcg@{k}"), strict=True):
        found = [table.interval(table.metrics(m)[metric]) for table, _ in tables.values() for m in table.answers]
        means = [i.mean for i in found]
        errors = [[i.mean - i.low for i in found], [i.high - i.mean for i in found]]
        axis.barh(range(len(found)), means, xerr=errors, color="#4878a8", ecolor="#333333")
        axis.set_yticks(range(len(found)), labels)
        axis.set_title(f"{metric.upper()}, {data}")
    axes[0].invert_yaxis()
    figure.savefig(path)
