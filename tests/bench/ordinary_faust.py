"""The ingest job as Faust's documentation would have it: a table, an agent, one send an event. Run by bench_ingest."""

from __future__ import annotations

import asyncio
import os

import faust

NAME, BROKER = os.environ["BENCH_NAME"], os.environ["BENCH_BROKER"]
PARTITIONS, WINDOW = int(os.environ["BENCH_PARTITIONS"]), 32


class Event(faust.Record):
    """One click."""

    user: str
    item: str
    ts: int


app = faust.App(
    NAME,
    broker=f"kafka://{BROKER}",
    store="memory://",
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    consumer_auto_offset_reset="earliest",
    datadir=os.environ["BENCH_FOLDER"],
    web_enabled=False,
)
clicks = app.topic(os.environ["BENCH_INPUT"], key_type=str, value_type=Event)
output = app.topic(os.environ["BENCH_OUTPUT"], key_type=str)
windows = app.Table("windows", default=list, partitions=PARTITIONS)


@app.agent(clicks)
async def update(stream: faust.Stream[Event]) -> None:
    """Put each click into its user's window, and say the window."""
    async for event in stream:
        window = windows[event.user]
        window.append([event.item, event.ts])
        del window[:-WINDOW]
        windows[event.user] = window
        await output.send(key=event.user, value=window)


async def main() -> None:
    """Run until killed."""
    await app.start()
    await asyncio.Event().wait()


asyncio.run(main())
