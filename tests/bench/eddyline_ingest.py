"""The ingest job as eddyline does it, with outputs that ask for no catalogue. Run by the benches.

Everything is the worker's own (transport, decoding, windows, trends, fenced changelogs, commits), but for
what follows a batch. BENCH_ROW=each answers each event with the newest items of its user's window, as it is
after the event's batch; BENCH_ROW=newest answers each user of a batch once. An event counts as answered, and
its offset may be committed, when the broker has acknowledged its output. BENCH_PROGRESS has how many are.
With BENCH_MARKS set it tells there when its partitions were assigned and when its state was restored.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from collections.abc import Iterable

import numpy as np
from aiokafka import AIOKafkaProducer
from faust.types import TP

from stream.app import faust_app
from stream.events import Events
from stream.ingest import Ingest
from stream.intake import Intake
from stream.kafka.batches import Record, plain, send
from stream.process.memory import give_back
from stream.process.monitor import Monitor
from stream.process.worker import calm_collector
from stream.rekey import Rekeying, rekeyed
from stream.settings import load
from stream.state import State
from stream.trends import Trends

WINDOW = 32


class Answers(Ingest):
    """Answers with windows, by event or by touched user."""

    each = os.environ["BENCH_ROW"] == "each"
    topic = os.environ["BENCH_OUTPUT"]
    done = 0

    def _answer(self, ticket: int, tp: TP, events: Events, touched: np.ndarray, arrived: float) -> None:
        self._state.progress.hold(ticket)
        columns = self._state.columns
        if self.each:
            users: Iterable[str] = events.users
            rows = columns.rows(tp.partition, events.users)
        else:
            rows = columns.rows(tp.partition, [events.users[i] for i in touched.tolist()])
            users = [name.decode() for name in columns.encoded(rows)]
        windows = np.ascontiguousarray(columns.before(rows, columns.count[rows], WINDOW))
        whole, size = windows.tobytes(), 8 * WINDOW
        records = plain(map(str.encode, users), [whole[at : at + size] for at in range(0, len(whole), size)])
        task = asyncio.ensure_future(self._written(ticket, tp, records, len(events)))
        self._burials.add(task)
        task.add_done_callback(self._burials.discard)

    async def _written(self, ticket: int, tp: TP, records: Iterable[Record], n: int) -> None:
        await asyncio.gather(*await send(self._producer, self.topic, tp.partition, records))
        self._state.answered(ticket)
        self.done += n
        os.pwrite(PROGRESS, b"%020d" % self.done, 0)


class Nothing:
    """Knows of no lag."""

    def behind(self, tp: TP, applied: int | None) -> int | None:
        return None

    def reread(self, tp: TP, applied: int | None) -> bool:
        return True

    def committed(self, tp: TP) -> int:
        return 0


PROGRESS = os.open(os.environ["BENCH_PROGRESS"], os.O_WRONLY | os.O_CREAT)


def mark(name: str, state: State) -> None:
    """Tell when something happened: seconds, and CPU-seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    line = {"mark": name, "at": time.monotonic(), "cpu": used.ru_utime + used.ru_stime, "rows": len(state.columns)}
    with open(os.environ["BENCH_MARKS"], "a") as file:
        file.write(json.dumps(line) + "\n")


async def main() -> None:
    """Run until killed."""
    s = load(environ={name: value for name, value in os.environ.items() if name.startswith("EDDYLINE_")})
    written = s.input
    if "BENCH_REKEY" in os.environ:
        s = s.model_copy(update={"input": rekeyed(written, s.topics)})
    intake = Intake(s, Trends(s.trends), Monitor(), Nothing(), lambda: True, lambda: None)
    intake.silence.paused = False  # there is nobody here who could say so
    state = intake.state
    producer = AIOKafkaProducer(**s.kafka.producer())
    await producer.start()
    asked, dead_letters, monitor = s.topics.requests, s.topics.dead_letters, Monitor()
    ingest = Answers(
        s.input, s.emit, state, intake.debts, producer, asked, dead_letters, s.group, monitor, lambda: None
    )
    inputs = s.input.names
    app = faust_app(s, inputs, int(os.environ["BENCH_PARTITIONS"]), state, ingest.agent)
    state.bind(app)
    assigned = asyncio.Event()

    def claimed(owned: set[int]) -> None:
        if owned and not assigned.is_set():
            assigned.set()
            mark("assigned", state)

    state.on_owned = claimed
    calm_collector()
    if s.input is not written:
        rekeying = Rekeying(s.kafka, s.topics, written, int(os.environ["BENCH_PARTITIONS"]), producer)
        copying = asyncio.ensure_future(rekeying.run())
        copying.add_done_callback(lambda ended: ended.result())
    await app.start()
    await assigned.wait()
    while not app.tables.actives_ready or app.rebalancing:
        await asyncio.sleep(0.01)
    mark("restored", state)
    calm_collector()
    give_back()
    await asyncio.Event().wait()


asyncio.run(main())
