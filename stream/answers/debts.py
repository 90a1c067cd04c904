"""Who is owed a list when a silence is over: found in the rows, so that nobody needs to be remembered.

While lists are held back (`stream.answers.emission` decides where), state advances, is flushed and committed as ever;
beside the offsets stands the first one whose users are owed a list (`stream.kafka.debts`). A row knows the
last offset of every topic that it has taken in: whoever's is at or past that one was touched in silence.
That is as true after a crash as before it, and costs no memory however long the silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from faust.types import TP

from model.history import ACTION_CODE
from stream.answers.emission import Silence
from stream.answers.progress import Trigger, Waiting
from stream.answers.turns import Stance, Turns
from stream.windows.columns import Columns

if TYPE_CHECKING:
    from stream.state import State

log = logging.getLogger(__name__)

CHUNK = 1000
"""Users of one debt: it is paid when all of them are answered, and a crash repeats the lists of those that are open."""


class Reach(Protocol):
    """How far topic partitions were read (`stream.kafka.transport.BatchConsumer`)."""

    def behind(self, tp: TP, applied: int | None) -> int | None:
        """How many offsets lie between the next one to be applied and the log's end; None where that is not known."""
        ...

    def reread(self, tp: TP, applied: int | None) -> bool:
        """Whether all is applied that was there when the partition became ours."""
        ...

    def committed(self, tp: TP) -> int:
        """The next offset that was committed; 0 where none was."""
        ...


