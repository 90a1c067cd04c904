"""Rows of two state versions, packed: which are equal, which differ, and which only have not read the same yet.

Packing is canonical, so equal knowledge has equal bytes. Pure; where rows come from is `stream.verify`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from model.history import ACTION_NAME
from stream.windows.packing import INTERACTION, Opened, opened

NEVER = np.iinfo(np.int64).min

Rows = dict[bytes, bytes]
"""User -> packed row."""


class Difference(NamedTuple):
    """One user in whom two versions differ: what is wrong, and both rows (None: there is none)."""

    partition: int
    user: str
    what: str
    here: Opened | None
    there: Opened | None

    def told(self) -> dict[str, Any]:
        """In full, as JSON-able values."""
        rows = {name: None if row is None else _told(row) for name, row in (("as", self.here), ("against", self.there))}
        return {"partition": self.partition, "user": self.user, "what": self.what, **rows}


@dataclass(slots=True)
class Compared:
    """What was found, in users. `apart` have been read to different offsets, and no more can be said of them; `idle`
    count as gone. Of those that differ the first are kept.
    """

    equal: int = 0
    different: int = 0
    only_here: int = 0
    only_there: int = 0
    apart: int = 0
    idle: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def wrong(self) -> int:
        """Users in whom the versions differ."""
        return self.different + self.only_here + self.only_there


Note = Callable[[bytes, str, Opened | None, Opened | None], None]


def compare(
    found: Compared,
    partition: int,
    here: Rows,
    there: Rows,
    read_here: Mapping[str, int],
    read_there: Mapping[str, int],
    idle_ms: int | None = None,
    show: int = 0,
) -> None:
    """Compare the rows of one partition, which takes `there` apart. read_*: the next offset that each version has
    committed, by topic.

    idle_ms: rows idle for longer are gone, by the clock of the version that is further.
    """
    least = NEVER if idle_ms is None else max(_watermark(here), _watermark(there)) - idle_ms

    def note(user: bytes, what: str, mine: Opened | None, other: Opened | None) -> None:
        if len(found.differences) < show:
            found.differences.append(Difference(partition, user.decode(), what, mine, other))

    for user, packed in here.items():
        other = there.pop(user, None)
        mine = None if packed == other and idle_ms is None else opened(packed)
        if mine is not None and idle_ms is not None and _newest_ms(mine) < least:
            found.idle += 1
        elif packed == other:
            found.equal += 1
        elif other is None:
            _alone(found, user, opened(packed), read_there, True, note)
        else:
            _two(found, user, opened(packed), opened(other), read_here, read_there, note)
    for user, packed in there.items():
        other = opened(packed)
        if idle_ms is not None and _newest_ms(other) < least:
            found.idle += 1
        else:
            _alone(found, user, other, read_here, False, note)


def _two(
    found: Compared,
    user: bytes,
    mine: Opened,
    other: Opened,
    read_here: Mapping[str, int],
    read_there: Mapping[str, int],
    note: Note,
) -> None:
    if mine == other:
        found.equal += 1
    elif mine.applied == other.applied:
        found.different += 1
        note(user, "the same events have been read, and the rows differ", mine, other)
    elif _lacks(mine, other, read_there) or _lacks(other, mine, read_here):
        found.different += 1
        note(user, "an event is in one row, and the other version has read past it", mine, other)
    else:
        found.apart += 1


def _lacks(mine: Opened, other: Opened, read: Mapping[str, int]) -> bool:
    """Whether the other's version has read an event of this row that its row has not taken in."""
    return any(other.applied.get(topic, -1) < at < read.get(topic, 0) for topic, at in mine.applied.items())


def _alone(found: Compared, user: bytes, row: Opened, read: Mapping[str, int], is_here: bool, note: Note) -> None:
    """A user whom only one version has. read: of the other one."""
    if not any(at < read.get(topic, 0) for topic, at in row.applied.items()):
        found.apart += 1
    elif is_here:
        found.only_here += 1
        note(user, "has no row in the version that it is compared with", row, None)
    else:
        found.only_there += 1
        note(user, "has no row in this version", None, row)


def _newest_ms(row: Opened) -> int:
    interactions = np.frombuffer(row.interactions, INTERACTION)
    return int(interactions["time"][-1]) if len(interactions) else NEVER


def _watermark(rows: Rows) -> int:
    return max((_newest_ms(opened(packed)) for packed in rows.values()), default=0)


def _told(row: Opened) -> dict[str, Any]:
    interactions = [
        {"item": f"{item:016x}", "action": ACTION_NAME[action], "time": time, "weight": weight}
        for item, time, weight, action in np.frombuffer(row.interactions, INTERACTION).tolist()
    ]
    return {"applied": row.applied, "interactions": interactions, "seen": len(row.seen) // 4}
