"""What any protocol comes down to: exams. A method learns the first events of a timeline and answers papers.

Not a protocol (those decide what is asked) and not a metric. A paper is a batch of questions: histories as the worker
would have them, what may be shown, and the catalogue row that was taken next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.adapter import Adapter, AdapterError
from model.catalog import Catalog, Item
from model.config import TrainConfig
from model.dataset import Events
from model.diversity import DiversityConfig
from model.encoder import TextEncoder
from model.exposure import ExposureConfig
from model.feedback import FeedbackConfig
from model.history import HISTORY, WINDOW, Histories, by_user, seen_hash
from model.longterm import Encode
from model.people import People
from model.replay import Timeline, liked
from model.rules import Rules, RulesConfig


@dataclass(frozen=True, eq=False)
class World:
    """All that methods may know but the events: the catalogue, its items, and their text vectors f32[N,P], made when
    first asked for. `seed` is that of whatever is random; `encode` reads texts, for profiles that are documents;
    `encoder` is what adapters are learned on;
    `train` is how models are trained, but for their parts and seeds; `keep`: a folder that they are left in, and their
    state while they are trained, from which an interrupted training goes on. `rules` say what anyone may be shown
    (pins, quotas and boosts are left out); `exposure` bounds lists of `places` items, and `diversity` re-ranks them;
    `feedback` is how far what users refuse moves them; `variation` is that of `online.steady`. `people` is what is
    known of users beside what they did. `shards`: users are split among so many workers, each of which counts its own
    alone.
    """

    events: Events
    catalog: Catalog
    items: dict[str, Item]
    texts: Callable[[], NDArray[np.float32]]
    seed: int = 0
    weights: dict[str, float] = field(default_factory=dict)
    encode: Encode | None = None
    train: TrainConfig | None = None
    keep: Path | None = None
    rules: RulesConfig | None = None
    exposure: ExposureConfig | None = None
    diversity: DiversityConfig | None = None
    feedback: FeedbackConfig = field(default_factory=FeedbackConfig)
    places: int = 10
    variation: float = 0.0
    shards: int = 1
    people: People = field(default_factory=People.empty)
    encoder: TextEncoder | None = None
    _adapted: dict[str, tuple[NDArray[np.float32], Encode]] = field(default_factory=dict, repr=False)

    def read_by(self, adapter: Adapter | None) -> tuple[NDArray[np.float32], Encode | None]:
        """The text vectors and the `encode` of a model with this adapter. Raises AdapterError without `encoder`."""
        if adapter is None:
            return self.texts(), self.encode
        if self.encoder is None:
            raise AdapterError("a model that adapts a text encoder needs one: bring it")
        if adapter.id not in self._adapted:
            encoder = self.encoder.adapted(adapter)
            self._adapted[adapter.id] = encoder.encode(self.catalog.texts), encoder.forgetful().encode
        return self._adapted[adapter.id]

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """Items that the rules leave to anyone, bool[N]: without any, those in stock."""
        return Rules(self.rules or RulesConfig(), self.catalog).anyone

    @cached_property
    def described(self) -> NDArray[np.int64]:
        """The row of each user of a timeline, by code, in what is known of people: i64[U], -1 = nothing is."""
        return self.people.rows(np.unique(self.events.user.astype(str)).tolist())


@dataclass(frozen=True, eq=False)
class Asked:
    """B questions: users i64[B], now i64[B] (ms), their histories, and the catalogue rows of these, i32[B,L] (-1 =
    none or unknown); allowed bool[B,N], or bool[1,N] where it is the same for all: what may be shown.
    """

    users: NDArray[np.int64]
    now: NDArray[np.int64]
    histories: Histories
    rows: NDArray[np.int32]
    allowed: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, at: NDArray[np.integer]) -> Asked:
        """These questions."""
        allowed = self.allowed if len(self.allowed) == 1 else self.allowed[at]
        return Asked(self.users[at], self.now[at], self.histories.take(at), self.rows[at], allowed)

    def window(self) -> NDArray[np.int32]:
        """The worker's window of each history: catalogue rows i32[B,K], the newest last."""
        return self.rows[:, -WINDOW:]


@dataclass(frozen=True, eq=False)
class Paper:
    """Questions and their answers: targets i64[B], and `known`: how many events of the timeline an answer may rest
    on, where the exam lets methods learn on the way.
    """

    asked: Asked
    targets: NDArray[np.int64]
    known: int

    def take(self, at: NDArray[np.integer]) -> Paper:
        """These questions of it."""
        return Paper(self.asked.take(at), self.targets[at], self.known)


