"""A model of ours, trained as `eddyline train` does on what an exam lets it learn, then served as a worker does; and
its parts, alone and left out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import adapt, checkpoint
from model.adapter import Adapter, AdapterError
from model.catalog import Catalog
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.evaluation.exams import Asked, Exam, Method, World
from model.evaluation.methods.served import Served
from model.evaluation.running import thinned
from model.fusion import Fused
from model.leaning import Leanings
from model.online import OnlineParams, OnlineScores
from model.recommender import Recommender
from model.replay import Timeline, liked
from model.train import train
from model.tune import Validation


class WindowOnly(Recommender):
    """A model whose users are their windows, V = h."""

    def fuse(self, short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, window_B2: Tensor) -> Fused:
        return Fused(short_BD, torch.ones_like(short_BD[:, 0]), torch.zeros_like(short_BD))


class ProfileOnly(Recommender):
    """A model whose users are their profiles, V = h'; nothing where there is none."""

    def fuse(self, short_BD: Tensor, long_BSD: Tensor, mask_BS: Tensor, window_B2: Tensor) -> Fused:
        fused = super().fuse(short_BD, long_BSD, mask_BS, window_B2)
        long_BD = fused.long / (1 - fused.short)[:, None].clamp(min=1e-6)
        return Fused(long_BD, torch.zeros_like(fused.short), long_BD)


NO_USERS = "no users.csv"
NO_HABITS = "no habits"
PARTS: Mapping[str, tuple[type[Recommender], bool, bool, bool]] = MappingProxyType(
    {
        "window only": (WindowOnly, True, False, True),
        "profile only": (ProfileOnly, True, False, True),
        "counts only": (Recommender, False, True, True),
        "no window": (ProfileOnly, True, True, True),
        "no profile": (WindowOnly, True, True, True),
        "no counts": (Recommender, True, False, True),
        NO_HABITS: (Recommender, True, True, True),
        NO_USERS: (Recommender, True, True, False),
    }
)
"""What is left of a model: which vectors, whether they count, whether the counts do, and what is known of users."""


