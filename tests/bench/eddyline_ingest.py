"""The ingest job as eddyline does it, with one output an event instead of one list a user. Run by bench_ingest.

Everything is the worker's own (transport, decoding, windows, trends, fenced changelogs, commits), but for
what follows a batch: here each event is answered with its user's window.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable

import numpy as np
from aiokafka import AIOKafkaProducer
from faust.types import TP

from stream import window
from stream.app import faust_app
from stream.events import Events
from stream.ingest import Ingest
from stream.kafka.batches import Record, plain, send
from stream.kafka.changelog import Changelog
from stream.monitor import Monitor
from stream.settings import load
from stream.state import State
from stream.trends import Trends
from stream.worker import calm_collector

WINDOW = 32


class OutputEach(Ingest):
    """Answers every event with the newest items of its user's window."""

    def _answer(self, ticket: int, tp: TP, events: Events, applied: window.Applied, arrived: float) -> None:
        self._state.progress.hold(ticket)
        columns = self._state.columns
        rows = columns.rows(tp.partition, events.users)
        windows = np.ascontiguousarray(columns.before(rows, columns.count[rows], WINDOW))
        whole, size = windows.tobytes(), 8 * WINDOW
        records = plain(map(str.encode, events.users), [whole[at : at + size] for at in range(0, len(whole), size)])
        task = asyncio.ensure_future(self._written(ticket, tp, records))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _written(self, ticket: int, tp: TP, records: Iterable[Record]) -> None:
        await asyncio.gather(*await send(self._producer, os.environ["BENCH_OUTPUT"], tp.partition, records))
        self._state.answered(ticket)


async def main() -> None:
    """Run until killed."""
    s = load()
    topics, name = s.topics, s.state.name
    inputs = list(s.input.topics.values())
    state = State(
        s.state,
        inputs,
        Trends(s.trends),
        Changelog(s.kafka, topics.named(name)),
        topics.windows(name),
        topics.trends(name),
    )
    producer = AIOKafkaProducer(**s.kafka.producer())
    await producer.start()
    ingest = OutputEach(s.input, state, producer, topics.dead_letters, s.group, Monitor(), lambda: None)
    app = faust_app(s, int(os.environ["BENCH_PARTITIONS"]), state, ingest.agent)
    state.bind(app)
    await app.start()
    calm_collector()
    await asyncio.Event().wait()


asyncio.run(main())
