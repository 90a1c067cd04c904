"""`eddyline backfill` as a user starts it, but for two things that a bench needs. Run by `bench_backfill`.

It takes nothing in before the file BENCH_GATE is there, so that all who share a backfill begin together; and it tells
in BENCH_PROGRESS how many events it has taken in.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faust.types import TP

from stream.console.cli import main
from stream.ingest import Ingest

GATE = Path(os.environ["BENCH_GATE"])
PROGRESS = os.open(os.environ["BENCH_PROGRESS"], os.O_WRONLY | os.O_CREAT)

_agent, _batch = Ingest.agent, Ingest.batch


async def agent(self: Ingest, stream: Any) -> None:
    while not GATE.exists():
        await asyncio.sleep(0.01)
    await _agent(self, stream)


def batch(self: Ingest, tp: TP, records: Sequence[Any]) -> None:
    _batch(self, tp, records)
    os.pwrite(PROGRESS, b"%020d" % self._monitor.events, 0)


Ingest.agent, Ingest.batch = agent, batch

if __name__ == "__main__":
    main()
