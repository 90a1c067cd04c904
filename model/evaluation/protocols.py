"""The protocols by name, and an evaluation from a data set to a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from model.config import TrainConfig
from model.evaluation import basket, continual, loo, session_stream, temporal
from model.evaluation.exams import Exam, Method, World
from model.evaluation.running import Progress, choose, take
from model.evaluation.tables import Table


class UnknownProtocolError(ValueError):
    """A name that no protocol has, or no row of one."""


Exams = tuple[Exam, list[Exam]]
K = {"session-stream": 20}
"""Length of a list where the literature's is not 10."""


def _temporal(world: World, splits: tuple[float, float, float]) -> dict[str, Exams]:
    chosen, tests = temporal.exams(world, splits, strict=True)
    return {test.name: (chosen, [test]) for test in tests}


PROTOCOLS: Mapping[str, Callable[[World, tuple[float, float, float]], dict[str, Exams]]] = MappingProxyType(
    {
        "temporal": _temporal,
        "basket": lambda world, splits: {"basket": basket.exams(world, splits)},
        "continual": lambda world, splits: continual.exams(world),
        "loo": lambda world, splits: {"loo": loo.exams(world)},
        "session-stream": lambda world, splits: {
            "static": session_stream.exams(world),
            "online": session_stream.exams(world, online=True),
        },
    }
)
"""Each gives, by the name of a row, the exam that settings are chosen by and the tests."""


AGAIN, BASKETS = ("basket", "session-stream"), ("basket",)
"""Protocols that ask for what a user has met, too; and those that ask for all of a basket at once."""


def trained_for(protocol: str, config: TrainConfig) -> TrainConfig:
    """How a model is trained for what a protocol asks."""
    changes: dict[str, object] = {"seen": "allow"} if protocol in AGAIN else {}
    return config.model_copy(update=changes | ({"baskets": True} if protocol in BASKETS else {}))


def length_of(protocol: str) -> int:
    """How many items a list has in a protocol, unless it is said."""
    return K.get(protocol, 10)


def exams(world: World, protocol: str, splits: tuple[float, float, float] = temporal.SPLITS) -> dict[str, Exams]:
    """By row of a protocol: the exam that settings are chosen by, and the tests. Raises UnknownProtocolError."""
    if protocol not in PROTOCOLS:
        raise UnknownProtocolError(f"no protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[protocol](world, splits)


def evaluate(
    world: World,
    protocol: str,
    methods: Sequence[Method],
    splits: tuple[float, float, float] = temporal.SPLITS,
    k: int | None = None,
    tune: bool = True,
    progress: Callable[[str], Progress] | None = None,
    rows: Sequence[str] | None = None,
    every: int = 1,
) -> dict[str, tuple[Table, list[Method]]]:
    """By row of the protocol (`temporal` and `strict`; `static` and `online`; else one): the table, and the methods
    with the settings that were chosen. rows: only these. every: ask every n-th question of the tests only.
    `progress(title)` gives something to report to. Raises UnknownProtocolError, NothingToAskError.
    """
    report = progress or (lambda title: lambda done, total: None)
    found: dict[str, tuple[Table, list[Method]]] = {}
    chosen: dict[int, list[Method]] = {}
    asked = exams(world, protocol, splits)
    if unknown := set(rows or ()) - asked.keys():
        raise UnknownProtocolError(f"{protocol} has no row {min(unknown)!r}: use some of {', '.join(asked)}")
    for name, (validation, tests) in asked.items():
        if rows and name not in rows:
            continue
        for method in methods:
            method.chosen_by(validation)
        if id(validation) not in chosen:
            chosen[id(validation)] = choose(methods, validation, progress=report("choosing")) if tune else list(methods)
        ready = chosen[id(validation)]
        found[name] = (
            take(
                ready, [test.every(every) for test in tests], world, k or length_of(protocol), report(f"testing {name}")
            ),
            ready,
        )
    return found
