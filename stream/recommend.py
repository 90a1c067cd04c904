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
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import numpy as np
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from pydantic import BaseModel, ConfigDict, Field

from model.history import ACTION_NAME, WINDOW, Histories
from stream import messages
from stream.kafka.batches import Out, send
from stream.monitor import Monitor
from stream.profile import Profile, ProfileConfig, Profiles
from stream.progress import Waiting

if TYPE_CHECKING:  # torch and Faust are behind these, and whoever only reads settings should not wait for them
    from model.reasons import Ranked
    from model.reasons import Reason as EngineReason
    from stream.serving import Served, Serving
    from stream.state import State

log = logging.getLogger(__name__)


class RecommendConfig(BaseModel):
    """How lists are made."""

    model_config = ConfigDict(extra="forbid")

    n: int = Field(default=10, ge=1, le=1000, description="items in a list")
    candidates: int = Field(default=200, ge=1, le=2048, description="items that are ranked for a list")
    max_batch: int = Field(default=64, ge=1, le=4096, description="users in a micro-batch")
    reasons: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    shadow: bool = Field(
        default=False, description="also write the fallback's lists to the shadow topic once a model is released"
    )
    profile: ProfileConfig = ProfileConfig()


@dataclass(frozen=True, slots=True)
class Interests:
    """Copies of the touched users' rows: all that a list is made of."""

    users: list[Waiting]
    histories: Histories
    profiles: list[Profile | None]
    applied: list[dict[str, int]]


