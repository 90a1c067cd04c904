"""`eddyline evaluate FOLDER --protocol off-policy`: what other ways to explore would have been worth.

Reads messages of the recommendations and feedback topics as files, a message a line of JSON or a row of Parquet; how
values come of them is in `model/evaluation/offpolicy.py`.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from rich.table import Table as Grid

from model.evaluation.offpolicy import Logged, Value, values
from model.explore import ExploreConfig
from stream import messages
from stream.console.common import out
from stream.errors import ConfigError

POLICIES = "greedy,epsilon=0.1,softmax=0.5"
OUTCOMES = "clicked"
SHOWN = "shown"


class LoggedItem(msgspec.Struct):
    """What is read of an item of a list."""

    item: str
    propensity: float


class LoggedList(msgspec.Struct):
    """What is read of a recommendation."""

    id: str
    user: str
    items: list[LoggedItem]
    drawn: messages.Drawn | None = None


class Feedback(msgspec.Struct):
    """What came of one item of a list."""

    recommendation: str
    item: str
    outcome: str


Read = TypeVar("Read", LoggedList, Feedback)


def off_policy(folder: str, policies: str, outcomes: str, as_json: bool) -> None:
    """Print the value of a list under each policy, with intervals."""
    wanted, worth = _policies(policies), _outcomes(outcomes)
    feedback = list(_messages(Path(folder), "feedback", Feedback))
    logged = columns(_messages(Path(folder), "recommendations", LoggedList), feedback, worth)
    if not len(logged):
        raise ConfigError(
            f"no list in {folder} was shown", "bring recommendations and the feedback to them, of the same days"
        )
    found = values(logged, wanted)
    if as_json:
        said = {
            name: {k: list(v.values()) if isinstance(v, dict) else v for k, v in asdict(value).items()}
            for name, value in found.items()
        }
        print(json.dumps({"data": folder, "protocol": "off-policy", "lists": len(logged), "policies": said}))
        return
    out.print(_grid(found, f"{folder}: {outcomes} of a list, {len(logged)} lists of {len(set(logged.users))} users"))


def columns(lists: Iterator[LoggedList], feedback: list[Feedback], worth: Mapping[str, float]) -> Logged:
    """Lists and what came of them. A list counts once, however often it was delivered; where feedback says what was
    shown, only lists of which something was. Of an item with several outcomes the one that is worth most counts.
    """
    of_item: dict[tuple[str, str], float] = {}
    for said in feedback:
        at = said.recommendation, said.item
        of_item[at] = max(of_item.get(at, 0.0), worth.get(said.outcome, 0.0))
    shown = {said.recommendation for said in feedback if said.outcome == SHOWN}
    kept = {one.id: one for one in lists if one.items and (not shown or one.id in shown)}
    return _columns(list(kept.values()), of_item)


def _columns(lists: list[LoggedList], of_item: Mapping[tuple[str, str], float]) -> Logged:
    n = max((len(one.items) for one in lists), default=0)
    wide = max((len(one.drawn.utilities) for one in lists if one.drawn), default=0)
    number: dict[str, int] = {}
    users = np.array([number.setdefault(one.user, len(number)) for one in lists], np.int64)
    propensity, reward = np.zeros((len(lists), n)), np.zeros((len(lists), n))
    at, bits = np.full((len(lists), n), -1, np.int32), np.zeros((len(lists), n), np.int64)
    utilities = np.full((len(lists), wide), -np.inf, np.float32)
    new, pool = np.zeros(len(lists), np.int64), np.zeros(len(lists), np.int64)
    for i, one in enumerate(lists):
        many = len(one.items)
        propensity[i, :many] = [item.propensity for item in one.items]
        reward[i, :many] = [of_item.get((one.id, item.item), 0.0) for item in one.items]
        if (drawn := one.drawn) is not None:
            at[i, :many], bits[i, :many] = drawn.at, drawn.free
            utilities[i, : len(drawn.utilities)] = drawn.utilities
            new[i], pool[i] = drawn.new, drawn.pool
    column = np.arange(wide)
    free, fresh = (bits[..., None] >> column) & 1 == 1, (new[:, None] >> column) & 1 == 1
    return Logged(users, propensity, pool, utilities, fresh, free, at, reward)


def _messages(folder: Path, name: str, kind: type[Read]) -> Iterator[Read]:
    """Messages from the files of that name: .jsonl, .jsonl.gz or .parquet."""
    files = [f for f in sorted(folder.glob(f"{name}*")) if f.name.endswith((".jsonl", ".jsonl.gz", ".parquet"))]
    if not files:
        raise ConfigError(
            f"{folder} has no {name}", f"write the messages of that topic to {folder / name}.jsonl, one a line"
        )
    for file in files:
        done = 0
        try:
            for row in _rows(file):
                yield msgspec.json.decode(row, type=kind) if isinstance(row, bytes) else msgspec.convert(row, kind)
                done += 1
        except (msgspec.MsgspecError, OSError) as error:
            raise ConfigError(f"{file}, message {done + 1}: {error}", "see docs/schemas/recommendation.json") from error


def _rows(file: Path) -> Iterator[bytes | dict[str, Any]]:
    if file.suffix == ".parquet":
        import polars

        yield from polars.read_parquet(file).iter_rows(named=True)
        return
    with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as lines:
        yield from (line for line in lines if line.strip())


def _policies(text: str) -> dict[str, ExploreConfig]:
    """`greedy`, `epsilon=0.1`, `softmax=0.5`; with `+new=0.05`, also that share of places for items with few
    interactions.
    """
    found = {}
    for name in filter(None, text.split(",")):
        method, *more = name.split("+")
        kind, _, number = method.partition("=")
        try:
            said: dict[str, Any] = {"new_items": sum(float(part.removeprefix("new=")) for part in more)}
            if kind == "epsilon":
                said |= {"method": kind, "epsilon": float(number)}
            elif kind == "softmax":
                said |= {"method": kind, "temperature": float(number)}
            elif name != "greedy" and method != "greedy":
                raise ValueError(f"no policy {kind!r}")
            found[name] = ExploreConfig.model_validate(said)
        except ValueError as error:
            raise ConfigError(
                f"policy {name!r} cannot be read: {str(error).splitlines()[-1]}",
                "use greedy, epsilon=0.1, softmax=0.5, and +new=0.05 behind one of them",
            ) from error
    return found


def _outcomes(text: str) -> dict[str, float]:
    """`clicked` is worth 1, `bought=5` five."""
    try:
        return {name: float(number or 1) for name, _, number in (part.partition("=") for part in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"--outcomes {text!r} cannot be read: {error}", "write clicked=1,bought=5") from error


def _grid(found: Mapping[str, Value], title: str) -> Grid:
    grid = Grid(title=title, title_justify="left")
    for column in ("policy", "ips", "snips", "capped", "effective lists"):
        grid.add_column(column)
    for name, value in found.items():
        grid.add_row(name, str(value.ips), str(value.snips), str(value.capped), f"{value.effective:.0f}")
    return grid
