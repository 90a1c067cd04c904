"""Who is owed a list when a silence is over: found in the rows, so that nobody needs to be remembered.

While lists are held back (`stream.answers.emission` decides where), state advances, is flushed and committed as ever;
beside the offsets stands the first one whose users are owed a list (`stream.kafka.debts`). A row knows the
last offset of every topic that it has taken in: whoever's is at or past that one was touched in silence.
That is as true after a crash as before it, and costs no memory however long the silence.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from model.history import ACTION_CODE
from stream.answers.emission import Silence
from stream.answers.progress import Trigger, Waiting
from stream.windows.columns import Columns

if TYPE_CHECKING:
    from faust.types import TP

    from stream.state import State

log = logging.getLogger(__name__)

CHUNK = 1000
"""Users of one debt: it is paid when all of them are answered, and a crash repeats the lists of those that are open."""


class Debts:
    """Begins and ends the silences of owned partitions.

    Args:
        topics: action -> input topic, of the actions that cause a list.
        behind: how far a topic partition is behind (`BatchConsumer.behind`); None where that is not known yet.
        restored: whether the rows of the owned partitions are there.
        wake: called when users are to be answered.
    """

    def __init__(
        self,
        state: State,
        silence: Silence,
        topics: Mapping[str, str],
        behind: Callable[[TP, int | None], int | None],
        restored: Callable[[], bool],
        wake: Callable[[], None],
    ) -> None:
        self._state = state
        self._silence = silence
        self._topics = {ACTION_CODE[action]: topic for action, topic in topics.items()}
        self._behind = behind
        self._restored = restored
        self._wake = wake
        self._applied: dict[TP, int] = {}
        self._until: dict[int, np.ndarray] = {}

    def quiet(self, tp: TP, first: int) -> bool:
        """Whether a batch that begins at offset `first` is to be applied in silence."""
        silence, progress = self._silence, self._state.progress
        if silence.max_lag is not None and (lag := self._behind(tp, first)) is not None:
            silence.measured(tp, lag)
        if silence.silent(tp.partition):
            progress.hush(tp.partition)
        return tp.partition in progress.quiet

    def applied(self, tp: TP, next_offset: int) -> None:
        self._applied[tp] = next_offset

    def claimed(self) -> None:
        """Partitions were assigned anew."""
        self._applied.clear()
        self._until.clear()
        self._silence.forget()

    def tend(self, inputs: Sequence[TP]) -> None:
        """Begin and end silences, as things stand; `inputs`: the owned partitions of all input topics."""
        silence, progress = self._silence, self._state.progress
        if silence.max_lag is not None:
            for tp in inputs:
                if (lag := self._behind(tp, self._applied.get(tp))) is not None:
                    silence.measured(tp, lag)
        for partition in sorted({tp.partition for tp in inputs}):
            if silence.silent(partition):
                progress.hush(partition)
            elif partition in progress.quiet and self._restored():
                self._speak(partition)

    def _speak(self, partition: int) -> None:
        columns, progress = self._state.columns, self._state.progress
        owed = progress.silence(partition)
        speaking = self._speaking(columns)
        rows = columns.of(partition)
        applied = columns.applied[rows]
        self._until[partition] = np.where(speaking, applied.max(axis=0, initial=-1), np.iinfo(np.int64).max)
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