@dataclass(frozen=True, eq=False)
class Exam:
    """Methods learn the first `end` events of `line`, then answer. name: of the period, split or row; `online`: events
    between papers are told to methods; `chooses`: trained models, too, choose by these questions, for the last of what
    they learn is not asked as they are.
    """

    name: str
    line: Timeline
    end: int
    papers: Callable[[], Iterable[Paper]]
    questions: int
    online: bool = True
    chooses: bool = False

    def every(self, n: int) -> Exam:
        """The same exam with every n-th question of each paper only; what methods are told stays the same."""
        if n == 1:
            return self
        whole = self.papers

        def some() -> Iterator[Paper]:
            for paper in whole():
                yield paper.take(np.arange(0, len(paper.asked), n))

        return replace(self, papers=some, questions=self.questions // n)

    def learned(self, items: int) -> NDArray[np.int64]:
        """How often each of N items was met among what is learned before the exam, i64[N]."""
        return np.bincount(self.line.rows[liked(self.line, 0, self.end)], minlength=items)


class Method(ABC):
    """Who answers. One object is used for one exam after another; `learn` forgets whatever was before."""

    name: str
    seeded = False
    """Whether another seed gives other answers."""

    def chosen_by(self, exam: Exam) -> None:
        """Before anything is learned: the exam that settings are chosen by, for whoever chooses while learning."""
        return None

    @abstractmethod
    def learn(self, line: Timeline, end: int) -> None:
        """Learns from the first `end` events."""

    def add(self, line: Timeline, first: int, last: int) -> None:
        """Events first..last-1 have happened since. Methods that are trained in batches pass."""
        return None

    @abstractmethod
    def scores(self, asked: Asked) -> NDArray[np.floating]:
        """f[B,N]: the greater the better. Where equal, items share the middle of their ranks."""

    def variants(self) -> Sequence[Method]:
        """Settings to choose among on validation questions, the present ones first."""
        return [self]

    def settings(self) -> dict[str, object]:
        """What it is set to, by name."""
        return {}


@dataclass(frozen=True, eq=False)
class Shelf:
    """Events of many users in canonical order, cut into histories. users, times i64[n], rows i32[n], items u64[n],
    actions u8[n], weights f32[n]; sorted by (user, time, action, item).
    """

    users: NDArray[np.int64]
    times: NDArray[np.int64]
    rows: NDArray[np.int32]
    items: NDArray[np.uint64]
    actions: NDArray[np.uint8]
    weights: NDArray[np.float32]

    @staticmethod
    def of(line: Timeline, events: NDArray[np.integer]) -> Shelf:
        """These events of a timeline; exact repeats vanish, as they do in a history."""
        order, _ = by_user(line.users[events], line.times[events], line.actions[events], line.items[events])
        return Shelf._of(line, events[order])

    @staticmethod
    def arrived(line: Timeline, events: NDArray[np.integer]) -> Shelf:
        """These events in the order in which they came, repeats and all."""
        return Shelf._of(line, events[np.argsort(line.users[events], kind="stable")])

    @staticmethod
    def _of(line: Timeline, at: NDArray[np.integer]) -> Shelf:
        return Shelf(line.users[at], line.times[at], line.rows[at], line.items[at], line.actions[at], line.weights[at])

    def span(self, users: NDArray[np.int64], before: NDArray[np.int64] | None = None) -> tuple[NDArray, NDArray]:
        """Start and end, i64[B] each, of what each user did, or did before a time."""
        starts = np.searchsorted(self.users, users)
        if before is None:
            return starts, np.searchsorted(self.users, users, side="right")
        # rank of (user, time) among all: users are dense enough to be searched one after the other by a joint key
        _, joint = np.unique(np.concatenate([self.times, before]), return_inverse=True)
        wide = int(joint.max(initial=0)) + 1
        keys = self.users * wide + joint[: len(self.users)]
        return starts, np.searchsorted(keys, users * wide + joint[len(self.users) :])

    def cut(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Histories:
        """The histories that are these spans: the newest 128 of each, and what fell off as seen."""
        lengths = np.minimum(ends - starts, HISTORY)
        wide = int(lengths.max(initial=0))
        place = ends[:, None] - wide + np.arange(wide)[None]
        there = place >= (ends - lengths)[:, None]
        place = np.where(there, place, 0)

        def column(values: NDArray) -> NDArray:
            return np.where(there, values[place], np.zeros((), values.dtype)) if wide else values[place]

        fallen = ends - starts - lengths
        offsets = np.concatenate([[0], np.cumsum(fallen)]).astype(np.int64)
        at = np.repeat(starts - offsets[:-1], fallen) + np.arange(offsets[-1])
        return Histories(
            column(self.items),
            column(self.actions),
            column(self.times),
            column(self.weights),
            lengths.astype(np.int32),
            seen_hash(self.items[at]),
            offsets,
        )