class Trained(Method):
    """`short/long/fusion` with one seed. Epochs and the mix are chosen within what it learns, on its last part."""

    seeded = True

    def __init__(self, world: World, name: str, seed: int, config: TrainConfig | None = None) -> None:
        self.name, self.world = name, world
        short, long, fusion = name.split("/")
        config = config or world.train or TrainConfig()
        changes = {"short_term": short, "long_term": long, "fusion": fusion}
        found = ModelConfig.model_validate(config.model.model_dump() | changes)
        update = {"seed": seed, "model": found, "action_weights": world.weights}
        self.config = config.model_copy(update=update)
        self._line: Timeline | None = None
        self._made: dict[int, Recommender] = {}
        self._exam: Exam | None = None
        self.spent: dict[int, float] = {}
        """CPU-seconds of each training, by how many events it had."""

    def chosen_by(self, exam: Exam) -> None:
        self._exam = exam

    def learn(self, line: Timeline, end: int) -> None:
        model = self.model(line, end)
        world = self.world
        texts, read = world.read_by(model.adapter)
        engine = Engine(
            world.catalog,
            texts,
            model,
            encode=read,
            seen=self.config.seen,
            exposure=world.exposure,
            diversity=world.diversity,
        )
        self._served = Served(world, engine, self.name)
        self._served.learn(line, end)

    @property
    def engine(self) -> Engine:
        """What makes its lists, once it has learned."""
        return self._served.engine

    def model(self, line: Timeline, end: int) -> Recommender:
        """What comes of the first `end` events; made once, however many rows and parts ask for it."""
        if self._line is not line:
            self._line, self._made, self.spent = line, {}, {}
        if end not in self._made:
            began = time.process_time()
            self._made[end] = self._trained(line, end)
            self.spent[end] = time.process_time() - began
        return self._made[end]

    def _trained(self, line: Timeline, end: int) -> Recommender:
        world, kept = self.world, self._kept(end)
        start, since = self._begin(line, end)
        events, (valid, learned) = events_of(line, end, world.catalog), self._valid(line, end)
        adapter = start.adapter if start is not None else self._adapter(events.take(slice(0, learned)), valid is None)
        texts, read = world.read_by(adapter)
        made = train(
            events,
            world.catalog,
            texts,
            self.config,
            encode=read,
            resumable=kept and kept.with_suffix(".resume"),
            start=start,
            since=since,
            valid=valid,
            learned=learned,
        )
        made.adapter = adapter
        at = liked(line, 0, end)
        made.leanings = Leanings.learned(
            world.described[line.users[at]], line.rows[at], world.people.about, world.catalog
        )
        if kept is not None:
            checkpoint.save(kept, made, datetime.now(UTC), checkpoint.data_hash(events))
        return made

    def _begin(self, line: Timeline, end: int) -> tuple[Recommender | None, int | None]:
        """A model to go on from, and the newest event that it has learned: none."""
        return None, None

    def _adapter(self, events: Events, held_out: bool) -> Adapter | None:
        """What these events say of the texts, where that is asked for."""
        if not self.config.adapt.enabled:
            return None
        if self.world.encoder is None:
            raise AdapterError("texts are adapted in a text encoder: bring one")
        return adapt.learned(events, self.world.catalog, self.world.encoder, self.config, held_out)

    def _kept(self, end: int) -> Path | None:
        """The folder that the model of the first `end` events is kept in."""
        if self.world.keep is None:
            return None
        self.world.keep.mkdir(parents=True, exist_ok=True)
        return self.world.keep / f"{self.name.replace('/', '-')}-{self.config.seed}"

    def _valid(self, line: Timeline, end: int) -> tuple[Validation | None, int]:
        """The questions that settings are chosen by, where the exam has them, and how many events are learned before
        these are asked; else None: the last part of what is learned chooses.
        """
        exam, catalog = self._exam, self.world.catalog
        if exam is None or not exam.chooses or exam.line is not line or exam.end > end:
            return None, end
        papers, params = thinned(exam, self.config.validation_events), OnlineParams()
        if not papers:
            return None, end

        @cache
        def online(known: int) -> OnlineScores:
            return OnlineScores.build(catalog, line.counts(known, params), line.as_of(known, params), params)

        known = [online(p.known if exam.online else exam.end) for p in papers]
        targets = np.concatenate([p.targets for p in papers])
        return Validation([p.asked.histories for p in papers], known, targets), len(events_of(line, exam.end, catalog))

    def add(self, line: Timeline, first: int, last: int) -> None:
        self._served.add(line, first, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return self._served.scores(asked)

    def settings(self) -> dict[str, object]:
        said: dict[str, object] = {"seed": self.config.seed}
        if self._made:
            said |= self._made[max(self._made)].metrics
            said["cpu_seconds"] = [round(self.spent[end], 1) for end in sorted(self.spent)]
        return said

    def parts(self) -> list[Method]:
        """Each part of it alone, and the whole without each: of the one training."""
        left_out = set() if len(self.world.people) else {NO_USERS}
        left_out |= set() if self.config.habits else {NO_HABITS}
        return [Part(self, self.world, part) for part in PARTS if part not in left_out]


class Part(Method):
    """What a model says of `PARTS`; trained with the whole."""

    seeded = True

    def __init__(self, whole: Trained, world: World, part: str) -> None:
        self.name, self._whole, self._world = f"{whole.name}, {part}", whole, world
        self._kind, self._vectors, self._counts, self._people = PARTS[part]
        self._habits = part.startswith("no ") and part != NO_HABITS

    def learn(self, line: Timeline, end: int) -> None:
        whole = self._whole.model(line, end)
        left = self._kind(whole.config)
        left.load_state_dict(whole.state_dict())
        left.leanings = whole.leanings
        left.habits = whole.habits if self._habits else None
        texts, read = self._world.read_by(whole.adapter)
        mix = left.mix if self._vectors else left.mix.model_copy(update={"neural": 0.0, "text": 0.0})
        engine = Engine(self._world.catalog, texts, left.eval(), mix, encode=read)
        self._served = Served(self._world, engine, self.name, not self._counts, people=self._people)
        self._served.learn(line, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self._served.add(line, first, last)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        return self._served.scores(asked)


def events_of(line: Timeline, end: int, catalog: Catalog) -> Events:
    """The first `end` events again as events: those that are counted, items outside the catalogue left out."""
    at = np.flatnonzero((line.rows[:end] >= 0) & line.fresh[:end])
    ids = np.array(catalog.ids, object)
    users = np.array([str(u) for u in line.users[at]], object)
    nothing = np.full(len(at), np.nan, np.float32)
    return Events(users, ids[line.rows[at]], line.actions[at], line.times[at], nothing)
