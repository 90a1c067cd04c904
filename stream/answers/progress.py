"""What has been applied, what has been answered, and so what may be committed.

Every applied batch is a ticket. A ticket is open while a user that it touched waits for a list, or a
dead letter of it for its acknowledgement. Users wait once, with their oldest ticket: a newer list
answers the older events too, so overload costs repeats of nothing, and the queue never grows beyond
the users themselves.

Where lists are held back on purpose (`stream.answers.emission`), their users are *owed* one instead: a debt
holds no offset back, it is an offset itself, written beside those that are committed. Rows know what
they have taken in, so whoever owns the partition next finds its users by it. Pure bookkeeping; nothing
here awaits or speaks to Kafka.

Who asked for a list (`stream.requests`) waits too, but each request for an answer of its own, in a silence as at any
other time: someone waits for it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from faust.types import TP

    from stream.lists.interests import Row
    from stream.requests import Request


class Trigger(NamedTuple):
    """The last event that touched a user: where it is, and when it came. `row`: what is known of the user, where that
    came with it (`stream.lists.desk`). `request`: what was asked for, where it is a request and touched nobody.
    """

    topic: str
    offset: int
    ts: int
    arrived: float
    trace: bytes | None
    row: Row | None = None
    request: Request | None = None


class Waiting(NamedTuple):
    """A user who is to be answered. `trigger`: None where the row is to say (`stream.answers.debts`)."""

    partition: int
    user: str
    ticket: int
    trigger: Trigger | None

    @property
    def key(self) -> tuple[int, str]:
        return self.partition, self.user

    @property
    def request(self) -> Request | None:
        """What they asked for; None for those who were touched."""
        return self.trigger.request if self.trigger is not None else None


@dataclass(slots=True)
class _Batch:
    ticket: int
    tp: TP
    first: int
    next_offset: int
    debt: int | None = None


@dataclass(slots=True)
class _Debt:
    """`owed`: first offset, by topic partition, of the events that its users are owed a list for."""

    owed: Mapping[TP, int]
    of: _Batch | None = None
    holds: int = 0


@dataclass(slots=True)
class _Chunk:
    """Users of one debt who are owed a list, the next one last."""

    ticket: int
    partition: int
    users: list[str] = field(default_factory=list)


class Progress:
    """Tickets, the users who wait or are owed, and the offsets that follow from both."""

    def __init__(self) -> None:
        self._next = 0
        self._batches: OrderedDict[int, _Batch] = OrderedDict()
        self._open: dict[int, int] = {}
        self._waiting: dict[tuple[int, str], Waiting] = {}
        self._asking: deque[Waiting] = deque()
        self._done: dict[TP, int] = {}
        self._since: dict[int, int] = {}  # partition -> its tickets from before are of events that were forgotten
        self._debts: dict[int, _Debt] = {}
        self._silent: dict[
            TP, int
        ] = {}  # first offset of what is applied in silence, and who was touched is in the rows
        self._backlog: deque[_Chunk] = deque()
        self.quiet: set[int] = set()
        self.conflated = 0

    # Tickets

    def applied(self, tp: TP, next_offset: int, first: int) -> int:
        """A whole batch has been applied, from offset `first`; `next_offset` is to be committed once it is answered.
        Returns its ticket.
        """
        ticket = self._ticket()
        self._batches[ticket] = _Batch(ticket, tp, first, next_offset)
        return ticket

    def _ticket(self) -> int:
        self._next += 1
        return self._next - 1

    def hold(self, ticket: int, n: int = 1) -> None:
        self._open[ticket] = self._open.get(ticket, 0) + n

    def done(self, ticket: int, n: int = 1) -> None:
        """n holds of a ticket, or of a debt, are no more."""
        if (debt := self._debts.get(ticket)) is not None:
            debt.holds -= n
            if not debt.holds:
                del self._debts[ticket]
                if debt.of is not None:
                    debt.of.debt = None
            return
        left = self._open[ticket] - n
        if left:
            self._open[ticket] = left
        else:
            del self._open[ticket]

    # Users who wait

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

    def ask(self, ticket: int, partition: int, user: str, trigger: Trigger) -> None:
        """A user waits for the answer to a request."""
        self.hold(ticket)
        self._asking.append(Waiting(partition, user, ticket, trigger))

    def take(self, n: int) -> list[Waiting]:
        """n users to be answered; their tickets stay open until `done`.

        Those who asked come first, then those who have waited longest; of those who asked, or are owed, as many as
        there is room for, and half of n however many wait: none starves the others.
        """
        if not self._asking:
            return self._take_touched(n)
        others = len(self._waiting) + self.backlog
        asking = [self._asking.popleft() for _ in range(min(len(self._asking), max((n + 1) // 2, n - others)))]
        return [*asking, *self._take_touched(n - len(asking))]

    def _take_touched(self, n: int) -> list[Waiting]:
        owed = self._take_owed(max(n // 2, n - len(self._waiting))) if self._backlog else []
        keys = [key for key, _ in zip(self._waiting, range(n - len(owed)), strict=False)]
        return [*map(self._waiting.pop, keys), *owed]

    def give_back(self, users: Iterable[Waiting]) -> None:
        """Users who were taken and not answered wait again, unless their partition was given up or is quiet by now."""
        for w in users:
            if w.ticket < self._since.get(w.partition, 0):
                self.done(w.ticket)
            elif w.request is not None:
                self._asking.appendleft(w)
            elif w.partition in self.quiet:
                self._owe(w.ticket)
                self.done(w.ticket)
            else:
                other = self._waiting.get(w.key)
                self._waiting[w.key] = w if other is None else self.one(w, other)

    def one(self, a: Waiting, b: Waiting) -> Waiting:
        """Two of one user become one: with the older ticket, so that its batch is not committed, or is owed, and the
        newer trigger. One hold will do, as any of the user's offsets finds the row.
        """
        self.conflated += 1
        self.done(max(a.ticket, b.ticket))
        triggers = [w.trigger for w in (a, b) if w.trigger is not None]
        newest = max(triggers, key=lambda trigger: trigger.arrived, default=None)
        return a._replace(ticket=min(a.ticket, b.ticket), trigger=newest)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._asking)

    @property
    def settled(self) -> bool:
        """Whether all that was applied is answered, or owed."""
        return not self._open

    @property
    def paid(self) -> bool:
        """Whether, besides, nobody is owed a list but in a silence."""
        return not self._open and not self._debts

    # Users who are owed a list

    def owe(self, tp: TP, first: int) -> None:
        """What is applied from `first` on is not answered before `speak`: the rows remember whom it touched."""
        self.quiet.add(tp.partition)
        self._silent[tp] = min(first, self._silent.get(tp, first))

    def hush(self, partition: int) -> None:
        """Silence begins: those of the partition who wait are owed a list, like those who were owed one before."""
        if partition in self.quiet:
            return
        self.quiet.add(partition)
        for key in [key for key in self._waiting if key[0] == partition]:
            w = self._waiting.pop(key)
            self._owe(w.ticket)
            self.done(w.ticket)
        for chunk in [chunk for chunk in self._backlog if chunk.partition == partition]:
            self._owe(chunk.ticket)
            self.done(chunk.ticket, len(chunk.users))
        self._backlog = deque(chunk for chunk in self._backlog if chunk.partition != partition)

    def silent_from(self, partition: int, first: Mapping[TP, int]) -> None:
        """Silence begins, or goes on, and what is owed since then begins at these offsets, whatever was said before."""
        self.hush(partition)
        others = {tp: at for tp, at in self._silent.items() if tp.partition != partition}
        self._silent = others | dict(first)

    def silence(self, partition: int) -> dict[TP, int]:
        """First offsets of what was applied in silence."""
        return {tp: first for tp, first in self._silent.items() if tp.partition == partition}

    def speak(self, partition: int, owed: Iterable[tuple[Mapping[TP, int], list[str]]]) -> int:
        """Silence is over: its users, with the offsets from which they are owed a list, are answered beside those who
        wait, and what is theirs stays owed until then. Returns how many there are.
        """
        users = 0
        for offsets, names in owed:
            if names:
                ticket = self._ticket()
                self._debts[ticket] = _Debt(offsets, holds=len(names))
                self._backlog.append(_Chunk(ticket, partition, names[::-1]))
                users += len(names)
        self.quiet.discard(partition)
        self._silent = {tp: first for tp, first in self._silent.items() if tp.partition != partition}
        return users

    def defer(self, w: Waiting) -> Waiting:
        """A user who was taken is owed the list instead: the ticket is free, the debt is not."""
        if w.ticket in self._debts:
            return w
        batch = self._batches[w.ticket]
        if batch.debt is None:
            batch.debt = self._ticket()
            self._debts[batch.debt] = _Debt({batch.tp: batch.first}, batch)
        self._debts[batch.debt].holds += 1
        debt = batch.debt
        self.done(w.ticket)
        return w._replace(ticket=debt)

    def owed(self) -> dict[TP, int]:
        """First offset of every partition from which events may be applied, durable and committed, but unanswered."""
        out = dict(self._silent)
        for debt in self._debts.values():
            for tp, first in debt.owed.items():
                out[tp] = min(first, out.get(tp, first))
        return out

    @property
    def backlog(self) -> int:
        """Users who are owed a list since a silence that is over."""
        return sum(len(chunk.users) for chunk in self._backlog)

    def _owe(self, ticket: int) -> None:
        debt = self._debts.get(ticket)
        offsets = debt.owed if debt is not None else {self._batches[ticket].tp: self._batches[ticket].first}
        for tp, first in offsets.items():
            self._silent[tp] = min(first, self._silent.get(tp, first))

    def _take_owed(self, n: int) -> list[Waiting]:
        out: list[Waiting] = []
        while self._backlog and len(out) < n:
            chunk = self._backlog[0]
            w = Waiting(chunk.partition, chunk.users.pop(), chunk.ticket, None)
            if not chunk.users:
                self._backlog.popleft()
            other = self._waiting.pop(w.key, None)
            out.append(w if other is None else self.one(w, other))
        return out

    # Offsets

    def committable(self) -> dict[TP, int]:
        """Next offset of every partition, up to which all is applied, and answered or owed."""
        while self._batches:
            ticket, batch = next(iter(self._batches.items()))
            if ticket in self._open:
                break
            del self._batches[ticket]
            self._done[batch.tp] = batch.next_offset
        return dict(self._done)

    def forget(self, partitions: set[int]) -> None:
        """Partitions were given up: what was not committed, or is owed, their new owner reads or finds."""
        for key in [key for key in self._waiting if key[0] in partitions]:
            self.done(self._waiting.pop(key).ticket)
        for w in [w for w in self._asking if w.partition in partitions]:
            self.done(w.ticket)
        self._asking = deque(w for w in self._asking if w.partition not in partitions)
        for chunk in [chunk for chunk in self._backlog if chunk.partition in partitions]:
            self.done(chunk.ticket, len(chunk.users))
        self._backlog = deque(chunk for chunk in self._backlog if chunk.partition not in partitions)
        for debt in self._debts.values():  # whose lists are under way
            if any(tp.partition in partitions for tp in debt.owed):
                debt.owed, debt.of = {}, None
        self._silent = {tp: first for tp, first in self._silent.items() if tp.partition not in partitions}
        self.quiet -= partitions
        self._since.update(dict.fromkeys(partitions, self._next))
        self._batches = OrderedDict((t, b) for t, b in self._batches.items() if b.tp.partition not in partitions)
        self._done = {tp: offset for tp, offset in self._done.items() if tp.partition not in partitions}
