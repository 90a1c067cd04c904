"""The run: rounds of faults, an audit after each fault, and when all is quiet a verification of everything."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from confluent_kafka.admin import ResourceType

from tests.chaos import compaction
from tests.chaos.admin import client, configure
from tests.chaos.arena import Arena
from tests.chaos.events import Source
from tests.chaos.findings import Findings, Kind
from tests.chaos.observer import Observer
from tests.chaos.publisher import Publisher
from tests.chaos.reader import Away
from tests.chaos.report import Result
from tests.chaos.schedule import Fault, round_of
from tests.pipeline.topics_io import PARTITIONS

SETTLE_S = 150.0
"""For sessions to end, partitions to be restored and everyone to be answered, on a machine with other work."""
FLOOD = 20_000
AHEAD = 60


@dataclass(frozen=True)
class Plan:
    """How long, how much, how bad. `only`: faults of these kinds; `compact_every` rounds, 0 = never.

    `defect`: Python that every worker runs first, to see whether what it breaks is found.
    """

    seed: int = 1
    minutes: float = 60.0
    rate: float = 200.0
    faults: int = 6
    users: int = 400
    only: tuple[str, ...] = ()
    compact_every: int = 4
    rounds: int = 1_000_000
    defect: str = ""


class Chaos:
    """One run."""

    def __init__(self, plan: Plan, folder: Path, cache: Path, tell: Callable[[str], None]) -> None:
        self._plan, self._folder, self._tell = plan, folder, tell
        self._rng = np.random.default_rng(plan.seed)
        self._began = time.monotonic()
        self.arena = Arena(folder, cache, plan.defect)
        self.result = Result(plan.seed, disk=self.arena.disk.kind)
        settings = self.arena.deployment.settings
        source = Source(plan.seed, int(time.time() * 1000), plan.users)
        self.observer = Observer(settings, source.returning)
        self.publisher = Publisher(self.arena.broker.address, settings.input.topics, PARTITIONS, source, plan.rate)
        self._make_room_early()

    def run(self) -> Result:
        """Rounds until the time is up or something is wrong."""
        for _ in range(1 + int(2 * self._rng.random())):
            self.arena.add()
        for hand in self.arena.hands:
            hand.worker.ready()
        while not self.result.wrong and self.result.rounds < self._plan.rounds:
            if time.monotonic() - self._began > 60 * self._plan.minutes:
                break
            self._round(self.result.rounds)
        if not self.result.wrong:
            self.result.take(self.observer.verify_all())
        self._sum_up()
        if self.result.wrong:
            self._keep()
        return self.result

    def _round(self, number: int) -> None:
        began, before = time.monotonic(), self.observer.in_log
        self.arena.broker_was_hit = False
        by_itself, done = len(self.arena.by_itself), self.arena.done.copy()
        self.publisher.begin(number)
        for fault in round_of(self._rng, self._plan.faults, self._plan.only):
            self._peace(fault.after)
            self._do(fault)
            self._peace(0.5)
            self._audit()
            if self.result.wrong:
                return
        self._peace(3.0)
        self.arena.note(f"round {number}: quiet")
        self._quiet()
        if self.result.wrong:
            return
        if len(self.arena.by_itself) > by_itself and not self.arena.broker_was_hit:
            self.result.add("ended_badly", f"while the broker was well: {self.arena.by_itself[by_itself:]}")
        self.arena.look_for_leaks()
        badly: dict[Kind, list[str]] = {"leaks": self.arena.leaks, "ended_badly": self.arena.refused}
        for kind, words in badly.items():
            for one in words:
                self.result.add(kind, one)
        self.result.rounds += 1
        happened = ", ".join(f"{n} {kind}" for kind, n in (self.arena.done - done).items())
        self._tell(
            f"{self.result.rounds:3d}  {time.monotonic() - self._began:6.0f} s  {time.monotonic() - began:4.0f} s  "
            f"{self.observer.in_log - before:6d} events  {self.observer.lists:7d} lists  "
            f"longest wait {self.observer.waits.longest:5.1f} s  {len(self.arena.alive)} workers  {happened}"
        )
        if self._plan.compact_every and number % self._plan.compact_every == self._plan.compact_every - 1:
            self._compact()
        self.observer.delete_what_was_read()
        self.arena.forget_logs()
        self._sum_up()

    def _do(self, fault: Fault) -> None:
        if fault.kind == "flood":
            self.publisher.flood(FLOOD)
            self.arena.done[fault.kind] += 1
        elif fault.kind == "clock ahead":
            self.publisher.ahead(AHEAD)
            self.arena.done[fault.kind] += 1
        else:
            self.arena.do(fault)

    def _peace(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.arena.tend()
            time.sleep(0.1)

    def _audit(self) -> None:
        """Nothing is found out while the broker is away."""
        if self.arena.broker_is_well:
            try:
                self.result.take(self.observer.audit())
                self.result.audits += 1
            except Away as reason:
                self.arena.note(f"no audit: {reason}")

    def _quiet(self) -> None:
        """All is mended, nothing more is published: wait until all is committed, and look at everything."""
        self.arena.mend()
        if not self.publisher.quiet(SETTLE_S):
            raise RuntimeError(f"the harness could not publish: {self.publisher.error!r}")
        deadline = time.monotonic() + SETTLE_S
        while not self._settled():
            self.arena.tend()
            if time.monotonic() > deadline:
                self.arena.tell_all()
                self.result.add("not_settled", f"after {SETTLE_S:.0f} s {self.observer.behind()} were not committed")
                self._tell(str([(h.number, h.worker.status()) for h in self.arena.hands]))
                return
            time.sleep(0.2)
        self.arena.note("all is committed")
        self.result.take(self._verified())

    def _verified(self) -> Findings:
        while True:
            try:
                return self.observer.verify()
            except Away as reason:
                self.arena.note(f"not verified: {reason}")

    def _settled(self) -> bool:
        try:
            return not self.observer.behind()
        except Away as reason:
            self.arena.note(f"not known whether all is committed: {reason}")
            return False

    def _compact(self) -> None:
        """With the workers down, changelogs are compacted until they end with nothing that can be read."""
        self.arena.stop_all()
        if compaction.to_an_empty_tail(self.arena.deployment.settings):
            self.arena.done["changelog compacted to an empty tail"] += 1
        self.arena.add()

    def _make_room_early(self) -> None:
        """Small segments for what is deleted after each round."""
        topics = self.arena.deployment.settings.topics
        inputs = self.arena.deployment.settings.input.names
        admin = client(self.arena.broker.address)
        for topic in (*inputs, topics.recommendations, topics.dead_letters):
            configure(admin, ResourceType.TOPIC, topic, segment_bytes=str(16 << 20))

    def _sum_up(self) -> None:
        r, o = self.result, self.observer
        r.minutes = (time.monotonic() - self._began) / 60
        r.faults, r.by_itself = self.arena.done, self.arena.by_itself
        r.events, r.lists, r.users = o.reference.events, o.lists, o.users
        r.dead_letters, r.letters_repeated, r.lists_repeated = o.letters, o.letters_repeated, o.lists_repeated
        r.longest_unanswered_s = o.waits.longest
        r.p50_unanswered_s, r.p99_unanswered_s = o.waits.quantile(0.5), o.waits.quantile(0.99)
        r.write(self._folder / "result.json")

    def _keep(self) -> None:
        """What is in the broker's file system in memory would be gone with it."""
        self.arena.broker.stop()
        shutil.copytree(self.arena.disk.folder, self._folder / "topics", dirs_exist_ok=True)

    def close(self) -> None:
        self.publisher.close()
        self.observer.close()
        self.arena.close()
