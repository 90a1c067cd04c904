"""Steps 4 and 5: users who wait -> lists, one micro-batch at a time.

The loop is: take those who have waited longest, copy their rows, compute, write, and close their tickets when the
broker has acknowledged. A GPU is waited for on a thread. A CPU computes on the event loop: there a second thread only
takes turns with the first at Python, and while both were busy seven users took 18 ms in place of five.
What a list contains is the engine's affair (`model.engine`), what is said of it that of `telling.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field

from model.fatigue import fatigue
from model.feedback import moved
from model.history import Histories
from model.rules import Asked
from stream.answers.emission import Changes, EmitConfig, Pace
from stream.answers.progress import Waiting
from stream.kafka.batches import Out, send
from stream.lists.interests import Interests, Source
from stream.lists.lineup import Part, together
from stream.lists.profile import Key, Profile, ProfileConfig, ProfilesOf
from stream.lists.telling import records, seeds, told
from stream.messages import Recommendation
from stream.process.monitor import Monitor

if TYPE_CHECKING:  # torch and Faust are behind these, and whoever only reads settings should not wait for them
    from model.fusion import Fused
    from model.peruser import PerUser
    from stream.lists.building import Served
    from stream.lists.feedback import Reactions
    from stream.lists.lineup import Lineup
    from stream.lists.people import Register
    from stream.lists.serving import Serving

log = logging.getLogger(__name__)

TURNS = 24
"""Turns of the event loop before lists are made. A record takes about a dozen from its socket to its window, and a list
some from here to its socket: without these each would wait for as many micro-batches, of fewer users each.
"""
LINGER_S = 0.001
"""How long a micro-batch waits for more, where the one before had more than one user: a fetch returns with the first
record there is, and those right behind it come with the next.
"""


class RecommendConfig(BaseModel):
    """How lists are made."""

    model_config = ConfigDict(extra="forbid")

    n: int = Field(default=10, ge=1, le=1000, description="items in a list")
    candidates: int = Field(
        default=100, ge=1, le=2048, description="items that are sought by vector, and as many by counts; at least n"
    )
    max_batch: int = Field(default=64, ge=1, le=4096, description="users in a micro-batch")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shadow: bool = Field(
        default=False, description="also write the fallback's lists to the shadow topic once a model is released"
    )
    exact: bool = Field(
        default=False,
        description="nothing lags: counts are read and profiles made anew for each micro-batch; "
        "slow, to compare lists with those of an evaluation",
    )
    profile: ProfileConfig = ProfileConfig()


@dataclass(frozen=True, slots=True)
class Lists:
    """Messages, one a user, to a topic each time; the items that are emitted, where it matters whether they have
    changed; and the catalogue's version that they were made from.
    """

    outs: list[tuple[str, list[Out]]]
    items: list[list[str]]
    version: int


class Sent(NamedTuple):
    """A list under way: by its number and items `Changes` is told what became of it."""

    user: Waiting
    number: int
    items: Sequence[str]


class Recommender:
    """Answers the users who wait."""

    def __init__(
        self,
        config: RecommendConfig,
        emit: EmitConfig,
        source: Source,
        state_name: str,
        serving: Serving,
        people: Register,
        producer: AIOKafkaProducer,
        topic: str,
        shadow_topic: str,
        monitor: Monitor,
        device: ThreadPoolExecutor,
        on_loop: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._emit_config = emit
        self._source = source
        self._state_name = state_name
        self._serving = serving
        self._people = people
        self._producer = producer
        self._topic = topic
        self._shadow_topic = shadow_topic
        self._monitor = monitor
        self._device = device
        self._on_loop = on_loop
        self._now_ms = now_ms
        self._work = asyncio.Event()
        self._together = 0
        self._made: asyncio.Queue[tuple[Interests, Lists]] = asyncio.Queue(1)
        self._acks: set[asyncio.Task] = set()
        self._last: Lineup | None = None
        self.profiles = ProfilesOf(config.profile)
        self.pace = Pace(emit.min_interval_ms / 1000)
        self.changes = Changes() if emit.only_if_changed else None
        self.reactions: Reactions | None = None

    def wake(self) -> None:
        """Someone waits."""
        self._work.set()

    def hurry(self, hurried: bool) -> None:
        """Nobody is too early for a list any more, or again."""
        self.pace.hurried = hurried
        self.wake()

    async def run(self) -> None:
        """Answer for ever. Users wait until there is a catalogue; nothing they did is lost meanwhile."""
        loop = asyncio.get_running_loop()
        await self._serving.ready.wait()
        while True:
            await self._until_work()
            await self._come_together()
            interests = self._source.interests(self._taken(), time.monotonic())
            if interests is None:
                if not self._source.progress.waiting and not self._source.progress.backlog:
                    self._work.clear()
                continue
            self._together = len(interests.users)
            began = time.monotonic()
            self.pace.spoke((w.key for w in interests.users if w.request is None), began)
            while self._config.exact and await self._serving.recount():
                pass  # more was counted meanwhile, or another catalogue has come
            lineup = self._serving.current
            if lineup is not self._last:
                self._last = lineup
                self.profiles.keep(lineup.readers())
            parts = lineup.parts(interests, self._people.about([w.user for w in interests.users]))
            profiles = [self._profiles_of(part) for part in parts]
            if self._on_loop:
                lists = self._compute(interests, parts, profiles)
            else:
                lists = await loop.run_in_executor(self._device, self._compute, interests, parts, profiles)
            self._monitor.stage("recommend", time.monotonic() - began)
            await self._made.put((interests, lists))

    async def write(self) -> None:
        """Write what was made, in its order, for ever: the next micro-batch is computed meanwhile, since a partition
        takes lists only when those before are on their way.
        """
        while True:
            await self._emit(*await self._made.get())

    async def _until_work(self) -> None:
        """Return when someone may be answered, or becomes due."""
        due_in = self.pace.next_in(time.monotonic())
        if due_in is None:
            await self._work.wait()
            return
        if not self._work.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._work.wait(), due_in)
        self._source.progress.give_back(self.pace.due(time.monotonic()))

    async def _come_together(self) -> None:
        """Let what has come be taken in, and what was made be sent."""
        if self._together > 1:
            await asyncio.sleep(LINGER_S)
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def _taken(self) -> list[Waiting]:
        """Those whose turn it is, but for those who had a list just now; who asks is answered at any time."""
        progress, now, taken = self._source.progress, time.monotonic(), []
        for w in progress.take(self._config.max_batch):
            if w.request is None and self.pace.early(w.key, now):
                self.pace.defer(progress.defer(w), progress.one)
            else:
                taken.append(w)
        return taken

    async def refresh_profiles(self) -> None:
        """Make due profiles, for ever, on the device thread: a BERT that reads would hold the event loop up."""
        await self._serving.ready.wait()
        while True:
            made = 0
            for served in self._serving.current.readers().values():
                keys, histories, counts = self._source.known(self.profiles.of(served.weights).take_due())
                if keys:
                    await self._make(served, keys, histories, counts)
                made += len(keys)
            if not made:
                await asyncio.sleep(0.05)

    async def _make(self, served: Served, keys: Sequence[Key], histories: Histories, counts: Sequence[int]) -> None:
        """Make and keep profiles, unless another model is served by then, which reads none of this one's."""
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._device, served.engine.profiles, histories)
        made = time.monotonic()
        if served.weights not in self._serving.current.readers():
            return
        profiles = self.profiles.of(served.weights)
        for i, key in enumerate(keys):
            profiles.put(key, Profile(vectors[i], counts[i], int(histories.times[i, -1]), made))
        self._monitor.profiles += len(keys)

    def _profiles_of(self, part: Part) -> list[Profile | None] | None:
        """What is kept. None where none are: nothing may lag, or they are means of vectors for the fallback's shadow;
        they are then made with the lists.
        """
        if self._config.exact or (part.shadow and part.served.engine.given is None):
            return None
        interests, profiles = part.interests, self.profiles.of(part.served.weights)
        times = interests.histories.times
        newest = times[:, -1].tolist() if times.shape[1] else [0] * len(interests.users)
        return [
            profiles.get(w.key, count, time_ms)
            for w, count, time_ms in zip(interests.users, interests.counts, newest, strict=True)
        ]

    def _compute(
        self, interests: Interests, parts: Sequence[Part], profiles: Sequence[Sequence[Profile | None] | None]
    ) -> Lists:
        """The lists of a micro-batch, by topic."""
        made = [self._lists(part, own) for part, own in zip(parts, profiles, strict=True)]
        emitted = [part for part in parts if not part.shadow]
        lists = [(self._topic, together(emitted, made[: len(emitted)]))]
        lists += [(self._shadow_topic, shadow) for shadow in made[len(emitted) :]]
        outs = [(topic, records(events, interests.users)) for topic, events in lists]
        items = [[item.item for item in event.items] for event in lists[0][1]] if self.changes else []
        return Lists(outs, items, parts[0].served.catalog.version)

    def _lists(self, part: Part, profiles: Sequence[Profile | None] | None) -> list[Recommendation]:
        served, interests = part.served, part.interests
        engine, online, asked = served.engine, served.online, asked_by(interests.users)
        h = interests.histories if asked is None else asked.on_page(interests.histories)
        reasons = self._emit_config.reasons and not part.shadow
        profiles = _profiles(served, interests) if profiles is None else profiles
        nothing = np.zeros((0, served.profile_dim), np.float32)
        lean = engine.lean(h, part.about, online)
        fused, tired = engine.encode(h, [p.vectors if p else nothing for p in profiles], lean, reasons), None
        if served.feedback.on or served.fatigue.on:
            fused, tired = self._heeded(fused, served, interests)
        n, sought = self._config.n, served.candidates or self._config.candidates
        hidden = part.about.hidden if part.about is not None else None
        drawn_by = seeds(interests) if engine.arranger.explore.on else None
        ranked = engine.lists(
            h, fused, served.search, online, n, sought, reasons, lean, hidden, asked, seeds=drawn_by, tired=tired
        )
        lengths, short = engine.window_rows(h)[0].lengths.tolist(), fused.short.tolist()
        now, moment = self._now_ms(), time.monotonic()
        return told(served, part.variant, self._state_name, interests, ranked, lengths, short, profiles, now, moment)

    def _heeded(self, fused: Fused, served: Served, interests: Interests) -> tuple[Fused, PerUser | None]:
        """Users moved by what they said of items, and what items lose for having been shown to them, as of the events
        that cause their lists.
        """
        came = self.reactions.of([w.user for w in interests.users]) if self.reactions is not None else None
        now = np.array([w.trigger.ts if w.trigger is not None else 0 for w in interests.users], np.int64)
        catalog, items = served.catalog, served.engine.item_vectors
        fused = moved(fused, interests.histories, came, now, catalog, items, served.feedback)
        tired = fatigue(came, catalog, now, served.fatigue) if came is not None and served.fatigue.on else None
        return fused, tired

    async def _emit(self, interests: Interests, lists: Lists) -> None:
        """Write lists to the partitions their users' events came from; tickets close as they are acknowledged.

        Lists that a new catalogue has overtaken are not written: they may have items that it withdraws.
        """
        users = interests.users
        order = sorted(range(len(users)), key=lambda i: users[i].partition)
        for partition, group in groupby(order, key=lambda i: users[i].partition):
            members = list(group)
            if lists.version != self._serving.current.catalog.version:
                await self._again([users[i] for i in members])
                continue
            if not (members := self._to_send(members, users, lists.items)):
                continue
            sent = [Sent(users[i], *self._sending(users[i], lists.items, i)) for i in members]
            futures: list[asyncio.Future] = []
            try:
                for topic, outs in lists.outs:
                    futures += await send(self._producer, topic, partition, [outs[i] for i in members])
            except KafkaError as error:
                await self._retry(sent, error)
                continue
            task = asyncio.ensure_future(self._acknowledged(sent, futures))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

    def _to_send(self, members: list[int], users: Sequence[Waiting], items: Sequence[Sequence[str]]) -> list[int]:
        """All, or those whose list is another one than the last; the others are answered by that."""
        if self.changes is None:
            return members
        kept: list[int] = []
        for i in members:
            w = users[i]
            if w.request is None and self.changes.unchanged(w.key, items[i]):
                self._monitor.suppressed += 1
                self._source.answered(w.ticket)
            else:
                kept.append(i)
        return kept

    def _sending(self, w: Waiting, items: Sequence[Sequence[str]], i: int) -> tuple[int, Sequence[str]]:
        if self.changes is None or w.request is not None:  # an answer is not what was said last
            return 0, ()
        return self.changes.sent(w.key), items[i]

    async def _acknowledged(self, sent: Sequence[Sent], futures: Sequence[asyncio.Future]) -> None:
        try:
            await asyncio.gather(*futures)
        except KafkaError as error:
            await self._retry(sent, error)
            return
        moment = time.monotonic()
        self._monitor.answered([moment - s.user.trigger.arrived for s in sent if s.user.trigger is not None])
        for s in sent:
            if self.changes is not None and s.user.request is None:
                self.changes.acknowledged(s.user.key, s.number, s.items)
            self._source.answered(s.user.ticket)

    async def _retry(self, sent: Sequence[Sent], error: KafkaError) -> None:
        """The broker did not take the lists: their users wait again, and a newer list will do as well."""
        self._monitor.failures["emit"] += 1
        log.warning("%d lists were not acknowledged (%r); their users wait again", len(sent), error)
        if self.changes is not None:
            for s in sent:
                if s.user.request is None:
                    self.changes.failed(s.user.key, s.number)
        await self._again([s.user for s in sent], after_s=1.0)

    async def _again(self, users: Sequence[Waiting], after_s: float = 0.0) -> None:
        """These had no list after all, and wait again."""
        self.pace.failed(w.key for w in users if w.request is None)
        await asyncio.sleep(after_s)
        self._source.progress.give_back(users)
        self.wake()


def _profiles(served: Served, interests: Interests) -> list[Profile | None]:
    """Profiles of these very rows, made on this thread and not to be kept."""
    vectors, made = served.engine.profiles(interests.histories), time.monotonic()
    return [Profile(v, n, 0, made) for v, n in zip(vectors, interests.counts, strict=True)]


def asked_by(users: Sequence[Waiting]) -> Asked | None:
    """What some of these users asked for; None where nobody did."""
    asked = {
        b: (request.context, request.n, w.trigger.ts)
        for b, w in enumerate(users)
        if (request := w.request) is not None and w.trigger is not None
    }
    return Asked.by(len(users), asked)
