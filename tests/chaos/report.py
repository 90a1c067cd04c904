"""What a run found: progress as it goes, a table, one JSON object, a page for `docs/`."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.chaos.findings import KINDS, Findings


@dataclass
class Result(Findings):
    """Everything that is told of a run, what is wrong first of all."""

    seed: int
    minutes: float = 0.0
    rounds: int = 0
    audits: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    events: int = 0
    dead_letters: int = 0
    lists: int = 0
    lists_repeated: int = 0
    letters_repeated: int = 0
    users: int = 0
    longest_unanswered_s: float = 0.0
    p50_unanswered_s: float = 0.0
    p99_unanswered_s: float = 0.0
    by_itself: list[str] = field(default_factory=list)
    cut_short: list[str] = field(default_factory=list)
    disk: str = ""

    def write(self, path: Path) -> None:
        """Keep it, whole or not at all."""
        part = path.with_suffix(".part")
        part.write_text(json.dumps({field.name: getattr(self, field.name) for field in fields(self)}))
        part.replace(path)

    @staticmethod
    def read(path: Path) -> Result:
        kept = json.loads(path.read_text())
        return Result(**kept | {name: Counter(kept[name]) for name in ("faults", "wrong")})

    @property
    def worker_faults(self) -> int:
        return self.faults["worker killed"] + self.faults["worker frozen"]

    @property
    def broker_faults(self) -> int:
        return sum(self.faults[k] for k in ("broker killed", "broker restarted", "broker frozen", "disk filled"))

    def as_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "minutes": round(self.minutes, 1),
            "rounds": self.rounds,
            "audits": self.audits,
            "faults": dict(sorted(self.faults.items())),
            "worker_faults": self.worker_faults,
            "broker_faults": self.broker_faults,
            "events": self.events,
            "users": self.users,
            "dead_letters": self.dead_letters,
            "lists": self.lists,
            "lists_repeated": self.lists_repeated,
            "letters_repeated": self.letters_repeated,
            "workers_ended_by_themselves": len(self.by_itself),
            "legs_cut_short": len(self.cut_short),
            "longest_unanswered_s": round(self.longest_unanswered_s, 1),
            "p50_unanswered_s": round(self.p50_unanswered_s, 1),
            "p99_unanswered_s": round(self.p99_unanswered_s, 1),
            **{kind: self.wrong[kind] for kind in KINDS},
        }

    def rows(self) -> list[tuple[str, str]]:
        """The table."""
        said = self.as_json()
        faults = [(name, str(n)) for name, n in said["faults"].items()]
        numbers = [(name.replace("_", " "), f"{said[name]:,}") for name in said if name not in ("faults", "seed")]
        return [("seed", str(self.seed)), *faults, *numbers]

    def text(self) -> str:
        wide = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{wide}}  {value:>12}" for name, value in self.rows())

    def line(self) -> str:
        return json.dumps(self.as_json())

    def page(self, command: str) -> str:
        """The report as Markdown."""
        verdict = "Nothing was found wrong." if not self.wrong.total() else "Wrong: " + "; ".join(self.told)
        table = "\n".join(f"| {name} | {value} |" for name, value in self.rows())
        ended = "\n".join(f"- {n} times: {words}" for words, n in Counter(map(_how, self.by_itself)).most_common())
        cut_short = "".join(f"\nCut short, the harness itself: {words}.\n" for words in self.cut_short)
        return f"""# What `make chaos` found

{verdict}

`{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, Python {platform.python_version()}.

| | |
|---|---|
{table}

A full disk is {self.disk}.

A user is unanswered from the time at which the event was published until that of the list that knows of it; the time
that workers and the broker were away is in it. Of several legs, waits are those of the worst.

Workers that ended by themselves while the broker was gone, full or frozen, and were started again:

{ended or "None."}
{cut_short}
How faults are made, and what is compared after each round: [tests/chaos](../tests/chaos).
"""


def _how(ended: str) -> str:
    """`worker 12 ended with code 4: ...` without the worker's number."""
    return ended.split(" ended ", 1)[-1]
