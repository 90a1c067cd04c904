"""`eddyline evaluate --protocol off-policy`: what other ways to explore would have been worth.

Lists and feedback are read by `stream/logged.py`; how values come of them is in `model/evaluation/offpolicy.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.table import Table as Grid

from model.evaluation.offpolicy import Logged, Value, values
from model.explore import ExploreConfig
from model.fatigue import OUTCOME_CODE
from stream.console.common import out, run, settings
from stream.errors import ConfigError, LogError

if TYPE_CHECKING:  # Kafka is behind it
    from stream.logged import Log, Said

PROTOCOL = "off-policy"
POLICIES = "greedy,epsilon=0.1,softmax=0.5"
OUTCOMES = "clicked"
SHOWN = "shown"


def off_policy(data: str, policies: str, outcomes: str, as_json: bool, kafka: str | None = None) -> None:
    """Print the value of a list under each policy, with intervals."""
    from stream.logged import FEEDBACK, LISTS, of

    wanted, worth = _policies(policies), _outcomes(outcomes)
    s = settings(kafka)
    log = run(of(data, s.kafka, s.topics))
    logged = columns(log, worth)
    if not len(logged):
        raise LogError(
            f"no list in {data} has feedback",
            f"bring {FEEDBACK} beside the {LISTS}, of the same days, each with the id of its list",
        )
    found = values(logged, wanted)
    if as_json:
        said = {
            name: {k: list(v.values()) if isinstance(v, dict) else v for k, v in asdict(value).items()}
            for name, value in found.items()
        }
        told = {"data": data, "protocol": PROTOCOL, "lists": len(logged), "policies": said}
        print(json.dumps(told | {"unreadable": log.unreadable}))
        return
    out.print(_grid(found, f"{data}: {outcomes} of a list, {len(logged)} lists of {len(set(logged.users))} users"))
    if log.unreadable:
        out.print(f"{log.unreadable} records could not be read", highlight=False)


def columns(log: Log, worth: Mapping[str, float]) -> Logged:
    """Lists and what came of them; none where there is no feedback to any. A list counts once, however often it was
    delivered; where feedback says what was shown, only lists of which something was. Of an item with several outcomes
    the one that is worth most counts.
    """
    of_item: dict[tuple[str, str], float] = {}
    for said in log.feedback:
        if said.recommendation is not None and said.item is not None:
            at = said.recommendation, said.item
            of_item[at] = max(of_item.get(at, 0.0), worth.get(said.outcome, 0.0))
    came = {said.recommendation for said in log.feedback}
    shown = {said.recommendation for said in log.feedback if said.outcome == SHOWN}
    kept = {one.id: one for one in log.lists if one.items and (not shown or one.id in shown)}
    return _columns([] if came.isdisjoint(kept) else list(kept.values()), of_item)


def _columns(lists: Sequence[Said], of_item: Mapping[tuple[str, str], float]) -> Logged:
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
        worth = {name: float(number or 1) for name, _, number in (part.partition("=") for part in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"--outcomes {text!r} cannot be read: {error}", "write clicked=1,bought=5") from error
    if unknown := worth.keys() - OUTCOME_CODE.keys():
        raise ConfigError(f"no outcome is called {min(unknown)!r}", f"use some of {', '.join(OUTCOME_CODE)}")
    return worth


def _grid(found: Mapping[str, Value], title: str) -> Grid:
    grid = Grid(title=title, title_justify="left")
    for column in ("policy", "ips", "snips", "capped", "effective lists"):
        grid.add_column(column)
    for name, value in found.items():
        grid.add_row(name, str(value.ips), str(value.snips), str(value.capped), f"{value.effective:.0f}")
    return grid
