"""`eddyline release`: models into workers. They are made in `training.py`, and compared in `evaluating.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.common import Bootstrap, Json, out, run, settings

release = typer.Typer(help="The model that workers serve.", no_args_is_help=True)


@release.command()
def announce(
    folder: Annotated[str, typer.Argument(help="A model folder, where every worker can read it.")],
    kafka: Bootstrap = None,
    name: Annotated[str | None, typer.Option(help="The model's name in recommendations; default: its parts.")] = None,
) -> None:
    """Announce a model: running workers take it up. Example: eddyline release announce models/1"""
    from pathlib import Path

    from model import checkpoint
    from stream.lists.release import announce as announce_release

    s = settings(kafka)
    path = Path(folder)
    model = checkpoint.load(path)
    done = run(announce_release(s.kafka, s.topics.release, path, model.metrics, name))
    out.print(f"{done.model}@{done.version} announced from {done.location}")


@release.command()
def show(kafka: Bootstrap = None, as_json: Json = False) -> None:
    """Show the release that workers serve. Example: eddyline release show"""
    import json

    import msgspec

    from stream.lists.release import current

    s = settings(kafka)
    found = run(current(s.kafka, s.topics.release))
    if as_json:
        out.print_json(json.dumps(msgspec.to_builtins(found)))
    elif found is None:
        out.print("none: workers serve the fallback")
    else:
        out.print(f"{found.model}@{found.version} from {found.location}, {found.metrics}", highlight=False)


@release.command()
def withdraw(kafka: Bootstrap = None) -> None:
    """Withdraw the release: workers return to the fallback. Example: eddyline release withdraw"""
    from stream.lists.release import withdraw as withdraw_release

    s = settings(kafka)
    run(withdraw_release(s.kafka, s.topics.release))
    out.print("withdrawn: workers return to the fallback")
