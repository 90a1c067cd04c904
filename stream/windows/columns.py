"""The store behind the window table: rows of users as columns.

A row is one user of one partition: a ring of the newest interactions, the items that fell off it,
and `applied`, the last offset of every input topic that the row has taken in. Nothing here decides
what belongs into a window (`stream.windows.window` does), and nothing here speaks to Kafka.

Rings are blocks of 4 to H interactions and move up as they fill, so that a light user stays small. An interaction
takes 17 bytes: its item, its time, and the number of its (action, weight), of which there are few. No Python object
is kept per row or interaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from model.history import Histories, spans
from model.online import NO_TIME
from stream.windows.blocks import Blocks, grown, runs
from stream.windows.seen import Numbers, SeenSets
from stream.windows.users import Users

RING_SIZES = (4, 8, 12, 20, 32, 52, 84, 136, 220, 356, 576, 932, 1508, 2440, 3948)
"""Each is the sum of the two before it: a fifth of a ring is unused on average, and few rows move in a batch."""

NEVER = NO_TIME


class Newest(NamedTuple):
    """The newest interaction of each of n rows; time is the smallest i64 where a row has none."""

    time: np.ndarray
    action: np.ndarray
    item: np.ndarray


class Columns:
    """All rows that this worker owns. Row numbers are stable while a row lives, and reused after.

    Args:
        topics: names of the input topics; a row's `applied` follows their order.
        history: interactions kept per user (H).
        seen_cap: items remembered beyond the history. Past it the smallest hashes stay: a subset that does not
            depend on the order of arrival.
        ttl_ms: what a user did before a pause of more than this is forgotten; None = nothing is.
        lateness_ms: how much later than newer ones an event may come; a row is idle when it is that much older still.
    """

    def __init__(
        self,
        topics: Sequence[str],
        history: int = 128,
        seen_cap: int = 2048,
        ttl_ms: int | None = None,
        lateness_ms: int = 0,
    ) -> None:
        self.topics = tuple(topics)
        self.history = history
        self.ttl_ms = ttl_ms
        self.idle_ms = ttl_ms + lateness_ms if ttl_ms is not None else None
        self.watermark: dict[int, int] = {}
        """partition -> the greatest event time that was applied to it."""
        self._users = Users()
        self._seen = SeenSets(seen_cap)
        self._ring = Blocks(
            [*(size for size in RING_SIZES if size < history), history],
            {"item": np.uint64, "time": np.int64, "kind": np.uint8},
        )
        self._kinds = {0: 0}  # action and weight -> their number; 0 is that of room never written
        self._action, self._weight = np.zeros(1, np.uint8), np.zeros(1, np.float32)
        self._numbers = Numbers()
        self.partition = np.zeros(0, np.int32)  # -1 = no row
        self.count = np.zeros(0, np.int64)  # interactions ever put into the ring; the oldest is overwritten
        self.applied = np.zeros((0, len(self.topics)), np.int64)
        self.dirty = np.zeros(0, bool)

    # Rows and users

    def rows(self, partition: int, users: Iterable[str]) -> np.ndarray:
        """i64[n]: the row of each user, made where there is none yet."""
        names = users if isinstance(users, list) else list(users)
        rows = self._users.find(partition, names)
        missing = np.flatnonzero(rows < 0).tolist()
        if missing:
            new = dict.fromkeys(names[i] for i in missing)  # the same new user may come twice
            made = self._new_rows(partition, list(new))
            numbers = dict(zip(new, made.tolist(), strict=True))
            rows[missing] = [numbers[names[i]] for i in missing]
        return rows

    def row(self, partition: int, user: str) -> int | None:
        row = self._users.row(partition, user)
        return row if row >= 0 else None

    def name(self, row: int) -> str:
        """The user of a row."""
        return self._users.encoded(row).decode()

    def encoded(self, rows: np.ndarray) -> list[bytes]:
        """The users of rows i64[n], as UTF-8."""
        return self._users.all_encoded(rows)

    def joined(self, rows: np.ndarray) -> tuple[bytes, np.ndarray]:
        """`encoded`, one name after the other, and their lengths i64[n]."""
        return self._users.joined(rows)

    def of(self, partition: int, first: int = 0, end: int | None = None) -> np.ndarray:
        """i64[n]: the rows of a partition, of these numbers only, ascending."""
        return first + np.flatnonzero(self.partition[first:end] == partition)

    def partitions(self) -> list[int]:
        """Partitions of which there are rows, ascending."""
        return np.unique(self.partition[self.partition >= 0]).tolist()

    def idle(self, partition: int, rows: np.ndarray) -> np.ndarray:
        """bool[n]: rows of a partition that have been idle for so long that they count as gone."""
        if self.idle_ms is None:
            return np.zeros(len(rows), bool)
        return self.newest(rows).time < self.watermark.get(partition, NEVER) - self.idle_ms

    @property
    def users(self) -> dict[int, dict[str, int]]:
        """partition -> user -> row: an object for every row, for tools and tests."""
        return {
            partition: {name.decode(): row for name, row in zip(self.encoded(rows), rows.tolist(), strict=True)}
            for partition in self.partitions()
            for rows in [self.of(partition)]
        }

    def __len__(self) -> int:
        return len(self._users)

    def _new_rows(self, partition: int, names: Sequence[str]) -> np.ndarray:
        rows = self._numbers.take(len(names))
        end = self._numbers.end
        self.partition, self.count = grown(self.partition, end, -1), grown(self.count, end)
        self.applied, self.dirty = grown(self.applied, end), grown(self.dirty, end)
        for part in (self._users, self._seen, self._ring):
            part.reserve(end)
        self._users.add(partition, rows, names)
        self._ring.take(rows, np.zeros(len(rows), np.int64))
        self.partition[rows] = partition
        self.count[rows] = 0
        self.applied[rows] = -1
        self.dirty[rows] = False
        return rows

    def drop_partition(self, partition: int) -> None:
        """Forget all rows of a partition: another worker owns it now, or it is restored anew."""
        self.drop(self.of(partition))
        self.watermark.pop(partition, None)

    def drop(self, rows: np.ndarray) -> None:
        """Forget distinct rows."""
        if len(rows):
            self._users.remove(rows)
            self._seen.drop(rows)
            self._ring.give_back(rows)
            self.partition[rows] = -1
            self.dirty[rows] = False
            self._numbers.give_back(rows)

    def clear(self, rows: np.ndarray) -> None:
        """Forget what distinct rows hold, but not which offsets they have taken in."""
        self._seen.drop(rows)
        self.count[rows] = 0

    # The ring

    def newest(self, rows: np.ndarray) -> Newest:
        """The newest interaction of each row."""
        count = self.count[rows]
        at = self._ring.starts(rows) + self._place(np.maximum(count, 1) - 1)
        item, time, kind = (self._ring.data[name][at] for name in ("item", "time", "kind"))
        return Newest(np.where(count > 0, time, NEVER), self._action[kind], item)

    def make_room(self, rows: np.ndarray, more: np.ndarray) -> None:
        """Move distinct rows up until `more` interactions fit, or the largest class is reached."""
        held = self.count[rows]
        wanted = self._ring.fitting(np.minimum(held + more, self.history))
        moving = np.flatnonzero(wanted > self._ring.classes(rows))
        if len(moving):
            self._ring.resize(rows[moving], wanted[moving], np.minimum(held[moving], self.history))

    def append(self, rows: np.ndarray, ordinals: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Scatter n interactions to their ordinals in the rows' rings; what they overwrite goes to the seen set.

        `rows` i64[n] with repeats, `ordinals` i64[n] = the row's count before + rank in this call, ascending. Room was
        made, and no row takes more than its capacity in one call.
        """
        at = self._ring.starts(rows) + self._place(ordinals)
        full = np.flatnonzero(ordinals >= self.history)
        if len(full):
            self.remember(rows[full], self._ring.data["item"][at[full]])
        self._write(at, values)
        # A row's ordinals ascend, so the last assignment to it is its greatest.
        self.count[rows] = ordinals + 1

    def read(self, row: int) -> dict[str, np.ndarray]:
        """Copies of one row's interactions, oldest first."""
        count = self.count.item(row)
        ordinals = np.arange(max(0, count - self.history), count)
        return self._read(self._ring.start(row) + self._place(ordinals))

    def before(self, rows: np.ndarray, ordinals: np.ndarray, steps: int) -> np.ndarray:
        """u64[n, steps]: the items at the `steps` ordinals before each given one, nearest first; 0 = none."""
        return self._before(rows, ordinals, steps, "item", np.uint64(0))

    def times_before(self, rows: np.ndarray, ordinals: np.ndarray, steps: int) -> np.ndarray:
        """i64[n, steps]: when these were, ms; the smallest i64 = none."""
        return self._before(rows, ordinals, steps, "time", np.int64(NEVER))

    def _before(self, rows: np.ndarray, ordinals: np.ndarray, steps: int, name: str, none: np.generic) -> np.ndarray:
        wanted = ordinals[:, None] - np.arange(1, steps + 1)
        # An ordinal older than the ring's oldest has been overwritten by a younger one.
        valid = wanted >= np.maximum(self.count[rows] - self.history, 0)[:, None]
        at = self._ring.starts(rows)[:, None] + self._place(wanted)
        held = self._ring.data[name].take(at, mode="clip") if len(rows) else np.zeros(at.shape, none.dtype)
        held[~valid] = none
        return held

    def _place(self, ordinals: np.ndarray) -> np.ndarray:
        """Where ordinals are in a ring. Only the largest wraps: the others move up before they are full."""
        if self.history & (self.history - 1) == 0:
            return ordinals & (self.history - 1)
        return ordinals % self.history

    def _write(self, at: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        kinds = self._kinds_of(values["action"], values["weight"])
        self._ring.data["item"][at] = values["item"]
        self._ring.data["time"][at] = values["time"]
        self._ring.data["kind"][at] = kinds

    def _read(self, at: np.ndarray) -> dict[str, np.ndarray]:
        data = self._ring.data
        kind = data["kind"][at]
        return {
            "item": data["item"][at],
            "action": self._action[kind],
            "time": data["time"][at],
            "weight": self._weight[kind],
        }

    def _kinds_of(self, actions: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The number of each (action, weight). Weights come from settings, by action, so there are few."""
        both = actions.astype(np.uint64) << np.uint64(32) | np.ascontiguousarray(weights, np.float32).view(np.uint32)
        distinct, which = (both[:1], None) if (both == both[:1]).all() else np.unique(both, return_inverse=True)
        for one in distinct.tolist():
            if one not in self._kinds:
                self._kinds[one] = len(self._kinds)
                self._action = np.append(self._action, np.uint8(one >> 32))
                self._weight = np.append(self._weight, np.array([one & 0xFFFFFFFF], np.uint32).view(np.float32))
                wide = np.min_scalar_type(len(self._kinds) - 1)
                if wide.itemsize > self._ring.data["kind"].itemsize:
                    self._ring.data["kind"] = self._ring.data["kind"].astype(wide)
        numbers = np.array([self._kinds[one] for one in distinct.tolist()], self._ring.data["kind"].dtype)
        return numbers if which is None else numbers[which]

    # The seen set

    def remember(self, rows: np.ndarray, items: np.ndarray) -> None:
        """Add the 4-byte hashes of items u64[n] to the seen sets of rows i64[n], in which equal rows lie together."""
        if len(rows):
            self._seen.add(rows, items.astype(np.uint32))

    def seen(self, row: int) -> np.ndarray:
        """u32[s]: the items beyond the history, ascending, distinct, at most `seen_cap`."""
        return self._seen.get(row)

    def seen_as_kept(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """u32[m]: copies of what is kept of the sets of rows i64[n], one after the other, and their lengths i64[n].
        `seen_set` of each part is the row's `seen`.
        """
        return self._seen.as_kept(rows)

    def seen_set(self, kept: np.ndarray) -> np.ndarray:
        return self._seen.sorted_out(kept)

    def has_seen(self, rows: np.ndarray) -> np.ndarray:
        """bool[n]: which rows have items beyond the history."""
        return self._seen.having(rows)

    # Reading and writing many rows

    def histories(self, rows: np.ndarray, seen: bool = True) -> Histories:
        """Copies of rows as `Histories`: left-padded columns, the newest at index -1."""
        n = len(rows)
        count = self.count[rows]
        lengths = np.minimum(count, self.history)
        width = int(lengths.max(initial=0))
        ordinals = count[:, None] - width + np.arange(width)
        valid = np.arange(width) >= width - lengths[:, None]
        out = self._read(np.where(valid, self._ring.starts(rows)[:, None] + self._place(ordinals), 0))
        for column in out.values():
            column[~valid] = 0
        sets: list[np.ndarray] = []
        sizes = np.zeros(n + 1, np.int64)
        for i in np.flatnonzero(self.has_seen(rows)).tolist() if seen else ():
            sets.append(self.seen(int(rows[i])))
            sizes[i + 1] = len(sets[-1])
        return Histories(
            items=out["item"],
            actions=out["action"],
            times=out["time"],
            weights=out["weight"],
            lengths=lengths.astype(np.int32),
            seen=np.concatenate(sets) if sets else np.zeros(0, np.uint32),
            seen_offsets=np.cumsum(sizes),
        )

    def interactions(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Copies of the interactions of rows i64[n], one row after the other, each oldest first; and their lengths."""
        count = self.count[rows]
        lengths = np.minimum(count, self.history)
        ordinals = spans(count - lengths, lengths)
        return self._read(np.repeat(self._ring.starts(rows), lengths) + self._place(ordinals)), lengths

    def put(self, rows: np.ndarray, lengths: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Replace the interactions of distinct rows i64[n]: `lengths` i64[n] of each at most H, `values` one after the
        other, oldest first.
        """
        self.count[rows] = 0
        self.make_room(rows, lengths)
        self.count[rows] = lengths
        self._write(spans(self._ring.starts(rows), lengths), values)

    def put_seen(self, row: int, items: np.ndarray) -> None:
        """Replace one seen set by u32[s], ascending, not empty."""
        self._seen.put(row, items[: self._seen.cap])

    def drop_seen(self, rows: np.ndarray) -> None:
        """Forget the seen sets of distinct rows."""
        self._seen.drop(rows)

    def moved_on(self, partition: int, time: int) -> None:
        """Events up to this time were applied to a partition."""
        self.watermark[partition] = max(time, self.watermark.get(partition, NEVER))

    def dirty_rows(self, partition: int) -> np.ndarray:
        rows = np.flatnonzero(self.dirty)
        return rows[self.partition[rows] == partition]

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, names included."""
        own = sum(column.nbytes for column in (self.partition, self.count, self.applied, self.dirty))
        return own + self._users.nbytes + self._seen.nbytes + self._ring.nbytes


def by_group(values: np.ndarray) -> np.ndarray:
    """i64[n] that puts equal values i64[n] together, ascending, each group in the order it came.

    Values are below 2^40 and n below 2^23: value and place make one word, and words sort five times as fast as
    places do by their values.
    """
    if len(values) < 2:
        return np.arange(len(values))
    bits = max(len(values) - 1, 1).bit_length()
    words = np.sort((values << bits) | np.arange(len(values)))
    return words & ((1 << bits) - 1)


def rank_in_run(values: np.ndarray) -> np.ndarray:
    """Position of each element within its run of equal ones."""
    starts, lengths = runs(values)
    return np.arange(len(values)) - np.repeat(starts, lengths)