class Debts:
    """Begins and ends the silences of owned partitions.

    Args:
        topics: action -> input topic, of the actions that cause a list.
        read: what is known of how far a topic partition was read, and committed.
        restored: whether the rows of the owned partitions are there.
        wake: called when users are to be answered.

    `holding`: nothing more is to be taken in, so that what was is answered, and silence begins exactly there; `hurry`
    is told when that begins and ends. `news`: set when silence has begun so, which is to be committed at once, as the
    other version waits for it.
    """

    def __init__(
        self,
        state: State,
        silence: Silence,
        turns: Turns,
        topics: Mapping[str, str],
        read: Reach,
        restored: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._state = state
        self._silence = silence
        self._turns = turns
        self._topics = {ACTION_CODE[action]: topic for action, topic in topics.items()}
        self._read = read
        self._restored = restored
        self._wake = wake
        self._applied: dict[TP, int] = {}
        self._until: dict[int, np.ndarray] = {}
        self.holding = False
        self.hurry: Callable[[bool], None] = lambda hurried: None
        self.news = asyncio.Event()

    def quiet(self, tp: TP, first: int) -> bool:
        """Whether a batch that begins at offset `first` is to be applied in silence."""
        silence, progress = self._silence, self._state.progress
        if silence.max_lag is not None and (lag := self._read.behind(tp, first)) is not None:
            silence.measured(tp, lag)
        if self._is_silent(tp.partition):
            progress.hush(tp.partition)
        return tp.partition in progress.quiet

    def applied(self, tp: TP, next_offset: int) -> None:
        self._applied[tp] = next_offset

    def claimed(self) -> None:
        """Partitions were assigned anew."""
        self._applied.clear()
        self._until.clear()
        self._silence.forget()
        self._hold(False)

    def tend(self, inputs: Sequence[TP]) -> None:
        """Begin and end silences, as things stand; `inputs`: the owned partitions of all input topics."""
        silence, progress = self._silence, self._state.progress
        if silence.max_lag is not None:
            for tp in inputs:
                if (lag := self._read.behind(tp, self._applied.get(tp))) is not None:
                    silence.measured(tp, lag)
        partitions = sorted({tp.partition for tp in inputs})
        for partition in partitions:
            if self._is_silent(partition):
                progress.hush(partition)
            elif partition in progress.quiet and self._restored():
                self._speak(partition)
        falling = {p for p in partitions if self._turns.stance(p) is Stance.FALLS_SILENT}
        self._fall_silent(falling, [tp for tp in inputs if tp.partition in falling])

    # Turns

    def floor(self, tp: TP) -> int:
        """The offset below which events were another state version's to answer."""
        return self._turns.floor(tp)

    def mute(self, partition: int) -> bool:
        """Whether it is another state version that answers, requests too, or whose turn it is has not been heard."""
        return self._silence.paused is None or self._turns.silent(partition)

    def _is_silent(self, partition: int) -> bool:
        """Whether lists are held back; a turn that has come is taken note of."""
        turns, stance = self._turns, self._turns.stance(partition)
        if stance in (Stance.BEGINS, Stance.FALLS_SILENT) and turns.turn is not None:
            if turns.missed(partition):
                self._state.progress.silent_from(partition, turns.floors(partition))
                turns.take(partition, turns.turn.began)
            if stance is Stance.BEGINS:
                turns.take(partition, turns.turn.number)
        return stance is Stance.SILENT or self._silence.silent(partition)

    def _fall_silent(self, falling: set[int], inputs: Sequence[TP]) -> None:
        """Take nothing more in until all that was is answered; from there on there is silence.

        A former owner may have died after its last commit: it can have answered what was there when the partitions
        became ours, and no more. So that is taken in first, and answered again.
        """
        turns, progress = self._turns, self._state.progress
        ready = bool(falling) and self._restored()
        self._hold(ready and all(self._read.reread(tp, self._applied.get(tp)) for tp in inputs))
        if not self.holding or not progress.paid or turns.turn is None:
            return
        done = progress.committable()
        for partition in falling:
            before, first = progress.silence(partition), {}
            for tp in (TP(topic, partition) for topic in turns.topics):
                at = done.get(tp, self._read.committed(tp))
                first[tp] = max(turns.floor(tp), min(at, before.get(tp, at)))
            progress.silent_from(partition, first)
            turns.take(partition, turns.turn.number)
        log.info("partitions %s: all that was taken in is answered, and there is silence", sorted(falling))
        self._hold(False)
        self.news.set()

    def _hold(self, holding: bool) -> None:
        if holding != self.holding:
            self.holding = holding
            self.hurry(holding)

    def _speak(self, partition: int) -> None:
        columns, progress = self._state.columns, self._state.progress
        owed = {tp: max(first, self._turns.floor(tp)) for tp, first in progress.silence(partition).items()}
        speaking = self._speaking(columns)
        rows = columns.of(partition)
        applied = columns.applied[rows]
        floor = np.array([self._turns.floor(TP(topic, partition)) for topic in columns.topics], np.int64)
        until = np.maximum(applied.max(axis=0, initial=-1), floor - 1)  # what is below a floor causes no list
        self._until[partition] = np.where(speaking, until, np.iinfo(np.int64).max)
        users = progress.speak(partition, owed_lists(columns, rows, owed))
        if users:
            log.info(
                "partition %d: the silence is over, %d users who were touched in it are answered", partition, users
            )
        self._wake()

    def _speaking(self, columns: Columns) -> np.ndarray:
        """bool[topics]: whether an event of the topic causes a list."""
        return np.isin(columns.topics, list(self._topics.values()))

    # Users who are owed a list, when their turn comes

    def answered_since(self, w: Waiting, row: int) -> bool:
        """Whether a user was touched after the silence: that event has its own list, which is the newer one."""
        until = self._until.get(w.partition)
        return until is not None and bool((self._state.columns.applied[row] > until).any())

    def trigger(self, row: int, now: float) -> Trigger:
        """The row's newest event, as far as the row knows: the same one whoever asks, so that a list's name is too.

        Its topic is that of the action (or the first that has been read, where that causes no list), its offset the
        last of the topic, its time the event's.
        """
        columns = self._state.columns
        newest = columns.newest(np.array([row]))
        read = columns.applied[row] >= 0
        speaking = self._speaking(columns) & read if (self._speaking(columns) & read).any() else read
        topic = self._topics.get(int(newest.action[0]))
        at = columns.topics.index(topic) if topic in columns.topics else -1
        if at < 0 or not speaking[at]:
            at = int(np.argmax(speaking))
        offset = int(columns.applied[row, at])
        return Trigger(columns.topics[at], offset, max(0, int(newest.time[0])), now, None)


def owed_lists(columns: Columns, rows: np.ndarray, owed: Mapping[TP, int]) -> Iterator[tuple[dict[TP, int], list[str]]]:
    """The users among rows i64[n] of one partition who have taken in an offset of `owed`, or a later one.

    Each user comes once, in chunks in the order of their offsets, each with the offsets from which it is still owed: as
    chunks are answered, debts shrink.
    """
    applied = columns.applied[rows]
    left = np.ones(len(rows), bool)
    for tp, first in sorted(owed.items()):
        if tp.topic not in columns.topics:
            continue
        offsets = applied[:, columns.topics.index(tp.topic)]
        at = np.flatnonzero(left & (offsets >= first))
        left[at] = False
        at = at[np.argsort(offsets[at], kind="stable")]
        for start in range(0, len(at), CHUNK):
            chunk = at[start : start + CHUNK]
            yield {tp: int(offsets[chunk[0]])}, [name.decode() for name in columns.encoded(rows[chunk])]
