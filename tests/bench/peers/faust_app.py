"""Ordinary Faust: a table, an agent, one send an event.

State: a table in memory, its changelog in Kafka, one changelog record an event (Faust has no other way).
Offsets are committed by Faust's own timer. Faust reads and writes JSON with orjson where it is installed.
With BENCH_MARKS set it tells there when its partitions were assigned and when its table was restored.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time

import faust

WINDOW = 32


class Event(faust.Record):
    """One click."""

    user: str
    item: str
    ts: int


app = faust.App(
    os.environ["BENCH_NAME"],
    broker=f"kafka://{os.environ['BENCH_BROKER']}",
    store="memory://",
    topic_partitions=int(os.environ["BENCH_PARTITIONS"]),
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    datadir=os.environ["BENCH_FOLDER"],
    web_enabled=False,
)
clicks = app.topic(os.environ["BENCH_INPUT"], key_type=str, value_type=Event)
output = app.topic(os.environ["BENCH_OUTPUT"], key_type=str)
windows = app.Table("windows", default=list, partitions=int(os.environ["BENCH_PARTITIONS"]))


@app.agent(clicks)
async def update(stream: faust.Stream[Event]) -> None:
    """Put each click into its user's window, and say the window."""
    async for event in stream:
        window = windows[event.user]
        window.append(event.item)
        del window[:-WINDOW]
        windows[event.user] = window
        await output.send(key=event.user, value=window)


def mark(name: str) -> None:
    """Tell when something happened: seconds, and CPU-seconds of this process."""
    if path := os.environ.get("BENCH_MARKS"):
        used = resource.getrusage(resource.RUSAGE_SELF)
        line = {"mark": name, "at": time.monotonic(), "cpu": used.ru_utime + used.ru_stime, "rows": len(windows)}
        with open(path, "a") as file:
            file.write(json.dumps(line) + "\n")


@app.on_partitions_assigned.connect()
async def assigned(*args: object, **kwargs: object) -> None:
    """The restore begins."""
    mark("assigned")


@windows.on_recover
async def restored() -> None:
    """The restore has ended."""
    mark("restored")


async def main() -> None:
    """Run until killed."""
    await app.start()
    await asyncio.Event().wait()


asyncio.run(main())
