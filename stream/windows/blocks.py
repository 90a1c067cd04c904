"""Blocks of several sizes in one arena: rows of any length as flat columns, dense and movable.

A handle (a number of the caller's) has one block of `sizes[k]` elements of every column, beginning at `starts(handle)`
in each of the flat arrays. Blocks of one size lie one after the other in pages of their own, without holes: where
one is given back, the last of its size moves into its place, and a page that becomes empty serves any size. So
memory follows what is in use, however rows grow and go, and one index reaches rows of every size.

What is in a block, and who the handles are, is the caller's affair.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from model.history import spans

PAGE = 1 << 14
"""Elements in a page, at least."""
GROWTH = 16
"""An arena grows by one part in so many: what it holds in reserve is small, and growing is remapping, not copying."""


class Blocks:
    """An arena of blocks.

    Args:
        sizes: elements of a block, by class, ascending.
        columns: name -> dtype of what an element is.

    `data[name]` is a flat column. It is resized in place: never keep a view of it over a call.
    """

    def __init__(self, sizes: Sequence[int], columns: Mapping[str, Any]) -> None:
        self.sizes = np.array(sizes, np.int64)
        self._shift = (max(PAGE, 8 * sizes[-1]) - 1).bit_length()
        self._per_page = (1 << self._shift) // self.sizes
        self.data: dict[str, np.ndarray] = {name: np.zeros(0, dtype) for name, dtype in columns.items()}
        self._start = np.zeros(0, np.uint32)
        # By page: its class (-1 = free), and its number among those of the class.
        self._class = np.zeros(0, np.int8)
        self._rank = np.zeros(0, np.int32)
        self._free: list[int] = []
        # By class: its pages in their order, how many blocks are in use, and whose they are.
        self._pages: list[list[int]] = [[] for _ in sizes]
        self._used = [0] * len(sizes)
        self._members = [np.zeros(0, np.int32) for _ in sizes]

    def reserve(self, handles: int) -> None:
        """Handles are below this number from now on."""
        self._start = grown(self._start, handles)

    def starts(self, handles: np.ndarray) -> np.ndarray:
        """i64[n]: where the blocks of handles i64[n] begin."""
        return self._start[handles].astype(np.int64)

    def start(self, handle: int) -> int:
        """`starts` of one handle."""
        return self._start.item(handle)

    def classes(self, handles: np.ndarray) -> np.ndarray:
        """i8[n]: the class of each handle's block."""
        return self._class[self._start[handles] >> np.uint32(self._shift)]

    def fitting(self, lengths: np.ndarray) -> np.ndarray:
        """i64[n]: the smallest class that holds so many elements."""
        return np.searchsorted(self.sizes, lengths)

    def take(self, handles: np.ndarray, classes: np.ndarray) -> None:
        """Blocks for distinct handles that have none; what is in them is arbitrary."""
        for k in set(classes.tolist()):
            self._take(handles[classes == k], k)

    def give_back(self, handles: np.ndarray) -> None:
        """The blocks of distinct handles are no longer needed."""
        self._give_back(self.starts(handles))
        self._trim()

    def resize(self, handles: np.ndarray, classes: np.ndarray, kept: np.ndarray) -> None:
        """Blocks of other classes for distinct handles; the first `kept` i64[n] elements of each move along."""
        old = self.starts(handles)
        self.take(handles, classes)
        source, target = spans(old, kept), spans(self.starts(handles), kept)
        for column in self.data.values():
            column[target] = column[source]
        self._give_back(old)
        self._trim()

    @property
    def nbytes(self) -> int:
        columns = sum(column.nbytes for column in self.data.values())
        return columns + self._start.nbytes + sum(members.nbytes for members in self._members)

    def _take(self, handles: np.ndarray, k: int) -> None:
        used, per = self._used[k], int(self._per_page[k])
        after, pages = used + len(handles), self._pages[k]
        while len(pages) * per < after:
            pages.append(self._take_page(k, len(pages)))
        self._members[k] = grown(self._members[k], after)
        self._members[k][used:after] = handles
        places, first = np.arange(used, after), used // per
        page = np.array(pages[first:] or [0], np.int64)[places // per - first]
        self._start[handles] = (page << self._shift) + places % per * self.sizes[k]
        self._used[k] = after

    def _take_page(self, k: int, rank: int) -> int:
        if not self._free:
            old = len(self._class)
            self._fit(old + max(4, old // GROWTH))
            self._free = list(range(old, len(self._class)))
        page = heapq.heappop(self._free)
        self._class[page], self._rank[page] = k, rank
        return page

    def _fit(self, pages: int) -> None:
        """Room for so many pages. In place: a copy would need the room twice, and takes long."""
        if (pages << self._shift) > np.iinfo(np.uint32).max:
            raise MemoryError("too many rows in one worker: spread the partitions over more workers")
        for name in self.data:
            # Unchecked: numpy would count references, and refuse under a profiler. There are no views (see above).
            self.data[name].resize(pages << self._shift, refcheck=False)
        old = len(self._class)
        self._class.resize(pages, refcheck=False)
        self._rank.resize(pages, refcheck=False)
        self._class[old:] = -1

    def _give_back(self, starts: np.ndarray) -> None:
        pages = starts >> self._shift
        classes = self._class[pages]
        for k in set(classes.tolist()):
            here = classes == k
            inside = starts[here] & ((1 << self._shift) - 1)
            ranks = self._rank[pages[here]].astype(np.int64)
            self._close(k, starts[here], ranks * self._per_page[k] + inside // self.sizes[k])

    def _close(self, k: int, starts: np.ndarray, places: np.ndarray) -> None:
        """Blocks at these places among those of a class go; the last ones of the class fill what they leave."""
        used = self._used[k] = self._used[k] - len(places)
        members = self._members[k]
        stays = np.ones(len(places), bool)
        stays[places[places >= used] - used] = False
        movers = members[used : used + len(places)][stays]
        if len(movers):
            holes = places < used
            every = np.arange(self.sizes[k])
            source = self.starts(movers)[:, None] + every
            target = starts[holes][:, None] + every
            for column in self.data.values():
                column[target] = column[source]
            self._start[movers] = starts[holes]
            members[places[holes]] = movers
        pages, per = self._pages[k], int(self._per_page[k])
        while (len(pages) - 1) * per >= used and pages:
            self._class[pages[-1]] = -1
            heapq.heappush(self._free, pages.pop())
        if len(members) > 1024 + 2 * used:
            self._members[k] = members[:used].copy()

    def _trim(self) -> None:
        """Let go of memory when most pages are free; those at the end move to the front."""
        pages = len(self._class)
        needed = pages - len(self._free)
        if pages < 16 or 2 * needed > pages:
            return
        keep = needed + max(4, needed // GROWTH)
        for page in (np.flatnonzero(self._class[keep:] >= 0) + keep).tolist():
            self._move_page(page, heapq.heappop(self._free))
        self._free = [page for page in self._free if page < keep]
        heapq.heapify(self._free)
        self._fit(keep)

    def _move_page(self, old: int, new: int) -> None:
        k, rank, per = int(self._class[old]), int(self._rank[old]), int(self._per_page[self._class[old]])
        size = 1 << self._shift
        for column in self.data.values():
            column[new * size : (new + 1) * size] = column[old * size : (old + 1) * size]
        handles = self._members[k][rank * per : min((rank + 1) * per, self._used[k])]
        self._start[handles] = self.starts(handles) + (new - old) * size
        self._pages[k][rank] = new
        self._class[new], self._rank[new], self._class[old] = k, rank, -1


def runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal values begins, and how long it is."""
    n = len(values)
    if n < 2:  # most batches, where few events come at a time
        return np.arange(n), np.ones(n, np.int64)
    edge = np.ones(n + 1, bool)
    np.not_equal(values[1:], values[:-1], out=edge[1:-1])
    at = edge.nonzero()[0]
    return at[:-1], at[1:] - at[:-1]


def grown(column: np.ndarray, size: int, fill: int = 0) -> np.ndarray:
    """`column` with room for `size` along its first axis, and some beyond; itself where it has that."""
    if size <= len(column):
        return column
    more = np.empty((max(256, size + size // 8), *column.shape[1:]), column.dtype)
    more[: len(column)] = column
    more[len(column) :] = fill
    return more
