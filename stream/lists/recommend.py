"""Steps 4 and 5: users who wait -> lists, one micro-batch at a time.

The loop is: take those who have waited longest, copy their rows, compute on the device thread, write,
and close their tickets when the broker has acknowledged. Only the copying is done on the event loop.
What a list contains is the engine's affair (`model.engine`), what a message looks like that of `stream.messages`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field

from model.fatigue import FatigueConfig, fatigue
from model.history import ACTION_NAME, Histories
from stream import messages
from stream.answers.emission import Changes, EmitConfig, Pace
from stream.answers.progress import Waiting
from stream.kafka.batches import Out, send
from stream.lists.interests import Interests, Source
from stream.lists.profile import Key, Profile, ProfileConfig, Profiles
from stream.messages import Recommendation
from stream.process.monitor import Monitor

if TYPE_CHECKING:  # torch and Faust are behind these, and whoever only reads settings should not wait for them
    from model.arrange import Drawn
    from model.engine import Engine
    from model.people import About
    from model.peruser import PerUser
    from model.reasons import Ranked
    from model.reasons import Reason as EngineReason
    from stream.lists.feedback import Reactions
    from stream.lists.people import Register
    from stream.lists.serving import Served, Serving

log = logging.getLogger(__name__)


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
    """Messages by topic, one a user; and the items of each, where it matters whether they have changed."""

    outs: dict[str, list[Out]]
    items: list[list[str]]


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
        self._now_ms = now_ms
        self._work = asyncio.Event()
        self._made: asyncio.Queue[tuple[Interests, Lists]] = asyncio.Queue(1)
        self._acks: set[asyncio.Task] = set()
        self._last = ""
        self.profiles = Profiles(config.profile)
        self.pace = Pace(emit.min_interval_ms / 1000)
        self.changes = Changes() if emit.only_if_changed else None
        self.tiring: tuple[Reactions, FatigueConfig] | None = None

    def wake(self) -> None:
        """Someone waits."""
        self._work.set()

    async def run(self) -> None:
        """Answer for ever. Users wait until there is a catalogue; nothing they did is lost meanwhile."""
        loop = asyncio.get_running_loop()
        await self._serving.ready.wait()
        while True:
            await self._until_work()
            interests = self._source.interests(self._taken(), time.monotonic())
            if interests is None:
                if not self._source.progress.waiting and not self._source.progress.backlog:
                    self._work.clear()
                continue
            began = time.monotonic()
            self.pace.spoke((w.key for w in interests.users), began)
            while self._config.exact and await self._serving.recount():
                pass  # more was counted meanwhile, or another catalogue has come
            served = self._serving.current
            if served.name != self._last:
                self._last = served.name
                self.profiles.clear()
            exact = self._config.exact
            profiles = await self._profiles_now(served, interests) if exact else self._profiles_of(interests)
            about = self._people.about([w.user for w in interests.users])
            lists = await loop.run_in_executor(self._device, self._compute, served, interests, profiles, about)
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

    def _taken(self) -> list[Waiting]:
        """Those whose turn it is, but for those who had a list just now."""
        progress, now, taken = self._source.progress, time.monotonic(), []
        for w in progress.take(self._config.max_batch):
            if self.pace.early(w.key, now):
                self.pace.defer(progress.defer(w), progress.one)
            else:
                taken.append(w)
        return taken

    async def refresh_profiles(self) -> None:
        """Make due profiles, for ever, on the device thread between micro-batches."""
        await self._serving.ready.wait()
        while True:
            keys, histories, counts = self._source.known(self.profiles.take_due())
            if not keys:
                await asyncio.sleep(0.05)
                continue
            await self._make(self._serving.current, keys, histories, counts)

    async def _profiles_now(self, served: Served, interests: Interests) -> list[Profile | None]:
        """Profiles of these very rows, whether those that are kept are due or not."""
        return await asyncio.get_running_loop().run_in_executor(self._device, _profiles, served, interests)

    async def _make(self, served: Served, keys: Sequence[Key], histories: Histories, counts: Sequence[int]) -> None:
        """Make and keep profiles, unless another model is served by then, which reads none of this one's."""
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._device, served.engine.profiles, histories)
        made = time.monotonic()
        if served.name != self._serving.current.name:
            return
        for i, key in enumerate(keys):
            self.profiles.put(key, Profile(vectors[i], counts[i], int(histories.times[i, -1]), made))
        self._monitor.profiles += len(keys)

    def _profiles_of(self, interests: Interests) -> list[Profile | None]:
        times = interests.histories.times
        newest = times[:, -1].tolist() if times.shape[1] else [0] * len(interests.users)
        return [
            self.profiles.get(w.key, count, time_ms)
            for w, count, time_ms in zip(interests.users, interests.counts, newest, strict=True)
        ]

    def _compute(
        self, served: Served, interests: Interests, profiles: list[Profile | None], about: About | None
    ) -> Lists:
        """The lists of a micro-batch, by topic: on the device thread."""
        events = self._lists(served, interests, profiles, about, self._emit_config.reasons, "a")
        out = {self._topic: events}
        if self._config.shadow and served.shadow is not None:
            own = _profiles(served.shadow, interests)  # its own, and cheap: means of vectors
            out[self._shadow_topic] = self._lists(served.shadow, interests, own, about, False, "shadow")
        outs = {
            topic: [_out(event, w) for event, w in zip(lists, interests.users, strict=True)]
            for topic, lists in out.items()
        }
        return Lists(outs, [[item.item for item in event.items] for event in events] if self.changes else [])

    def _lists(
        self,
        served: Served,
        interests: Interests,
        profiles: Sequence[Profile | None],
        about: About | None,
        reasons: bool,
        variant: str,
    ) -> list[Recommendation]:
        engine, h, online = served.engine, interests.histories, served.online
        nothing = np.zeros((0, served.profile_dim), np.float32)
        lean = engine.lean(h, about, online)
        fused = engine.encode(h, [p.vectors if p else nothing for p in profiles], lean)
        followers = engine.followers(h, online)
        sought = max(self._config.candidates, self._config.n)
        candidates = engine.candidates(h, fused, served.search, online, sought, followers, lean)
        seeds = _seeds(interests) if engine.arranger.explore.on else None
        tired = self._tired(engine, interests)
        ranked = engine.rank(
            h, fused, candidates, online, self._config.n, reasons, followers, lean, seeds=seeds, tired=tired
        )
        lengths = engine.window_rows(h)[0].lengths
        now, moment = self._now_ms(), time.monotonic()
        return [
            self._message(served, w, r, int(length), float(short), profile, applied, variant, now, moment)
            for w, r, length, short, profile, applied in zip(
                interests.users, ranked, lengths, fused.short, profiles, interests.applied, strict=True
            )
        ]

    def _tired(self, engine: Engine, interests: Interests) -> PerUser | None:
        """What items lose for having been shown to these users, as of the events that cause their lists."""
        if self.tiring is None:
            return None
        reactions, config = self.tiring
        told = reactions.of([w.user for w in interests.users])
        if told is None:
            return None
        now = np.array([w.trigger.ts if w.trigger is not None else 0 for w in interests.users], np.int64)
        return fatigue(told, engine.catalog, now, config)

    def _message(
        self,
        served: Served,
        w: Waiting,
        ranked: Ranked,
        length: int,
        short: float,
        profile: Profile | None,
        applied: Mapping[str, int],
        variant: str,
        now_ms: int,
        moment: float,
    ) -> Recommendation:
        t = w.trigger
        assert t is not None  # `_snapshot` has seen to it
        drawn = ranked.drawn
        return Recommendation(
            id=_name(w, applied),
            user=w.user,
            ts=now_ms,
            items=recommended(served, ranked),
            interest=messages.Interest(
                short=round(short, 4),
                long=round(1 - short, 4),
                window=length,
                profile_age_s=round(moment - profile.made, 3) if profile else None,
            ),
            model=served.name,
            catalog_version=served.catalog.version,
            variant=variant,
            source=messages.Source(self._state_name, t.topic, w.partition, t.offset, t.ts, dict(applied)),
            drawn=msgspec.UNSET if drawn is None else _drawn(drawn),
        )

    async def _emit(self, interests: Interests, lists: Lists) -> None:
        """Write lists to the partitions their users' events came from; tickets close as they are acknowledged."""
        users = interests.users
        order = sorted(self._to_send(users, lists.items), key=lambda i: users[i].partition)
        for partition, group in groupby(order, key=lambda i: users[i].partition):
            members = list(group)
            sent = [Sent(users[i], *self._sending(users[i], lists.items, i)) for i in members]
            futures: list[asyncio.Future] = []
            try:
                for topic, outs in lists.outs.items():
                    futures += await send(self._producer, topic, partition, [outs[i] for i in members])
            except KafkaError as error:
                await self._retry(sent, error)
                continue
            task = asyncio.ensure_future(self._acknowledged(sent, futures))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

    def _to_send(self, users: Sequence[Waiting], items: Sequence[Sequence[str]]) -> list[int]:
        """All, or those whose list is another one than the last; the others are answered by that."""
        if self.changes is None:
            return list(range(len(users)))
        kept: list[int] = []
        for i, w in enumerate(users):
            if self.changes.unchanged(w.key, items[i]):
                self._monitor.suppressed += 1
                self._source.answered(w.ticket)
            else:
                kept.append(i)
        return kept

    def _sending(self, w: Waiting, items: Sequence[Sequence[str]], i: int) -> tuple[int, Sequence[str]]:
        return (self.changes.sent(w.key), items[i]) if self.changes is not None else (0, ())

    async def _acknowledged(self, sent: Sequence[Sent], futures: Sequence[asyncio.Future]) -> None:
        try:
            await asyncio.gather(*futures)
        except KafkaError as error:
            await self._retry(sent, error)
            return
        moment = time.monotonic()
        self._monitor.answered([moment - s.user.trigger.arrived for s in sent if s.user.trigger is not None])
        for s in sent:
            if self.changes is not None:
                self.changes.acknowledged(s.user.key, s.number, s.items)
            self._source.answered(s.user.ticket)

    async def _retry(self, sent: Sequence[Sent], error: KafkaError) -> None:
        """The broker did not take the lists: their users wait again, and a newer list will do as well."""
        self._monitor.failures["emit"] += 1
        log.warning("%d lists were not acknowledged (%r); their users wait again", len(sent), error)
        self.pace.failed(s.user.key for s in sent)
        if self.changes is not None:
            for s in sent:
                self.changes.failed(s.user.key, s.number)
        await asyncio.sleep(1.0)
        self._source.progress.give_back(s.user for s in sent)
        self.wake()


