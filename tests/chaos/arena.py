"""A broker of its own and the workers on it, and everything that can be done to them."""

from __future__ import annotations

import heapq
import itertools
import math
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stream.dev.broker import LocalBroker
from tests.chaos.disk import Disk
from tests.chaos.events import catalogue
from tests.chaos.schedule import Fault
from tests.pipeline.harness import Deployment, Worker

MOST_WORKERS = 4
STOP_S = 40.0
ALLOWED = {"threads": 6, "tasks": 6, "fds": 6}
"""What a worker may have more of than when it was first quiet with as many partitions: pools that fill when they are
first used, and connections that are opened again. What leaks grows beyond it in the end.
"""
TELL_ALL = """
import asyncio, faulthandler, signal, sys
def tell_all(*_):
    for loop in {task.get_loop() for task in list(getattr(asyncio.tasks, '_all_tasks', ()))}:
        for task in asyncio.all_tasks(loop):
            task.print_stack(limit=6)
    sys.stderr.flush()
    faulthandler.dump_traceback()
signal.signal(signal.SIGUSR2, tell_all)
"""
"""In a worker: on SIGUSR2 it tells where all its tasks are."""


CUT_SHORT = "it is read again"
"""What a worker says that could not end all that it had begun."""


@dataclass
class Hand:
    """A worker, and what is known of it."""

    worker: Worker
    number: int
    frozen: bool = False
    leaving: bool = False
    alone: bool = False  # the broker was away, for a time, while it was leaving
    until: float = math.inf
    quiet: dict[int, dict[str, int]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.worker.process.poll() is not None

    def obeyed(self, code: int | None) -> bool:
        """Whether this is how it should end when told to stop: with 0, or at once while Python still starts, or, where
        it could not commit for want of a broker, by saying so.
        """
        log = self.worker.log.read_text()
        return code == 0 or (code == -signal.SIGTERM and not log) or (self.alone and code == 1 and CUT_SHORT in log)


class Arena:
    """Starts, breaks and mends. A worker that ends by itself is started again, as a supervisor would."""

    def __init__(self, folder: Path, cache: Path, defect: str = "") -> None:
        self._prelude = TELL_ALL + defect
        folder.mkdir(parents=True, exist_ok=True)
        self.disk = Disk(folder / "broker" / "data")
        self.broker = LocalBroker(folder / "broker")
        self.broker.start()
        self.deployment = Deployment(self.broker.address, "chaos", folder, cache).create(catalogue())
        self.hands: list[Hand] = []
        self.done: Counter[str] = Counter()
        self.by_itself: list[str] = []
        self.leaks: list[str] = []
        self.refused: list[str] = []
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._broker_down = self._broker_frozen = self._disk_full = False
        self.broker_was_hit = False

    # Workers

    @property
    def alive(self) -> list[Hand]:
        return [hand for hand in self.hands if not hand.leaving]

    def add(self) -> None:
        worker = self.deployment.worker(self._prelude)
        self.hands.append(Hand(worker, len(self.deployment.workers) - 1))
        self.note(f"worker {self.hands[-1].number} started")

    def kill(self, hand: Hand) -> None:
        hand.worker.kill()
        self.hands.remove(hand)

    def note(self, words: str) -> None:
        """What was done, and when, beside the workers' logs."""
        with (self.deployment.folder / "chronicle.log").open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')},{int(time.time() * 1000) % 1000:03d} {words}\n")

    def tell_all(self) -> None:
        """Every worker tells in its log where its tasks are."""
        for hand in self.hands:
            hand.worker.signal(signal.SIGUSR2)
        time.sleep(2.0)

    def tend(self) -> None:
        """What is due, and workers that have ended."""
        self._note_alone()
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()
        for hand in [hand for hand in self.hands if hand.ended]:
            self.hands.remove(hand)
            code = hand.worker.process.poll()
            if not hand.leaving:
                self.note(f"worker {hand.number} ended by itself with code {code}")
                last = [line for line in hand.worker.log.read_text().splitlines() if line.strip()][-1:]
                self.by_itself.append(f"worker {hand.number} ended with code {code}: {''.join(last)[:300]}")
            elif not hand.obeyed(code):
                self.refused.append(f"worker {hand.number} was told to stop and ended with code {code}")
        for hand in [hand for hand in self.hands if hand.until < time.monotonic()]:
            self._too_late(hand)
        if not self.alive:
            self.add()

    # Faults

    def do(self, fault: Fault) -> None:
        """Let it happen; what it brings to an end is done later, by `tend`."""
        self.note(
            f"{fault.kind} for {fault.lasts:.1f} s ({fault.choice:.2f}); workers {[h.number for h in self.hands]}"
        )
        n = {
            "worker killed": self._kill_one,
            "all workers killed": self._kill_all,
            "worker frozen": self._freeze_worker,
            "worker added": self._add,
            "worker removed": self._remove,
            "broker killed": self._kill_broker,
            "broker restarted": self._restart_broker,
            "broker frozen": self._freeze_broker,
            "disk filled": self._fill_disk,
        }[fault.kind](fault)
        if n:
            self.done[fault.kind.replace("all workers", "worker")] += n

    def _pick(self, fault: Fault, old_too: bool) -> Hand | None:
        """A worker; the oldest only where `old_too`, or where there is no other: what leaks must have time to."""
        hands = [hand for hand in self.alive if not hand.frozen]
        hands = hands if old_too or len(hands) < 2 else hands[1:]
        return hands[int(fault.choice * len(hands))] if hands else None

    def _kill_one(self, fault: Fault) -> int:
        hand = self._pick(fault, old_too=fault.choice > 0.9)
        if hand is None:
            return 0
        self.kill(hand)
        if len(self.alive) < 2 or fault.choice < 0.7:
            self.add()
        return 1

    def _kill_all(self, fault: Fault) -> int:
        n = len(self.hands)
        for hand in list(self.hands):
            self.kill(hand)
        for _ in range(1 + int(2 * fault.choice)):
            self.add()
        return n

    def _freeze_worker(self, fault: Fault) -> int:
        hand = self._pick(fault, old_too=True)
        if hand is None:
            return 0
        hand.worker.signal(signal.SIGSTOP)
        hand.frozen = True
        self._at(fault.lasts, lambda: self._thaw_worker(hand))
        return 1

    def _thaw_worker(self, hand: Hand) -> None:
        if hand in self.hands and hand.frozen:
            hand.worker.signal(signal.SIGCONT)
            self.note(f"worker {hand.number} thawed")
        hand.frozen = False

    def _add(self, fault: Fault) -> int:
        if len(self.alive) >= MOST_WORKERS:
            return 0
        self.add()
        return 1

    def _remove(self, fault: Fault) -> int:
        hand = self._pick(fault, old_too=False)
        if hand is None:
            return 0
        hand.leaving = True
        self._note_alone()
        hand.worker.signal(signal.SIGTERM)
        hand.until = time.monotonic() + STOP_S
        if not self.alive:
            self.add()
        return 1

    def _note_alone(self) -> None:
        if not self.broker_is_well:
            for hand in self.hands:
                hand.alone |= hand.leaving

    def _too_late(self, hand: Hand) -> None:
        if hand in self.hands:
            self.refused.append(f"worker {hand.number} was told to stop and had not ended after {STOP_S:.0f} s")
            self.kill(hand)

    def _kill_broker(self, fault: Fault) -> int:
        if self._broker_down or self._broker_frozen:
            return 0
        self.broker.kill()
        self._broker_is_down(fault.lasts)
        return 1

    def _restart_broker(self, fault: Fault) -> int:
        if self._broker_down or self._broker_frozen or self._disk_full:
            return 0
        self.broker.stop(60.0)
        self._broker_is_down(0.0)
        return 1

    def _broker_is_down(self, lasts: float) -> None:
        self._broker_down = self.broker_was_hit = True
        self._at(lasts, self._start_broker)

    def _start_broker(self) -> None:
        if self._disk_full:
            self._free_disk()
        self.note("starting the broker")
        self.broker.start(120.0)
        self.note("the broker answers")
        self._broker_down = False

    def _freeze_broker(self, fault: Fault) -> int:
        if self._broker_down or self._broker_frozen or self._disk_full:
            return 0
        self.broker.freeze()
        self._broker_frozen = self.broker_was_hit = True
        self._at(fault.lasts, self._thaw_broker)
        return 1

    def _thaw_broker(self) -> None:
        if self._broker_frozen:
            self.broker.thaw()
            self.note("the broker thawed")
        self._broker_frozen = False

    def _fill_disk(self, fault: Fault) -> int:
        if self._broker_down or self._broker_frozen or self._disk_full:
            return 0
        pid = self.broker.status().pid
        if pid is None:
            return 0
        self.disk.fill(pid)
        self._disk_full = self.broker_was_hit = True
        self._at(fault.lasts, self._free_disk)
        return 1

    def _free_disk(self) -> None:
        if not self._disk_full:
            return
        self.disk.free(self.broker.status().pid)
        self._disk_full = False
        self.note("the disk has room again")
        if self._broker_down:
            return
        # A broker whose only disk fails ends, sooner or later.
        deadline = time.monotonic() + 3.0
        while self.broker.status().running and time.monotonic() < deadline:
            time.sleep(0.2)
        if not self.broker.status().running:
            self.done["broker ended, its disk full"] += 1
            self._start_broker()

    @property
    def broker_is_well(self) -> bool:
        return not (self._broker_down or self._broker_frozen or self._disk_full)

    # Mending

    def mend(self) -> None:
        """Whatever is frozen, full or down comes back; it takes the workers a while to notice."""
        due, self._later = sorted(self._later), []
        for _, _, act in due:
            act()
        if not self.broker.status().running:
            self.broker.start(120.0)
        self.tend()

    def _at(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), act))

    # Quiet

    def look_for_leaks(self) -> None:
        """Compare each worker's threads, tasks and descriptors with when it was first quiet."""
        for hand in self.alive:
            status = hand.worker.status()
            if not status.get("ready"):
                continue
            now = {kind: int(status[kind]) for kind in ALLOWED}
            before = hand.quiet.setdefault(len(status["partitions"]), now)
            for kind, more in ALLOWED.items():
                if now[kind] > before[kind] + more:
                    self.leaks.append(f"worker {hand.number} has {now[kind]} {kind}, at first {before[kind]}")
                    hand.quiet[len(status["partitions"])] = before | {kind: now[kind]}

    def stop_all(self) -> None:
        """All workers stop as they should."""
        for hand in self.hands:
            hand.leaving = True
            hand.worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for hand in list(self.hands):
            with suppress(TimeoutError, subprocess.TimeoutExpired):
                code = hand.worker.process.wait(max(0.1, deadline - time.monotonic()))
                if not hand.obeyed(code):
                    self.refused.append(f"worker {hand.number} was told to stop and ended with code {code}")
                self.hands.remove(hand)
        for hand in list(self.hands):
            self._too_late(hand)

    def forget_logs(self) -> None:
        """Logs of workers that ended in rounds before the last few."""
        kept = {hand.worker.log for hand in self.hands}
        for worker in self.deployment.workers[:-40]:
            if worker.log not in kept:
                worker.log.unlink(missing_ok=True)

    def close(self) -> None:
        for hand in list(self.hands):
            with suppress(Exception):
                hand.worker.signal(signal.SIGCONT)
                self.kill(hand)
        with suppress(Exception):
            self.broker.thaw()
        self.broker.kill()
        self.disk.close()
