"""What has been applied, what has been answered, and so what may be committed.

Every applied batch is a ticket. A ticket is open while a user that it touched waits for a list, or a
dead letter of it for its acknowledgement. Users wait once, with their oldest ticket: a newer list
answers the older events too, so overload costs repeats of nothing, and the queue never grows beyond
the users themselves. Pure bookkeeping; nothing here awaits or speaks to Kafka.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from faust.types import TP


class Trigger(NamedTuple):
    """The last event that touched a user: where it is, and when it came."""

    topic: str
    offset: int
    ts: int
    arrived: float
    trace: bytes | None


class Waiting(NamedTuple):
    """A user who is to be answered."""

    partition: int
    user: str
    ticket: int
    trigger: Trigger


@dataclass(slots=True)
class _Batch:
    ticket: int
    tp: TP
    next_offset: int


class Progress:
    """Tickets, the users who wait, and the offsets that follow from both."""

    def __init__(self) -> None:
        self._next = 0
        self._batches: deque[_Batch] = deque()
        self._open: dict[int, int] = {}
        self._waiting: dict[tuple[int, str], Waiting] = {}
        self._done: dict[TP, int] = {}
        self._since: dict[int, int] = {}  # partition -> its tickets from before are of events that were forgotten
        self.conflated = 0

    def applied(self, tp: TP, next_offset: int) -> int:
        """A whole batch has been applied; `next_offset` is to be committed once it is answered. Returns its ticket."""
        ticket = self._next
        self._next += 1
        self._batches.append(_Batch(ticket, tp, next_offset))
        return ticket

    def hold(self, ticket: int, n: int = 1) -> None:
        self._open[ticket] = self._open.get(ticket, 0) + n

    def done(self, ticket: int, n: int = 1) -> None:
        left = self._open[ticket] - n
        if left:
            self._open[ticket] = left
        else:
            del self._open[ticket]

    def wait(self, ticket: int, partition: int, user: str, trigger: Trigger) -> None:
        """A touched user waits for a list; one who waits already keeps place and ticket, with the newer trigger."""
        key = (partition, user)
        earlier = self._waiting.get(key)
        if earlier is None:
            self.hold(ticket)
            self._waiting[key] = Waiting(partition, user, ticket, trigger)
        else:
            self.conflated += 1
            self._waiting[key] = earlier._replace(trigger=trigger)

    def take(self, n: int) -> list[Waiting]:
        """The n users who have waited longest; their tickets stay open until `done`."""
        keys = [key for key, _ in zip(self._waiting, range(n), strict=False)]
        return [self._waiting.pop(key) for key in keys]

    def give_back(self, users: Iterable[Waiting]) -> None:
        """Users who were taken and could not be answered wait again, unless their partition was given up meanwhile."""
        for w in users:
            if w.ticket < self._since.get(w.partition, 0):
                self.done(w.ticket)
                continue
            key = (w.partition, w.user)
            other = self._waiting.get(key)
            if other is None:
                self._waiting[key] = w
            else:
                # One stands for both: with the older ticket, so that its batch is not committed, and the newer trigger.
                self.done(max(w.ticket, other.ticket))
                newest = max(w.trigger, other.trigger, key=lambda trigger: trigger.arrived)
                self._waiting[key] = w._replace(ticket=min(w.ticket, other.ticket), trigger=newest)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def settled(self) -> bool:
        """Whether all that was applied is answered."""
        return not self._open

    def committable(self) -> dict[TP, int]:
        """Next offset of every partition, up to which all is applied and answered."""
        while self._batches and self._batches[0].ticket not in self._open:
            batch = self._batches.popleft()
            self._done[batch.tp] = batch.next_offset
        return dict(self._done)

    def forget(self, partitions: set[int]) -> None:
        """Partitions were given up: what was not committed will be read again by their new owner."""
        for key in [key for key in self._waiting if key[0] in partitions]:
            self.done(self._waiting.pop(key).ticket)
        self._since.update(dict.fromkeys(partitions, self._next))
        self._batches = deque(b for b in self._batches if b.tp.partition not in partitions)
        self._done = {tp: offset for tp, offset in self._done.items() if tp.partition not in partitions}
