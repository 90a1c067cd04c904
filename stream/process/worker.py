"""Runs a pipeline as a process: checks before, readiness, signals, a bounded stop, an exit code.

What the pipeline does is in `stream.app`; what a user types is in `stream.console`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from aiokafka.errors import KafkaConnectionError

from stream.ingest import Reading
from stream.kafka.clients import unavailable
from stream.process.keys import settled
from stream.process.memory import give_back
from stream.process.preflight import ready_to_start
from stream.process.status import StatusServer
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.app import Pipeline
    from stream.past import Unread

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 12.0
"""For answering and committing what was taken in, and again for closing: together below the 30 s that Kubernetes
grants. A stop that takes longer is cut short, and what was not committed is read again.
"""

SWITCH_S = 0.0001
"""How long a thread may keep Python to itself. By default it is fifty times that, for which every event, and every
acknowledgement, would wait while a list is being made; and each of the steps by which lists are made, while a catalogue
is built.
"""


@dataclass(frozen=True, slots=True)
class Run:
    """How a worker is to run.

    `status_port`: serve `/health` and `/status` there (0 = a free port, None = not at all); `reading`: what of the
    topics is read, where it is not all of them for ever; `past`: what is read before what the brokers have; `until`:
    runs beside it, and ends it when it returns.
    """

    status_port: int | None = None
    reading: Reading | None = None
    past: Unread | None = None
    until: Callable[[Pipeline], Coroutine[Any, Any, None]] | None = None


async def work(settings: Settings, run: Run) -> int:
    """Run a worker until it is told to stop, fails, or is done. Returns the exit code.

    Raises:
        BrokerUnavailable, TopicError, StateError: before anything is started.
    """
    written = settings.input
    settings = await _keyed(settings)
    partition_count = await ready_to_start(settings)
    from stream.app import Pipeline  # torch is behind it, and what is wrong with the topics is told without

    rekeyed = written is not settings.input and settings.role != "recommend"
    pipeline = Pipeline(settings, partition_count, run.reading, run.past, written if rekeyed else None)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    status = StatusServer(pipeline, run.status_port) if run.status_port is not None else None
    ends = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(_crashed(pipeline))]
    warm = asyncio.ensure_future(pipeline.warm())
    beside = [warm]
    drained = True
    try:
        await pipeline.start()
        if status is not None:
            log.info("status at %s", await status.start())
        calm_collector()
        if pipeline.outlet is not None:
            sys.setswitchinterval(SWITCH_S)
        await _first([*ends, warm])
        member = warm.done()  # or it is over before it joins the group
        if member:
            await pipeline.app.start()
            beside.append(asyncio.ensure_future(_tell_ready(pipeline)))
            if run.until is not None:
                ends.append(asyncio.ensure_future(run.until(pipeline)))
            await _first(ends)
        crashed = pipeline.failure
        if isinstance(crashed, KafkaConnectionError):  # of a client of Faust's, which says no more than that
            crashed = unavailable(settings.kafka, crashed)
        if crashed is None and member:
            log.info("stopping: finishing what was taken in")
            drained = await _within(STOP_TIMEOUT_S, pipeline.drain())
    except KafkaConnectionError as error:
        raise unavailable(settings.kafka, error) from error
    finally:
        for task in [*ends, *beside]:
            task.cancel()
        closed = await _within(STOP_TIMEOUT_S, _close(pipeline, status))
    if not drained:
        log.error("not everything was answered and committed within %.0f s; it is read again", STOP_TIMEOUT_S)
    if crashed is not None:
        log.critical("stopped by a failure: %s", crashed)
    code = getattr(crashed, "exit_code", 1) if crashed is not None else int(not drained)
    if not (drained and closed):
        _leave(code)
    return code


async def _keyed(settings: Settings) -> Settings:
    """The settings that are gone by, and a word where events are re-keyed."""
    settings, finding = await settled(settings)
    if finding.needed:
        log.info("events are re-keyed into %s: %s", settings.topics.events, finding.why)
    return settings


def calm_collector() -> None:
    """Make Python look for cycles less often, and never again among what is there now.

    Every fetched record is an object, and by default a collection follows every 700: a fifth of a worker's time or
    more, in `make bench NAME=ingest`. So it is done before events and rows come, and again when a worker is ready.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


async def _within(seconds: float, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` ended in time. What did not is left behind: with a broker away, it may not heed a cancellation."""
    task = asyncio.ensure_future(work)
    done, _ = await asyncio.wait([task], timeout=seconds)
    if done:
        task.result()
    else:
        task.cancel()
        task.add_done_callback(lambda left: left.cancelled() or left.exception())  # or asyncio tells of it at length
    return bool(done)


def _leave(code: int) -> NoReturn:
    """End at once: threads and tasks of clients still wait for a broker, and Python would wait for them."""
    log.error("the stop was cut short")
    logging.shutdown()
    os._exit(code)


async def _first(tasks: list[asyncio.Future]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _crashed(pipeline: Pipeline) -> None:
    while pipeline.failure is None:
        await asyncio.sleep(0.1)


async def _tell_ready(pipeline: Pipeline) -> None:
    while not pipeline.ready:
        await asyncio.sleep(0.05)
    calm_collector()
    give_back()  # what the restore took for a moment
    log.info("ready: %s", pipeline.describe())


async def _close(pipeline: Pipeline, status: StatusServer | None) -> None:
    if status is not None:
        await status.stop()
    await pipeline.app.stop()
    await pipeline.stop()
