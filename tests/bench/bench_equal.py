"""Equal: a state that lived through events, and those that were read anew from them, row by row and count by count.

A worker lives through the events as they are published; a tenth of most users' come late, and a tenth come again. Then
one backfill, killed twice and started again, and one of three workers at once read them anew, and `eddyline verify`
compares both with what was lived through. With `--share 0` none is late or repeated, users keep to a topic, and counts
of pairs must be equal, too. `--data completejourney` (below EDDYLINE_DATA), or any other data set, takes the place of
generated events. The last line is JSON.

    make bench NAME=equal
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from model.dataset import Events
from model.datasets import load as load_data
from stream.folders import cache_folder
from stream.kafka import topics
from stream.kafka.clients import consumer
from stream.kafka.debts import offsets
from stream.publishing import publish
from stream.settings import Settings, load
from tests.bench import common
from tests.pipeline.histories import in_order, late_and_repeated

ITEMS = 1000
PARTS = 20
OFTEN = {"EDDYLINE_STATE__COMMIT_INTERVAL_S": "0.2", "EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "32768"}
"""So that a backfill that is to be killed has committed some, and not all."""
PATIENCE_S = 1800.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=50_000)
    parser.add_argument("--share", type=float, default=0.1, help="of events that come late, and that come again")
    parser.add_argument("--data", help="a data set in place of generated events, by name or folder")
    return parser.parse_args()


def main() -> None:
    """Live, read anew, compare."""
    args = arguments()
    if args.data:
        events = in_order(load_data(args.data, cache_folder()).events)
    else:
        events = late_and_repeated(args.events, args.users, share=args.share, items=ITEMS)
    with common.place() as at:
        place = Lives(at.address, at.folder)
        took = {"lived": place.live(events)}
        took["killed"] = place.killed_twice("killed", len(events))
        took["three"] = place.three("three")
        found = {name: place.verified(name) for name in ("killed", "three")}
    trends = bool(args.data) or args.share == 0
    same = all(_same(one, trends) for one in found.values())
    print(
        json.dumps(
            {
                "bench": "equal",
                "events": len(events),
                "users": len(set(events.user.tolist())),
                "same": same,
                "seconds": {name: round(seconds, 1) for name, seconds in took.items()},
                **{name: {k: one[k] for k in ("users", "trends", "seconds")} for name, one in found.items()},
            }
        )
    )
    sys.exit(int(not same))


def _same(found: Mapping[str, Any], trends: bool) -> bool:
    users = found["users"]
    wrong = sum(n for name, n in users.items() if name != "equal")
    return not wrong and users["equal"] > 0 and (not trends or found["trends"]["different"] == 0)


class Lives:
    """A deployment of one broker, and the versions of its state."""

    def __init__(self, address: str, folder: Path) -> None:
        self._folder = folder
        self._environ = {
            "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": address,
            "EDDYLINE_TOPICS__PREFIX": "equal.",
            "EDDYLINE_TOPICS__PARTITIONS": str(common.PARTITIONS),
            **{f"EDDYLINE_INPUT__TOPICS__{a.upper()}": f"equal.{a}" for a in ("view", "click", "buy")},
        }
        self._settings = self._of("lived")
        s = self._settings
        asyncio.run(topics.create(s.kafka, topics.specs(s.topics, s.input.names, "lived"), 1))

    def live(self, events: Events) -> float:
        """A worker lives through events that come while it works."""
        began = time.monotonic()
        s = self._settings
        worker = self._start("worker", "--state", "lived", "--role", "ingest")
        for part in np.array_split(np.arange(len(events)), PARTS):
            asyncio.run(publish(s.kafka, s.input.topics, events.take(part), lambda done, of: None))
        self._until(lambda: asyncio.run(_left(s)) == 0, worker)
        worker.terminate()
        worker.wait(60)
        return time.monotonic() - began

    def killed_twice(self, name: str, total: int) -> float:
        """A backfill that is killed at a quarter and at a half, and goes on."""
        began = time.monotonic()
        for share in (4, 2):
            worker = self._start("backfill", "--as", name, **OFTEN)
            self._until(lambda share=share: total - asyncio.run(_left(self._of(name))) > total // share, worker)
            worker.kill()
            worker.wait()
        self._end(self._start("backfill", "--as", name))
        return time.monotonic() - began

    def three(self, name: str) -> float:
        """A backfill that three share."""
        began = time.monotonic()
        for worker in [self._start("backfill", "--as", name) for _ in range(3)]:
            self._end(worker)
        return time.monotonic() - began

    def verified(self, name: str) -> dict[str, Any]:
        """What `verify` finds of a version."""
        began = time.monotonic()
        ran = subprocess.run(
            [*self._command("verify", "--as", name, "--against", "lived", "--json")],
            env=self._all(),
            capture_output=True,
            text=True,
        )
        if ran.returncode not in (0, 1):
            raise SystemExit(ran.stderr[-3000:])
        told = json.loads(ran.stdout)
        for difference in told["differences"]:
            print(json.dumps(difference), file=sys.stderr)
        return {**told, "seconds": round(time.monotonic() - began, 1)}

    def _of(self, state: str) -> Settings:
        return load({"state.name": state}, environ=self._environ)

    def _all(self) -> dict[str, str]:
        return {**os.environ, **self._environ}

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "stream.console.cli", *arguments]

    def _start(self, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
        log = self._folder / "log"
        with log.open("ab") as file:
            return subprocess.Popen(
                self._command(*arguments), env=self._all() | environ, stdout=file, stderr=file, cwd=common.ROOT
            )

    def _end(self, worker: subprocess.Popen[bytes]) -> None:
        if worker.wait(PATIENCE_S):
            raise SystemExit((self._folder / "log").read_text()[-3000:])

    def _until(self, done: Callable[[], bool], worker: subprocess.Popen[bytes]) -> None:
        """Wait until it is; a machine that is busy with other things may leave a question unanswered."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(KafkaError):
                if done():
                    return
            if worker.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((self._folder / "log").read_text()[-3000:])
            time.sleep(0.5)


async def _left(settings: Settings) -> int:
    """Offsets of the inputs that a state version has not committed."""
    found = await offsets(settings.kafka, settings.group)
    tps: list[TopicPartition] = await topics.topic_partitions(settings.kafka, settings.input.names)
    async with consumer(settings.kafka) as client:
        ends = await client.end_offsets(tps)
    return sum(end - (found[tp].offset if tp in found else 0) for tp, end in ends.items())


if __name__ == "__main__":
    main()
