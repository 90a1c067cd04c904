"""Settings of a method as a grid that is climbed one coordinate at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def sweep(now: Mapping[str, Any], grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """`now`, and every setting that differs from it in one value by one place of the grid. A value that is not on
    its grid may become any that is.
    """
    found = [dict(now)]
    for name, values in grid.items():
        at = values.index(now[name]) if now[name] in values else None
        near = values if at is None else [*values[max(at - 1, 0) : at], *values[at + 1 : at + 2]]
        found += [{**now, name: value} for value in near]
    return found