def _profiles(served: Served, interests: Interests) -> list[Profile | None]:
    """Profiles of these very rows, made on this thread and not to be kept."""
    vectors, made = served.engine.profiles(interests.histories), time.monotonic()
    return [Profile(v, n, 0, made) for v, n in zip(vectors, interests.counts, strict=True)]


def _name(w: Waiting, applied: Mapping[str, int]) -> str:
    t = w.trigger
    assert t is not None  # `_snapshot` has seen to it
    return messages.name(w.user, applied, t.topic, w.partition, t.offset)


def _seeds(interests: Interests) -> np.ndarray:
    """What is drawn for each user follows from the name of their list, u64[B]."""
    names = [_name(w, applied) for w, applied in zip(interests.users, interests.applied, strict=True)]
    return np.array([messages.seed(name) for name in names], np.uint64)


def _drawn(drawn: Drawn) -> messages.Drawn:
    return messages.Drawn([round(u, 4) for u in drawn.utilities], drawn.pool, drawn.new, drawn.free, drawn.at)


def _out(event: Recommendation, w: Waiting) -> Out:
    trace = w.trigger.trace if w.trigger is not None else None
    return Out(w.user.encode(), messages.encode(event), messages.headers(event, trace))


def recommended(served: Served, ranked: Ranked) -> list[messages.RecommendedItem]:
    """A ranked list in terms of the catalogue's item ids."""
    ids = served.catalog.ids
    reasons = ranked.reasons or [[] for _ in ranked.items]
    explained = ranked.explained or [0.0] * len(ranked.items)
    listed = zip(ranked.items, ranked.scores, ranked.propensities, reasons, explained, strict=True)
    return [
        messages.RecommendedItem(
            item=ids[item],
            rank=rank,
            score=round(float(score), 5),
            propensity=round(likely, 7),
            reasons=_reasons(served, why),
            explained=round(share, 4),
        )
        for rank, (item, score, likely, why, share) in enumerate(listed, 1)
    ]


def _reasons(served: Served, why: Sequence[EngineReason]) -> list[messages.Reason]:
    out: list[messages.Reason] = []
    for reason in why:
        share = round(float(reason.share), 4)
        if reason.type == "taste":
            out.append(messages.TasteReason(reason.taste, share))
        elif reason.type == "popular":
            out.append(messages.PopularReason(share))
        else:
            out.append(messages.InteractionReason(served.catalog.ids[reason.item], ACTION_NAME[reason.action], share))
    return out
