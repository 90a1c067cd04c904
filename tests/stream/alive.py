"""A catalogue that changes while lists are made from it: the worker's own serving, without a broker.

Queries arrive at an even rate, and a thread of its own, as a worker's device thread is, answers them in micro-batches
of all that are due. A query's wait is from the moment at which it was due, so that whatever holds the thread up counts
for everybody behind it. Records are handed over as followers bring them.

    python -m tests.stream.alive --seconds 60 --changes 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import msgspec
import numpy as np
from aiokafka import TopicPartition
from numpy.typing import NDArray

from index.config import IndexConfig
from model.catalog import Item
from model.encoder import TextEncoder
from model.history import Histories, item_hashes
from stream.lists.building import Served
from stream.lists.indexes import Indexes
from stream.lists.serving import Serving, leave_a_core
from stream.process.monitor import Monitor
from stream.process.worker import SWITCH_S, calm_collector
from stream.trends import Trends, TrendsConfig

RATE = 200
USERS, MET = 512, 20
LIST, SOUGHT = 10, 100
MOST = 64
"""Queries of a micro-batch."""
KINDS = 300
PART = 500
"""Records that a follower brings at a time."""
AROUND_S = 10.0
"""How far from a swap a query counts as near to it."""


class Record(NamedTuple):
    """What a follower brings."""

    key: bytes
    value: bytes | None
    offset: int


class Words(TextEncoder):
    """Vectors of texts that share words are near to each other; no BERT."""

    @property
    def dim(self) -> int:
        return 32

    def weights_id(self) -> str:
        return "words"

    def _forward(self, texts: list[str]) -> NDArray[np.float32]:
        seeds = np.array([[crc32(word.encode()) for word in text.split()[:4]] for text in texts], np.uint32)
        angles = seeds[:, :, None] * np.arange(1, self.dim + 1, dtype=np.float64)
        vectors = np.sin(angles).sum(1).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def item(number: int, edition: int = 0, in_stock: bool = True) -> Item:
    """Of a kind, with words of its own."""
    kind = f"kind{number % KINDS}"
    title = f"{kind} {kind} item{number} edition{edition}"
    return Item(f"i{number}", title, categories=[kind], price=float(number % 90 + edition), in_stock=in_stock)


@dataclass
class Change:
    """What is said at once. withdrawn, sold_out: items that no list may hold from then on."""

    items: list[Item]
    withdrawn: list[str]

    @property
    def sold_out(self) -> set[str]:
        return {i.item for i in self.items if not i.in_stock}

    def records(self, first: int) -> list[Record]:
        """As in the catalogue's topic."""
        values = [(i.item, msgspec.json.encode(i)) for i in self.items] + [(name, None) for name in self.withdrawn]
        return [Record(name.encode(), value, first + n) for n, (name, value) in enumerate(values)]


def change(items: int, share: float, number: int) -> Change:
    """Of so many items this share: a quarter each is added, gets another text and price, is withdrawn, is sold out.

    number: another one for each change of a run, so that items change once.
    """
    rng = np.random.default_rng(7)
    quarter = int(items * share / 4)
    old = rng.permutation(items)[3 * quarter * number : 3 * quarter * (number + 1)]
    texts, withdrawn, stock = (part.tolist() for part in old.reshape(3, quarter))
    added = range(items + quarter * number, items + quarter * (number + 1))
    said = [item(n) for n in added] + [item(n, 1) for n in texts] + [item(n, in_stock=False) for n in stock]
    return Change(said, [f"i{n}" for n in withdrawn])


class Answer(NamedTuple):
    """A query: when it was due and began, how long it waited, its list."""

    due: float
    began: float
    wait: float
    items: list[str]


@dataclass
class Asking:
    """Queries on a thread."""

    serving: Serving
    histories: Histories
    answers: list[Answer] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            leave_a_core()
            self._ask()
        except BaseException as error:
            self.errors.append(error)

    def _ask(self) -> None:
        rng, asked, start = np.random.default_rng(3), 0, time.monotonic()
        while not self._stop.is_set():
            due = start + asked / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            began = time.monotonic()
            count = min(MOST, 1 + int((began - due) * RATE))
            lists = made(self.serving.current.first, self.histories.take(rng.integers(0, USERS, count)))
            ended = time.monotonic()
            for n, names in enumerate(lists):
                at = start + (asked + n) / RATE
                self.answers.append(Answer(at, began, ended - at, names))
            asked += count


def made(served: Served, h: Histories) -> list[list[str]]:
    """The lists of a micro-batch, with reasons, as `Recommender` makes them; profiles are not at hand."""
    engine, online = served.engine, served.online
    fused = engine.encode(h, [np.zeros((0, served.profile_dim), np.float32)] * len(h))
    followers = engine.followers(h, online)
    candidates = engine.candidates(h, fused, served.search, online, SOUGHT, followers)
    ranked = engine.rank(h, fused, candidates, online, LIST, True, followers)
    return [[served.catalog.ids[row] for row in one.items] for one in ranked]


