"""Whose turn it is to answer, where one state version takes over from another: what a worker does about it.

A cut-over is one record that changes twice (`stream.answers.control.Turn`):

    v1 answers --asked--> v1 falls silent, v2 waits --given, with the cut--> v2 answers from the cut on

and each partition goes along at its own pace, by what stands beside its committed offsets: the number of the last turn
that it has taken note of (`stream.kafka.debts`). That note is written with the offset and at once, so it is what
holds, whatever a worker has heard or forgotten: the record is a wish, the note that it was done. Pure decisions;
what falling silent and beginning to answer take is in `stream.answers.debts`, the command in `stream.cutover`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from faust.types import TP

from stream.answers.control import Turn
from stream.kafka.debts import Note


class Stance(Enum):
    """What a partition is to do: answer; keep silent; answer what it has taken in and fall silent, exactly there; or
    take note of a turn and answer.
    """

    ANSWERS = "answers"
    SILENT = "silent"
    FALLS_SILENT = "falls silent"
    BEGINS = "begins"


def stance(turn: Turn | None, state: str, noted: int, begins_silent: bool) -> Stance:
    """The stance of a partition of `state` that has taken note of turn `noted` (0: of none).

    begins_silent: what holds before all turns. A partition that has taken note of a later turn than is known keeps
    silent: its worker has not heard yet.
    """
    if turn is None:
        return Stance.SILENT if noted or begins_silent else Stance.ANSWERS
    if turn.answering != state or noted > turn.number:
        return Stance.SILENT
    if turn.given:
        return Stance.ANSWERS if noted == turn.number else Stance.BEGINS
    return Stance.SILENT if noted == turn.number else Stance.FALLS_SILENT


def taken(noted: Mapping[TP, Note]) -> dict[int, int]:
    """The last turn that each partition has taken note of. All offsets of a partition are committed at once, so what
    one of them says holds for all; one that says less is of a topic that is not read any more.
    """
    found: dict[int, int] = {}
    for tp, said in noted.items():
        found[tp.partition] = max(said.turn, found.get(tp.partition, 0))
    return found


class Turns:
    """The turn that is known, and how far each owned partition has gone along.

    Args:
        state: the state version.
        topics: what is committed beside each other: the input topics, and that of requests.
        begins_silent: whether it keeps silent until a turn is given to it.
    """

    def __init__(self, state: str, topics: Sequence[str], begins_silent: bool = False) -> None:
        self.turn: Turn | None = None
        self._state = state
        self.topics = list(topics)
        self._begins_silent = begins_silent
        self._taken: dict[int, int] = {}

    def hear(self, turn: Turn) -> bool:
        """Whether it is news."""
        news = turn != self.turn
        self.turn = turn
        return news

    def stance(self, partition: int) -> Stance:
        return stance(self.turn, self._state, self._taken.get(partition, 0), self._begins_silent)

    def silent(self, partition: int) -> bool:
        return self.stance(partition) is Stance.SILENT

    def missed(self, partition: int) -> bool:
        """Whether the turn with which this state began to answer was not taken note of: what is owed since a silence
        before it was another's to answer.
        """
        return self.turn is not None and self._taken.get(partition, 0) < self.turn.began

    def floor(self, tp: TP) -> int:
        """The offset below which events are not this state's to answer."""
        turn = self.turn
        return turn.floor_of(tp.topic, tp.partition) if turn is not None and turn.answering == self._state else 0

    def floors(self, partition: int) -> dict[TP, int]:
        """Of every topic that the turn knows."""
        known = self.turn.floor if self.turn is not None else {}
        return {TP(topic, partition): self.floor(TP(topic, partition)) for topic in self.topics if topic in known}

    def take(self, partition: int, number: int) -> None:
        """The partition has taken note of a turn."""
        self._taken[partition] = number

    def claimed(self, noted: Mapping[TP, Note], owned: set[int]) -> None:
        """Partitions were assigned anew: what stands beside their offsets is how far they have gone along."""
        self._taken = {p: turn for p, turn in taken(noted).items() if p in owned}

    def notes(self, owed: Mapping[TP, int]) -> dict[TP, Note]:
        """What is to stand beside offsets, where there is something to say; owed: first unanswered offsets."""
        turned = {TP(topic, p): turn for p, turn in self._taken.items() if turn for topic in self.topics}
        return {tp: Note(owed.get(tp), turned.get(tp, 0)) for tp in owed.keys() | turned.keys()}
