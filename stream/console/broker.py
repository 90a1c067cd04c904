"""`eddyline broker`: a local Apache Kafka for development."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stream.console.common import Json, out, progress

if TYPE_CHECKING:
    from stream.dev.broker import LocalBroker

app = typer.Typer(help="A single-node Apache Kafka for development, on this machine only.", no_args_is_help=True)

State = Annotated[str | None, typer.Option(metavar="FOLDER", help="Where its data and logs are kept.")]


def local(state: str | None, port: int | None = None) -> LocalBroker:
    """The broker of a state folder."""
    from pathlib import Path

    from stream.dev.broker import LocalBroker
    from stream.folders import state_folder

    return LocalBroker(Path(state) if state else state_folder() / "broker", port)


@app.command()
def start(
    state: State = None,
    port: Annotated[int, typer.Option(help="The port to listen on; 0 takes a free one.")] = 9092,
) -> None:
    """Start it, or find it running. Example: eddyline broker start --port 9092"""
    broker = local(state, port or None)
    with progress("fetching Kafka") as tell:
        address = broker.start(on_progress=tell)
    out.print(address)


@app.command()
def stop(state: State = None) -> None:
    """Stop it; its data stays. Example: eddyline broker stop"""
    out.print("stopped" if local(state).stop() else "none was running")


@app.command()
def status(state: State = None, as_json: Json = False) -> None:
    """Say whether it runs, and where. Example: eddyline broker status --json"""
    import dataclasses
    import json

    found = local(state).status()
    if as_json:
        out.print_json(json.dumps(dataclasses.asdict(found), default=str))
    elif found.running:
        out.print(f"running at {found.address} (pid {found.pid}), {'answers' if found.answers else 'does not answer'}")
    else:
        out.print(f"not running; log: {found.log}")
    raise typer.Exit(0 if found.running else 1)


@app.command()
def logs(state: State = None, lines: Annotated[int, typer.Option("-n", help="How many lines.")] = 40) -> None:
    """Print the end of its log. Example: eddyline broker logs -n 100"""
    from collections import deque

    path = local(state).log_path
    if not path.exists():
        out.print(f"there is no log yet at {path}")
        raise typer.Exit(1)
    with path.open(errors="replace") as file:
        for line in deque(file, lines):
            out.print(line.rstrip(), markup=False, highlight=False)


@app.command()
def install() -> None:
    """Fetch Kafka's jars ahead of the first start. Example: eddyline broker install"""
    from stream.dev import kafka_jars
    from stream.folders import cache_folder

    with progress("fetching Kafka") as tell:
        out.print(str(kafka_jars.install(cache_folder(), tell)))
