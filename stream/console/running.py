"""`eddyline worker`, `tail`, `demo`: what runs until it is stopped."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from stream.console.common import Bootstrap, Json, err, logs, out, run, settings

StatusPort = Annotated[
    int | None, typer.Option(help="Serve /health and /status on this port of 127.0.0.1; 0 takes a free one.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]


def worker(
    kafka: Bootstrap = None,
    state: Annotated[str | None, typer.Option(help="The state version to run.")] = None,
    role: Annotated[
        str | None, typer.Option(help="all; or ingest and recommend in workers of their own, to scale apart.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    shadow: Annotated[bool | None, typer.Option(help="Also write the fallback's lists to the shadow topic.")] = None,
    silent: Annotated[
        bool, typer.Option("--silent", help="Send no lists until a cut-over to this state version.")
    ] = False,
    status_port: StatusPort = None,
    verbose: Verbose = False,
) -> None:
    """Run the pipeline: events in, recommendations out. Example: eddyline worker --state v1"""
    from stream.ingest import Reading
    from stream.process.worker import Run, work

    logs(verbose)
    s = settings(kafka, role=role, state__name=state, recommend__device=device, recommend__shadow=shadow)
    raise typer.Exit(run(work(s, Run(status_port, Reading(begins_silent=silent)))))


def pause(kafka: Bootstrap = None) -> None:
    """Hold lists back on all workers; state goes on taking in events. Example: eddyline pause"""
    _say(kafka, paused=True)
    out.print("paused: state advances, and no lists are sent; go on with: eddyline resume")


def resume(kafka: Bootstrap = None) -> None:
    """Send lists again: one to every user touched meanwhile, then as ever. Example: eddyline resume"""
    _say(kafka, paused=False)
    out.print("resumed: every user touched meanwhile gets one list")


def _say(kafka: str | None, paused: bool) -> None:
    from stream.answers.control import Emission, say

    s = settings(kafka)
    run(say(s.kafka, s.topics.control, Emission(paused, int(time.time() * 1000))))


def tail(
    kafka: Bootstrap = None,
    beginning: Annotated[bool, typer.Option(help="From the earliest list that is still there.")] = False,
    count: Annotated[int | None, typer.Option("-n", help="Stop after so many.")] = None,
    as_json: Json = False,
) -> None:
    """Subscribe, and print recommendations as they come. Example: eddyline tail -n 5"""
    from stream.tail import follow

    s = settings(kafka)
    run(follow(s, beginning, count, out, as_json))


def demo(
    kafka: Bootstrap = None,
    data: Annotated[
        str, typer.Option(help="movielens-100k, complete-journey (a shop), or a folder.")
    ] = "movielens-100k",
    once: Annotated[bool, typer.Option("--once", help="End when all is shown, on a terminal too.")] = False,
    port: Annotated[int, typer.Option(help="The page's port; 0 takes a free one.")] = 0,
) -> None:
    """All of it on this machine: broker, history, live page, a model trained and released. Example: eddyline demo"""
    from stream.dev.demo import Demo

    err.print("eddyline demo: everything runs on this machine; Ctrl-C stops all of it", highlight=False)
    raise typer.Exit(Demo(settings(kafka, recommend__shadow=True), data, once, port, kafka is not None).run())
