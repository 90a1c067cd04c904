"""`eddyline release`: models into workers. They are made in `training.py`, and compared in `evaluating.py`."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.common import Bootstrap, Json, out, run, settings

release = typer.Typer(help="The models that workers serve.", no_args_is_help=True)
Alias = Annotated[
    str, typer.Option(metavar="NAME", help="Beside the current release, for [variants] that name it as their model.")
]


@release.command()
def announce(
    folder: Annotated[str, typer.Argument(help="A model folder, where every worker can read it.")],
    kafka: Bootstrap = None,
    name: Annotated[str | None, typer.Option(help="The model's name in recommendations; default: its parts.")] = None,
    alias: Alias = "default",
) -> None:
    """Announce a model: running workers take it up. Example: eddyline release announce models/1"""
    from pathlib import Path

    from model import checkpoint
    from stream.lists.release import announce as announce_release
    from stream.lists.variants import FALLBACK

    if alias == FALLBACK:
        raise typer.BadParameter(f"{FALLBACK} is what needs no release: choose another", param_hint="--alias")

    s = settings(kafka)
    path = Path(folder)
    model = checkpoint.load(path)
    done = run(announce_release(s.kafka, s.topics.release, path, model.metrics, name, alias))
    out.print(f"{done.name} announced from {done.location}")


@release.command()
def show(kafka: Bootstrap = None, alias: Alias = "default", as_json: Json = False) -> None:
    """Show the release that workers serve. Example: eddyline release show"""
    import json

    import msgspec

    from stream.lists.release import NAME, standing

    s = settings(kafka)
    releases = run(standing(s.kafka, s.topics.release))
    found = releases.pop(alias, None)
    if as_json:
        out.print_json(json.dumps(msgspec.to_builtins(found)))
    elif found is None:
        out.print("none: workers serve the fallback" if alias == NAME else f"none as {alias}")
    else:
        out.print(f"{found.name} from {found.location}, {found.metrics}", highlight=False)
    for other, beside in releases.items() if not as_json else ():
        out.print(f"as {other}: {beside.name} from {beside.location}", highlight=False)


@release.command()
def withdraw(kafka: Bootstrap = None, alias: Alias = "default") -> None:
    """Withdraw the release: workers return to the fallback. Example: eddyline release withdraw"""
    from stream.lists.release import NAME
    from stream.lists.release import withdraw as withdraw_release

    s = settings(kafka)
    run(withdraw_release(s.kafka, s.topics.release, alias))
    served = "the fallback" if alias == NAME else f"the release {NAME} in its place"
    out.print(f"withdrawn: workers return to {served}")