class Recommender:
    """Answers the users who wait."""

    def __init__(
        self,
        config: RecommendConfig,
        state: State,
        serving: Serving,
        producer: AIOKafkaProducer,
        topic: str,
        shadow_topic: str,
        monitor: Monitor,
        device: ThreadPoolExecutor,
        now_ms: Callable[[], int],
    ) -> None:
        self._config = config
        self._state = state
        self._serving = serving
        self._producer = producer
        self._topic = topic
        self._shadow_topic = shadow_topic
        self._monitor = monitor
        self._device = device
        self._now_ms = now_ms
        self._work = asyncio.Event()
        self._acks: set[asyncio.Task] = set()
        self._last = ""
        self.profiles = Profiles(config.profile)

    def wake(self) -> None:
        """Someone waits."""
        self._work.set()

    async def run(self) -> None:
        """Answer for ever. Users wait until there is a catalogue; nothing they did is lost meanwhile."""
        loop = asyncio.get_running_loop()
        await self._serving.ready.wait()
        while True:
            await self._work.wait()
            interests = self._snapshot(self._state.progress.take(self._config.max_batch))
            if interests is None:
                if not self._state.progress.waiting:
                    self._work.clear()
                continue
            began = time.monotonic()
            served = self._serving.current
            if served.name != self._last:
                self._last = served.name
                self.profiles.clear()
            lists = await loop.run_in_executor(self._device, self._compute, served, interests)
            self._monitor.stage("recommend", time.monotonic() - began)
            await self._emit(interests, lists)

    async def refresh_profiles(self) -> None:
        """Make due profiles, for ever, on the device thread between micro-batches."""
        loop = asyncio.get_running_loop()
        await self._serving.ready.wait()
        while True:
            keys = [key for key in self.profiles.take_due() if self._state.columns.row(*key) is not None]
            if not keys:
                await asyncio.sleep(0.05)
                continue
            columns = self._state.columns
            rows = np.array([columns.rows(partition, (user,))[0] for partition, user in keys], np.int64)
            histories = columns.histories(rows, seen=False)
            counts = columns.count[rows].tolist()
            engine = self._serving.current.engine
            vectors = await loop.run_in_executor(self._device, engine.profiles, histories)
            made = time.monotonic()
            for i, key in enumerate(keys):
                self.profiles.put(key, Profile(vectors[i], counts[i], int(histories.times[i, -1]), made))
            self._monitor.profiles += len(keys)

    def _snapshot(self, users: list[Waiting]) -> Interests | None:
        """Copy the rows of these users; one whose partition has left us is its new owner's to answer."""
        columns = self._state.columns
        kept: list[Waiting] = []
        rows: list[int] = []
        for w in users:
            row = columns.row(w.partition, w.user)
            if row is None:
                self._state.answered(w.ticket)
            else:
                kept.append(w)
                rows.append(row)
        if not kept:
            return None
        at = np.array(rows, np.int64)
        histories = columns.histories(at)
        counts = columns.count[at].tolist()
        newest = histories.times[:, -1].tolist() if histories.times.shape[1] else [0] * len(kept)
        return Interests(
            kept,
            histories,
            [
                self.profiles.get((w.partition, w.user), count, time_ms)
                for w, count, time_ms in zip(kept, counts, newest, strict=True)
            ],
            [
                {topic: offset for topic, offset in zip(columns.topics, applied, strict=True) if offset >= 0}
                for applied in columns.applied[at].tolist()
            ],
        )

    def _compute(self, served: Served, interests: Interests) -> dict[str, list[Out]]:
        """The lists of a micro-batch, by topic: on the device thread."""
        out = {self._topic: self._lists(served, interests, self._config.reasons, "a")}
        if self._config.shadow and served.shadow is not None:
            out[self._shadow_topic] = self._lists(served.shadow, interests, False, "shadow")
        return out

    def _lists(self, served: Served, interests: Interests, reasons: bool, variant: str) -> list[Out]:
        engine, h = served.engine, interests.histories
        nothing = np.zeros((0, served.profile_dim), np.float32)
        fused = engine.encode(h, [p.vectors if p else nothing for p in interests.profiles])
        online = served.online
        candidates = engine.candidates(h, fused, served.search, online, self._config.candidates)
        ranked = engine.rank(h, fused, candidates, online, self._config.n, reasons)
        lengths = h.window(WINDOW).lengths
        now, moment = self._now_ms(), time.monotonic()
        return [
            self._message(served, w, r, int(length), float(short), profile, applied, variant, now, moment)
            for w, r, length, short, profile, applied in zip(
                interests.users, ranked, lengths, fused.short, interests.profiles, interests.applied, strict=True
            )
        ]

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
    ) -> Out:
        t = w.trigger
        event = messages.Recommendation(
            id=messages.name(w.user, applied, t.topic, w.partition, t.offset),
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
            source=messages.Source(self._state.config.name, t.topic, w.partition, t.offset, t.ts, dict(applied)),
        )
        return Out(w.user.encode(), messages.encode(event), messages.headers(event, t.trace))

    async def _emit(self, interests: Interests, lists: Mapping[str, list[Out]]) -> None:
        """Write lists to the partitions their users' events came from; tickets close as they are acknowledged."""
        order = sorted(range(len(interests.users)), key=lambda i: interests.users[i].partition)
        for partition, group in groupby(order, key=lambda i: interests.users[i].partition):
            members = list(group)
            futures: list[asyncio.Future] = []
            try:
                for topic, outs in lists.items():
                    futures += await send(self._producer, topic, partition, [outs[i] for i in members])
            except KafkaError as error:
                await self._retry([interests.users[i] for i in members], error)
                continue
            task = asyncio.ensure_future(self._acknowledged([interests.users[i] for i in members], futures))
            self._acks.add(task)
            task.add_done_callback(self._acks.discard)

    async def _acknowledged(self, users: Sequence[Waiting], futures: Sequence[asyncio.Future]) -> None:
        try:
            await asyncio.gather(*futures)
        except KafkaError as error:
            await self._retry(users, error)
            return
        moment = time.monotonic()
        self._monitor.answered([moment - w.trigger.arrived for w in users])
        for w in users:
            self._state.answered(w.ticket)

    async def _retry(self, users: Sequence[Waiting], error: KafkaError) -> None:
        """The broker did not take the lists: their users wait again, and a newer list will do as well."""
        self._monitor.failures["emit"] += 1
        log.warning("%d lists were not acknowledged (%r); their users wait again", len(users), error)
        await asyncio.sleep(1.0)
        self._state.progress.give_back(users)
        self.wake()


def recommended(served: Served, ranked: Ranked) -> list[messages.RecommendedItem]:
    """A ranked list in terms of the catalogue's item ids."""
    ids = served.catalog.ids
    reasons = ranked.reasons or [[] for _ in ranked.items]
    return [
        messages.RecommendedItem(
            item=ids[item], rank=rank, score=round(float(score), 5), propensity=1.0, reasons=_reasons(served, why)
        )
        for rank, (item, score, why) in enumerate(zip(ranked.items, ranked.scores, reasons, strict=True), 1)
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
            index = int(served.catalog.index_of(np.array([reason.item], np.uint64))[0])
            out.append(messages.InteractionReason(served.catalog.ids[index], ACTION_NAME[reason.action], share))
    return out
