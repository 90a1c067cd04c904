"""The store behind the window table: rows of users as columns, in size classes.

A row is one user of one partition: a ring of the newest interactions, the items that fell off it,
and `applied`, the last offset of every input topic that the row has taken in. Nothing here decides
what belongs into a window (`stream.window` does), and nothing here speaks to Kafka.

Rows live in numpy pools of 8, 32 and 128 interactions and move up as they fill, so that a light
user stays small. A Python object is kept per row (its user), none per interaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from model.history import Histories

RING_CLASSES = (8, 32, 128)
SEEN_CLASSES = (64, 512)
SEEN_SLACK = 0.5
"""Room beyond the cap of the seen set, as a share of it: it is sorted out once per so many additions."""

_RING = {"item": np.uint64, "action": np.uint8, "time": np.int64, "weight": np.float32}


class Pool:
    """Fixed-capacity slots of several columns, `[slots, capacity]` each; grown by doubling."""

    def __init__(self, capacity: int, columns: dict[str, Any]) -> None:
        self.capacity = capacity
        self.columns = {name: np.zeros((0, capacity), dtype) for name, dtype in columns.items()}
        self._free: list[int] = []
        self._size = 0

    def take(self, n: int) -> np.ndarray:
        """n slots; their content is arbitrary."""
        if n > len(self._free):
            self._grow(n - len(self._free))
        taken = self._free[len(self._free) - n :]
        del self._free[len(self._free) - n :]
        return np.array(taken, np.int32)

    def give_back(self, slots: np.ndarray) -> None:
        self._free.extend(slots.tolist())

    @property
    def nbytes(self) -> int:
        return sum(column.nbytes for column in self.columns.values())

    def _grow(self, n: int) -> None:
        size = max(64, self._size + n, 2 * self._size)
        for name, column in self.columns.items():
            grown = np.zeros((size, self.capacity), column.dtype)
            grown[: self._size] = column
            self.columns[name] = grown
        self._free.extend(range(size - 1, self._size - 1, -1))
        self._size = size


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
    """

    def __init__(self, topics: Sequence[str], history: int = 128, seen_cap: int = 2048) -> None:
        self.topics = tuple(topics)
        self.history = history
        self.seen_cap = seen_cap
        self.users: dict[int, dict[str, int]] = {}
        self.names: list[str] = []
        self._free: list[int] = []
        sizes = [c for c in RING_CLASSES if c < history] + [history]
        self.rings = [Pool(c, _RING) for c in sizes]
        seen = [c for c in SEEN_CLASSES if c < seen_cap] + [seen_cap + max(1, int(seen_cap * SEEN_SLACK))]
        self.seen_pools = [Pool(c, {"item": np.uint32}) for c in seen]
        self._allocate(0)

    def _allocate(self, rows: int) -> None:
        self.partition = np.zeros(rows, np.int32)
        self.ring = np.zeros(rows, np.int8)
        self.slot = np.zeros(rows, np.int32)
        self.count = np.zeros(rows, np.int64)  # interactions ever put into the ring; the oldest is overwritten
        self.seen_pool = np.full(rows, -1, np.int8)
        self.seen_slot = np.zeros(rows, np.int32)
        self.seen_count = np.zeros(rows, np.int32)
        self.applied = np.full((rows, len(self.topics)), -1, np.int64)
        self.dirty = np.zeros(rows, bool)

    # Rows and users

    def rows(self, partition: int, users: Iterable[str]) -> np.ndarray:
        """i64[n]: the row of each user, made where there is none yet."""
        known = self.users.setdefault(partition, {})
        names = users if isinstance(users, Sequence) else list(users)
        rows = list(map(known.get, names))
        if None in rows:
            for i in [i for i, row in enumerate(rows) if row is None]:
                user = names[i]
                if user not in known:  # the same new user may come twice
                    known[user] = self._new_row(partition, user)
                rows[i] = known[user]
        return np.array(rows, np.int64)

    def row(self, partition: int, user: str) -> int | None:
        return self.users.get(partition, {}).get(user)

    def __len__(self) -> int:
        return sum(map(len, self.users.values()))

    def _new_row(self, partition: int, user: str) -> int:
        if not self._free:
            self._grow_rows()
        row = self._free.pop()
        self.names[row] = user
        self.partition[row] = partition
        self.ring[row] = 0
        self.slot[row] = self.rings[0].take(1)[0]
        self.count[row] = 0
        self.seen_pool[row] = -1
        self.seen_count[row] = 0
        self.applied[row] = -1
        self.dirty[row] = False
        return row

    def _grow_rows(self) -> None:
        old = len(self.partition)
        new = max(1024, 2 * old)
        kept = {
            name: getattr(self, name)
            for name in (
                ["partition", "ring", "slot", "count", "seen_pool", "seen_slot", "seen_count", "applied", "dirty"]
            )
        }
        self._allocate(new)
        for name, column in kept.items():
            getattr(self, name)[:old] = column
        self.names.extend([""] * (new - old))
        self._free.extend(range(new - 1, old - 1, -1))

    def drop_partition(self, partition: int) -> None:
        """Forget all rows of a partition: another worker owns it now, or it is restored anew."""
        for row in self.users.pop(partition, {}).values():
            self._free_row(row)

    def drop(self, partition: int, user: str) -> None:
        row = self.users.get(partition, {}).pop(user, None)
        if row is not None:
            self._free_row(row)

    def _free_row(self, row: int) -> None:
        self.rings[self.ring[row]].give_back(self.slot[row : row + 1])
        if self.seen_pool[row] >= 0:
            self.seen_pools[self.seen_pool[row]].give_back(self.seen_slot[row : row + 1])
        self.names[row] = ""
        self.dirty[row] = False
        self._free.append(row)

    # The ring

    def newest(self, rows: np.ndarray) -> Newest:
        """The newest interaction of each row."""
        n = len(rows)
        out = Newest(np.full(n, np.iinfo(np.int64).min), np.zeros(n, np.uint8), np.zeros(n, np.uint64))
        count = self.count[rows]
        for ring, pool in enumerate(self.rings):
            at = np.flatnonzero((self.ring[rows] == ring) & (count > 0))
            if len(at):
                where = self.slot[rows[at]], (count[at] - 1) % pool.capacity
                out.time[at] = pool.columns["time"][where]
                out.action[at] = pool.columns["action"][where]
                out.item[at] = pool.columns["item"][where]
        return out

    def make_room(self, rows: np.ndarray, more: np.ndarray) -> None:
        """Move distinct rows up until `more` interactions fit, or the largest class is reached."""
        need = np.minimum(self.count[rows] + more, self.history)
        sizes = np.array([pool.capacity for pool in self.rings])
        wanted = np.searchsorted(sizes, need)
        for old in range(len(self.rings) - 1):
            for new in range(old + 1, len(self.rings)):
                moving = rows[(self.ring[rows] == old) & (wanted == new)]
                if len(moving):
                    self._move(moving, old, new)

    def _move(self, rows: np.ndarray, old: int, new: int) -> None:
        source, target = self.rings[old], self.rings[new]
        slots = target.take(len(rows))
        for name, column in source.columns.items():
            target.columns[name][slots, : source.capacity] = column[self.slot[rows]]
        source.give_back(self.slot[rows])
        self.ring[rows] = new
        self.slot[rows] = slots

    def append(self, rows: np.ndarray, ordinals: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Scatter n interactions to their ordinals in the rows' rings; what they overwrite goes to the seen set.

        `rows` i64[n] with repeats, `ordinals` i64[n] = the row's count before + rank in this call, ascending. Room was
        made, and no row takes more than its capacity in one call.
        """
        full = np.flatnonzero(ordinals >= self.history)
        if len(full):
            largest = self.rings[-1]
            gone = largest.columns["item"][self.slot[rows[full]], ordinals[full] % largest.capacity]
            self.remember(rows[full], gone)
        for ring, pool in enumerate(self.rings):
            at = np.flatnonzero(self.ring[rows] == ring)
            if len(at):
                where = self.slot[rows[at]], ordinals[at] % pool.capacity
                for name, column in pool.columns.items():
                    column[where] = values[name][at]
        # A row's ordinals ascend, so the last assignment to it is its greatest.
        self.count[rows] = ordinals + 1

    def read(self, row: int) -> dict[str, np.ndarray]:
        """Copies of one row's interactions, oldest first."""
        pool = self.rings[self.ring[row]]
        count = int(self.count[row])
        length = min(count, pool.capacity)
        at = np.arange(count - length, count) % pool.capacity
        return {name: column[self.slot[row], at] for name, column in pool.columns.items()}

    def before(self, rows: np.ndarray, ordinals: np.ndarray, steps: int) -> np.ndarray:
        """u64[n, steps]: the items at the `steps` ordinals before each given one, nearest first; 0 = none."""
        out = np.zeros((len(rows), steps), np.uint64)
        wanted = ordinals[:, None] - np.arange(1, steps + 1)
        for ring, pool in enumerate(self.rings):
            at = np.flatnonzero(self.ring[rows] == ring)
            if len(at):
                kept = wanted[at]
                # An ordinal older than the ring's oldest has been overwritten by a younger one.
                valid = (kept >= 0) & (kept >= (self.count[rows[at]] - pool.capacity)[:, None])
                items = pool.columns["item"][self.slot[rows[at]][:, None], kept % pool.capacity]
                out[at] = np.where(valid, items, 0)
        return out

    # The seen set

    def remember(self, rows: np.ndarray, items: np.ndarray) -> None:
        """Add the 4-byte hashes of items u64[n] to the seen sets of rows i64[n], in which equal rows lie together."""
        hashes = items.astype(np.uint32)
        starts, more = runs(rows)
        distinct = rows[starts]
        caps = np.array([0, *(pool.capacity for pool in self.seen_pools)])[self.seen_pool[distinct] + 1]
        crowded = self.seen_count[distinct] + more > caps
        if crowded.any():
            for row, start, n in zip(
                distinct[crowded].tolist(), starts[crowded].tolist(), more[crowded].tolist(), strict=True
            ):
                both = np.concatenate([self._stored(row), hashes[start : start + n]])
                self._put_seen(row, np.unique(both)[: self.seen_cap])
            kept = np.repeat(~crowded, more)
            rows, hashes, distinct, more = rows[kept], hashes[kept], distinct[~crowded], more[~crowded]
        places = self.seen_count[rows] + rank_in_run(rows)
        for number, pool in enumerate(self.seen_pools):
            at = self.seen_pool[rows] == number
            pool.columns["item"][self.seen_slot[rows[at]], places[at]] = hashes[at]
        self.seen_count[distinct] += more.astype(np.int32)

    def seen(self, row: int) -> np.ndarray:
        """u32[s]: the items beyond the history, ascending, distinct, at most `seen_cap`."""
        return np.unique(self._stored(row))[: self.seen_cap]

    def _stored(self, row: int) -> np.ndarray:
        """What was added since the set was last sorted out is behind the rest, with repeats."""
        pool = int(self.seen_pool[row])
        if pool < 0:
            return np.zeros(0, np.uint32)
        return self.seen_pools[pool].columns["item"][self.seen_slot[row], : self.seen_count[row]]

    def _put_seen(self, row: int, items: np.ndarray) -> None:
        """Replace one seen set, in the smallest class with room for one more."""
        pool = next(i for i, p in enumerate(self.seen_pools) if len(items) < p.capacity)
        if self.seen_pool[row] != pool:
            if self.seen_pool[row] >= 0:
                self.seen_pools[self.seen_pool[row]].give_back(self.seen_slot[row : row + 1])
            self.seen_slot[row] = self.seen_pools[pool].take(1)[0]
            self.seen_pool[row] = pool
        self.seen_pools[pool].columns["item"][self.seen_slot[row], : len(items)] = items
        self.seen_count[row] = len(items)

    # Reading and writing many rows

    def histories(self, rows: np.ndarray, seen: bool = True) -> Histories:
        """Copies of rows as `Histories`: left-padded columns, the newest at index -1."""
        n = len(rows)
        caps = np.array([pool.capacity for pool in self.rings])[self.ring[rows]]
        lengths = np.minimum(self.count[rows], caps)
        width = int(lengths.max(initial=0))
        out: dict[str, Any] = {name: np.zeros((n, width), dtype) for name, dtype in _RING.items()}
        ordinals = self.count[rows][:, None] - width + np.arange(width)
        valid = np.arange(width) >= width - lengths[:, None]
        for ring, pool in enumerate(self.rings):
            at = np.flatnonzero(self.ring[rows] == ring)
            if len(at):
                slots = self.slot[rows[at]][:, None]
                for name, column in pool.columns.items():
                    taken = column[slots, ordinals[at] % pool.capacity]
                    out[name][at] = np.where(valid[at], taken, 0)
        sets = [self.seen(int(row)) for row in rows] if seen else []
        offsets = np.zeros(n + 1, np.int64)
        if sets:
            np.cumsum([len(s) for s in sets], out=offsets[1:])
        return Histories(
            items=out["item"],
            actions=out["action"],
            times=out["time"],
            weights=out["weight"],
            lengths=lengths.astype(np.int32),
            seen=np.concatenate(sets) if sets else np.zeros(0, np.uint32),
            seen_offsets=offsets,
        )

    def put(self, rows: np.ndarray, lengths: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Replace the interactions of distinct rows i64[n]: `lengths` i64[n] of each at most H, `values` one after the
        other, oldest first.
        """
        self.count[rows] = 0
        self.make_room(rows, lengths)
        self.count[rows] = lengths
        starts = np.cumsum(lengths) - lengths
        for ring, pool in enumerate(self.rings):
            at = np.flatnonzero(self.ring[rows] == ring)
            slots = np.repeat(self.slot[rows[at]], lengths[at])
            place = np.arange(len(slots)) - np.repeat(np.cumsum(lengths[at]) - lengths[at], lengths[at])
            taken = np.repeat(starts[at], lengths[at]) + place
            for name, column in pool.columns.items():
                column[slots, place] = values[name][taken]

    def put_seen(self, row: int, items: np.ndarray) -> None:
        """Replace one seen set by u32[s], ascending."""
        if len(items) or self.seen_pool[row] >= 0:
            self._put_seen(row, items[: self.seen_cap])

    def dirty_rows(self, partition: int) -> np.ndarray:
        rows = np.flatnonzero(self.dirty)
        return rows[self.partition[rows] == partition]

    @property
    def nbytes(self) -> int:
        """Bytes of all columns, without the users' names."""
        pools = sum(pool.nbytes for pool in [*self.rings, *self.seen_pools])
        return pools + self.applied.nbytes + 27 * len(self.partition)


def by_group(values: np.ndarray) -> np.ndarray:
    """i64[n] that puts equal values i64[n] together, ascending, each group in the order it came.

    Values are below 2^40 and n below 2^23: value and place make one word, and words sort five times as fast as
    places do by their values.
    """
    bits = max(len(values) - 1, 1).bit_length()
    words = np.sort((values << bits) | np.arange(len(values)))
    return words & ((1 << bits) - 1)


def rank_in_run(values: np.ndarray) -> np.ndarray:
    """Position of each element within its run of equal ones."""
    starts, lengths = runs(values)
    return np.arange(len(values)) - np.repeat(starts, lengths)


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal values begins, and how long it is."""
    starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]]) if len(values) else np.zeros(0, np.int64)
    return starts, np.diff(starts, append=len(values))