def people(items: int) -> Histories:
    """What users have met: most of it of one kind."""
    rng = np.random.default_rng(5)
    hashes = item_hashes([f"i{n}" for n in range(items)])
    kind = rng.integers(0, KINDS, (USERS, 1)) + KINDS * rng.integers(0, items // KINDS, (USERS, MET))
    met = hashes[np.where(rng.random((USERS, MET)) < 0.7, kind, rng.integers(0, items, (USERS, MET)))]
    times = np.broadcast_to(1_000 * np.arange(MET, dtype=np.int64), (USERS, MET)).copy()
    return Histories(
        met,
        np.full((USERS, MET), 2, np.uint8),
        times,
        np.ones((USERS, MET), np.float32),
        np.full(USERS, MET, np.int32),
        np.zeros(0, np.uint32),
        np.zeros(USERS + 1, np.int64),
    )


@dataclass
class Lived:
    """What happened: swaps by their moments, with what was true from then on."""

    answers: list[Answer]
    errors: list[BaseException]
    swaps: list[float]
    gone: list[tuple[float, set[str]]]
    served: Served

    def forbidden(self) -> list[str]:
        """Items in lists that were begun after the swap that took them away."""
        return [
            name for answer in self.answers for since, names in self.gone if answer.began > since
            for name in answer.items if name in names
        ]  # fmt: skip

    def p999(self) -> tuple[float, float]:
        """Seconds, 99.9% of queries wait no longer: near to a swap, and at other times."""
        due, wait = np.array([a.due for a in self.answers]), np.array([a.wait for a in self.answers])
        near = (np.abs(due[:, None] - np.array(self.swaps)) <= AROUND_S).any(1)
        return float(np.quantile(wait[near], 0.999)), float(np.quantile(wait[~near], 0.999))


async def live(folder: Path, items: int, share: float, changes: int, quiet_s: float, turn_s: float = SWITCH_S) -> Lived:
    """So many changes of a share each, with a quiet time before, between and behind them."""
    indexes = Indexes(IndexConfig(), "cpu", folder / "indexes")
    serving = Serving(Words(), Trends(TrendsConfig()), "cpu", indexes, "catalog", Monitor())
    tp, offset = TopicPartition("catalog", 0), items
    serving.on_catalog(tp, Change([item(n) for n in range(items)], []).records(0))
    upkeep = asyncio.ensure_future(serving.run(lambda: True))
    before = sys.getswitchinterval()
    try:
        await serving.ready.wait()
        calm_collector()
        sys.setswitchinterval(turn_s)
        with Asking(serving, people(items)) as asking:
            await asyncio.sleep(1)
            asking.answers.clear()
            swaps: dict[int, float] = {}
            watching = asyncio.ensure_future(watch(serving, swaps))
            await asyncio.sleep(quiet_s)
            gone: list[tuple[float, set[str]]] = []
            for number in range(changes):
                said = change(items, share, number)
                records = said.records(offset)
                offset += len(records)
                for first in range(0, len(records), PART):
                    serving.on_catalog(tp, records[first : first + PART])
                    await asyncio.sleep(0.001)
                while offset not in swaps and not asking.errors:
                    await asyncio.sleep(0.01)
                gone.append((swaps.get(offset, 0.0), {*said.withdrawn, *said.sold_out}))
                await asyncio.sleep(quiet_s)
            watching.cancel()
        return Lived(asking.answers, asking.errors, list(swaps.values()), gone, serving.current.first)
    finally:
        sys.setswitchinterval(before)
        upkeep.cancel()
        serving.close()


async def watch(serving: Serving, swaps: dict[int, float]) -> None:
    """When each version of the catalogue was swapped in; for ever."""
    version = serving.current.catalog.version
    while True:
        await asyncio.sleep(0.002)
        if serving.current.catalog.version != version:
            version = serving.current.catalog.version
            swaps[version] = time.monotonic()


def main(arguments: Sequence[str] | None = None) -> None:
    """A longer run by hand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--changes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30, help="quiet time before, between and behind changes")
    parser.add_argument("--turn-ms", type=float, default=1e3 * SWITCH_S, help="how long a thread may keep Python")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        lived = asyncio.run(live(Path(folder), args.items, args.share, args.changes, args.seconds, args.turn_ms / 1e3))
    near, other = lived.p999()
    waits = np.array([a.wait for a in lived.answers])
    told = {
        "queries": len(lived.answers),
        "errors": len(lived.errors),
        "withdrawn_in_lists": len(lived.forbidden()),
        "swaps": len(lived.swaps),
        "p50_ms": round(float(np.median(waits)) * 1e3, 2),
        "p999_near_swaps_ms": round(near * 1e3, 2),
        "p999_other_ms": round(other * 1e3, 2),
        "ratio": round(near / other, 2),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
