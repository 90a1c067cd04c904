"""What data sets bring that nobody meant: repeated clicks, bots, mis-clicks, bulk imports; put into what is learned.

Not a protocol and not a way to get rid of it. Events are only added, and before the test begins: the questions stay
what they were, item by item, since nobody is given one that they meet themselves. Repeats are put into the test's
events as well, where they are part of histories and, being of what was met, no questions. Where validation lies within
what is learned, its questions are as noisy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from model.dataset import Events
from model.evaluation.exams import Method, World
from model.evaluation.protocols import evaluate
from model.evaluation.running import Progress
from model.evaluation.tables import Table
from model.history import ACTION_CODE

CLICK = ACTION_CODE["click"]
SECOND = 1000
REPEATED = "repeated"
BOT_EVENTS = 500
BULK = 100
"""Items of one import."""


class UnknownNoiseError(ValueError):
    """A name that no noise has."""


@dataclass(frozen=True, eq=False)
class Known:
    """What noise is made from: the events that are learned, as codes (users, items i64[n]; actions u8[n]; times i64[n],
    ms, ascending), how often each item is met f64[N], and whether a user meets it, ever, bool[U,N].
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    actions: NDArray[np.uint8]
    times: NDArray[np.int64]
    often: NDArray[np.float64]
    met: NDArray[np.bool_]


Drawn = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Users, items, actions, times. A user's code beyond those that are known is a new user."""


def _repeated(k: Known, n: int, rng: np.random.Generator) -> Drawn:
    """The same click again, one to five seconds later."""
    at = rng.integers(len(k.times), size=n)
    return k.users[at], k.items[at], k.actions[at], k.times[at] + rng.integers(SECOND, 5 * SECOND, n)


def _bots(k: Known, n: int, rng: np.random.Generator) -> Drawn:
    """New users who click at a beat of their own, half a second to twenty, kept to within a tenth: one item that is to
    be seen, in turn with popular ones.
    """
    bot = np.arange(n) // BOT_EVENTS
    bots = bot.max(initial=0) + 1
    own = rng.integers(len(k.often), size=bots)
    popular = rng.choice(len(k.often), n, p=k.often / k.often.sum())
    items = np.where(np.arange(n) % 2 == 0, own[bot], popular)
    beat = SECOND * np.exp(rng.uniform(np.log(0.5), np.log(20), bots))
    begin = rng.uniform(k.times[0], np.maximum(k.times[-1] - BOT_EVENTS * beat, k.times[0]))
    beats = np.arange(n) % BOT_EVENTS + rng.uniform(-0.1, 0.1, n)
    times = (begin[bot] + beats * beat[bot]).astype(np.int64)
    return len(k.met) + bot, items, np.full(n, CLICK, np.uint8), times


def _misclicks(k: Known, n: int, rng: np.random.Generator) -> Drawn:
    """A click on whatever lies near, one to five seconds after one that was meant."""
    at = rng.integers(len(k.times), size=n)
    items = _strangers(k, k.users[at], np.ones(len(k.often)), rng)
    return k.users[at], items, np.full(n, CLICK, np.uint8), k.times[at] + rng.integers(SECOND, 5 * SECOND, n)


def _bulk(k: Known, n: int, rng: np.random.Generator) -> Drawn:
    """Users who bring a hundred popular items from elsewhere, all in the second of something that they did."""
    load = rng.integers(len(k.times), size=-(-n // BULK))[np.arange(n) // BULK]
    items = _strangers(k, k.users[load], k.often, rng)
    return k.users[load], items, np.full(n, CLICK, np.uint8), k.times[load]


NOISES: Mapping[str, Callable[[Known, int, np.random.Generator], Drawn]] = MappingProxyType(
    {REPEATED: _repeated, "bots": _bots, "misclicks": _misclicks, "bulk": _bulk}
)


def noisy(events: Events, end: int, kind: str, share: float, seed: int = 0) -> tuple[Events, NDArray[np.int64]]:
    """Events with noise, in time order, and where each of the true ones is now, i64[n].

    Put in are `share` times as many events as the first `end`, all of them before event `end`. Raises
    UnknownNoiseError.
    """
    if kind not in NOISES:
        raise UnknownNoiseError(f"no noise {kind!r}: use one of {', '.join(NOISES)}")
    n = round(share * end)
    names, users = np.unique(events.user.astype(str), return_inverse=True)
    ids, items = np.unique(events.item.astype(str), return_inverse=True)
    met = np.zeros((len(names), len(ids)), bool)
    met[users, items] = True
    often = np.bincount(items[:end], minlength=len(ids)).astype(np.float64)
    known = Known(users[:end], items[:end], events.action[:end], events.ts[:end], often, met)
    rng = np.random.default_rng(seed)
    who, what, action, times = NOISES[kind](known, n, rng)
    latest = events.ts[end] - 1 if end < len(events) else events.ts[-1]
    new = [f"bot {b}" for b in range(int(who.max(initial=-1)) + 1 - len(names))]
    both = Events(
        np.concatenate([events.user, np.array([*names.tolist(), *new], object)[who]]),
        np.concatenate([events.item, np.array(ids.tolist(), object)[what]]),
        np.concatenate([events.action, action]),
        np.concatenate([events.ts, np.minimum(times, latest)]),
        np.concatenate([events.value, np.full(n, np.nan, np.float32)]),
    )
    order = np.argsort(both.ts, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return both.take(order), place[: len(events)]


def tables(
    world: World,
    methods: Callable[[World], Sequence[Method]],
    kind: str,
    shares: Sequence[float],
    splits: tuple[float, float, float],
    k: int | None = None,
    tune: bool = True,
    progress: Callable[[str], Progress] | None = None,
) -> dict[float, Table]:
    """`temporal` without noise, at share 0, and with each share of it: the same questions, answered by methods that
    have learned the noise. methods: makes them anew for each world.
    """
    found = {}
    for share in (0.0, *(s for s in shares if s)):
        end = len(world.events) if kind == REPEATED else round(splits[1] * len(world.events))
        events, place = noisy(world.events, end, kind, share, world.seed)
        begin, test = (int(place[round(s * len(place))]) / len(events) for s in splits[:2])
        put = replace(world, events=events)
        rows = evaluate(put, "temporal", methods(put), (begin, test, 1.0), k, tune, progress, ["temporal"])
        found[share] = rows["temporal"][0]
    return found


def _strangers(
    k: Known, users: NDArray[np.int64], weight: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each of these users an item that they never meet, drawn by weight f64[N]; any where they meet all."""
    found = rng.choice(len(weight), len(users), p=weight / weight.sum())
    for _ in range(50):
        again = np.flatnonzero(k.met[users, found])
        if not len(again):
            break
        found[again] = rng.choice(len(weight), len(again), p=weight / weight.sum())
    return found
