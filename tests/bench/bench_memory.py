"""Memory: resident bytes a user, and how memory grows under a steady load.

`bytes_per_user` is RSS(users) - RSS(0) of one worker process, 20 distinct events a user, seen sets capped at 64.
It is the worker without the part that makes lists (no catalogue, no profiles; torch is loaded all the same):
`--by ingest` sends the events, each user's in four sessions of five, so that rows move up through their size
classes as they do in life, and the room they leave is in the figure; `--by restore` restores rows from a changelog.
Items are few in the first, so that trends, which grow by pairs of items and not by users, are not in it.

`slope_mb_per_min` is fitted to the RSS of a real `eddyline worker`, lists and all, under a steady load of users
whose rows are full: what still grows, leaks. The last line is JSON.

    make bench NAME=memory ARGS="--minutes 0"     # bytes a user only; --users 0: the slope only
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model.catalog import Item
from stream.kafka import topics
from stream.kafka.clients import KafkaConfig
from stream.publishing import publish_items
from stream.settings import Settings, load
from tests.bench import common, rows
from tests.bench.common import Place, Worker

SESSIONS, SESSION = 4, 5
FEW_ITEMS = 200
SETTLE_S = 10.0
FULL = 320
"""Events after which a row's history and its seen set are full."""
CAPPED = {"EDDYLINE_STATE__SEEN_CAP": "64"}


def main() -> None:
    """Measure both, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--by", choices=["ingest", "restore"], default="ingest")
    parser.add_argument("--minutes", type=float, default=30, help="of steady load, for the slope")
    parser.add_argument("--warm-up", type=float, default=2, help="minutes of the same load before")
    parser.add_argument("--rate", type=int, default=500, help="events a second, for the slope")
    parser.add_argument("--load-users", type=int, default=2_000, help="users of the steady load")
    parser.add_argument("--profile", type=Path, help="draw the worker's flame graph, as rows come, to this SVG")
    args = parser.parse_args()
    result: dict[str, Any] = {"bench": "memory"}
    with common.place() as at:
        if args.users:
            result |= per_user(at, args.users, args.by, args.profile)
        if args.minutes:
            result |= slope(at, args)
    common.report("memory", ["what", "value"], [[name, f"{value}"] for name, value in result.items()][1:], result)


# Bytes a user


def per_user(at: Place, users: int, by: str, flame: Path | None) -> dict[str, Any]:
    """RSS with `users` less RSS with none, by user."""
    few = resting(at, "none", 0, "restore", None)
    many = resting(at, "all", users, by, flame)
    return {
        "bytes_per_user": round((many - few) / users),
        "users": users,
        "by": by,
        "rss_0_mb": round(few / 1e6, 1),
        "rss_users_mb": round(many / 1e6, 1),
    }


def resting(at: Place, name: str, users: int, by: str, flame: Path | None) -> int:
    """RSS of a worker that has taken in its users and has nothing more to do."""
    environ = common.bench_environ(at, name, f"{name}.clicks", f"{name}.output")
    environ |= {**CAPPED, "BENCH_ROW": "newest"}
    with common.told(f"preparing {users:,} users by {by}"):
        settings = asyncio.run(rows.prepare(environ, users if by == "restore" else 0))
    worker = Worker([sys.executable, "-m", "tests.bench.eddyline_ingest"], environ, at.folder / f"{name}.log", flame)
    try:
        with common.told("taking them in"):
            marks = asyncio.run(common.marks(worker, Path(environ["BENCH_MARKS"]), "restored"))
            if by == "ingest":
                asyncio.run(taken_in(settings.kafka, worker, environ, users))
            elif marks["restored"].rows != users:
                raise SystemExit(f"restored {marks['restored'].rows} of {users} users")
            time.sleep(SETTLE_S)  # the last commit, and what it needed beside the rows
        return worker.rss()
    finally:
        worker.kill()


async def taken_in(kafka: KafkaConfig, worker: Worker, environ: Mapping[str, str], users: int) -> None:
    """Send every user's events, a session at a time, and wait until all are answered."""
    rng = np.random.default_rng(1)
    first = rng.integers(0, FEW_ITEMS, users)
    now = int(time.time() * 1000) - 10_000_000
    sending = asyncio.ensure_future(
        common.watch_file(worker, Path(environ["BENCH_PROGRESS"]), users * SESSION * SESSIONS)
    )
    for session in range(SESSIONS):
        who = np.repeat(rng.permutation(users), SESSION)
        step = session * SESSION + np.tile(np.arange(SESSION), users)
        times = now + session * 1_000_000 + np.arange(len(who))
        await common.publish(kafka, environ["BENCH_INPUT"], who, (first[who] + step) % FEW_ITEMS, times)
    await sending


# The slope


def slope(at: Place, args: argparse.Namespace) -> dict[str, Any]:
    """MB a minute, fitted to the RSS of a whole worker under a steady load."""
    environ = {**common.bench_environ(at, "steady", "steady.clicks", "steady.output"), **CAPPED}
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    asyncio.run(catalogue(settings))
    worker = Worker([sys.executable, "-m", "stream.console.cli", "worker"], environ, at.folder / "steady.log", None)
    try:
        with common.told("filling the rows, and warming up"):
            asyncio.run(filled(settings, environ, args.load_users))
            asyncio.run(steady(settings, worker, environ, args.load_users, args.rate, args.warm_up))
        with common.told(f"{args.minutes:g} minutes of {args.rate} events a second"):
            seen = asyncio.run(steady(settings, worker, environ, args.load_users, args.rate, args.minutes))
    finally:
        worker.kill()
    minutes, mb = np.array(seen).T
    return {
        "slope_mb_per_min": round(float(np.polyfit(minutes, mb, 1)[0]), 3),
        "minutes": args.minutes,
        "rate": args.rate,
        "rss_first_mb": round(float(mb[0]), 1),
        "rss_last_mb": round(float(mb[-1]), 1),
    }


async def catalogue(settings: Settings) -> None:
    """Topics, and some items."""
    inputs = settings.input.names
    await topics.create(settings.kafka, topics.specs(settings.topics, inputs, settings.state.name), 1)
    items = [Item(f"i{number}", f"a thing called {number}") for number in range(FEW_ITEMS)]
    await publish_items(settings.kafka, settings.topics.catalog, items)


async def filled(settings: Settings, environ: Mapping[str, str], users: int) -> None:
    """As many events as fill every row."""
    n = users * FULL
    rng = np.random.default_rng(3)
    times = int(time.time() * 1000) - n + np.arange(n)
    who, what = rng.permutation(np.repeat(np.arange(users), FULL)), rng.integers(0, FEW_ITEMS, n)
    await common.publish(settings.kafka, environ["BENCH_INPUT"], who, what, times)


async def steady(
    settings: Settings, worker: Worker, environ: Mapping[str, str], users: int, rate: int, minutes: float
) -> list[tuple[float, float]]:
    """Keep a rate of events for some minutes; (minutes, RSS in MB) every second."""
    rng, began = np.random.default_rng(), time.monotonic()
    seen: list[tuple[float, float]] = []
    for second in range(max(2, round(60 * minutes))):
        await asyncio.sleep(max(0.0, began + second - time.monotonic()))
        worker.check()
        seen.append(((time.monotonic() - began) / 60, worker.rss() / 1e6))
        times = np.full(rate, int(time.time() * 1000))
        who, what = rng.integers(0, users, rate), rng.integers(0, FEW_ITEMS, rate)
        await common.publish(settings.kafka, environ["BENCH_INPUT"], who, what, times)
    return seen


if __name__ == "__main__":
    main()
