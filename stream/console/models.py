"""`eddyline release`: models into workers. They are made in `training.py`, and compared in `evaluating.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.console.common import Bootstrap, Json, out, run, settings

if TYPE_CHECKING:
    from stream.lists.depot import Depot
    from stream.settings import Settings

release = typer.Typer(help="The models that workers serve.", no_args_is_help=True)
Alias = Annotated[
    str, typer.Option(metavar="NAME", help="Beside the current release, for [variants] that name it as their model.")
]


@release.command()
def announce(
    folder: Annotated[
        str,
        typer.Argument(
            help="A model folder, where every worker can read it; or its URL: http(s), s3 with eddyline[s3]."
        ),
    ],
    kafka: Bootstrap = None,
    name: Annotated[str | None, typer.Option(help="The model's name in recommendations; default: its parts.")] = None,
    alias: Alias = "default",
    gate: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Ask it and what is served the same: events that are newer than either."),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(help="Refused where its NDCG@10 is below the other's by more than this share.", min=0, max=1),
    ] = 0.05,
    force: Annotated[
        bool, typer.Option("--force", help="Announce it though it is worse, or cannot be compared.")
    ] = False,
) -> None:
    """Announce a model: running workers take it up. Example: eddyline release announce models/1 --gate ./shop"""
    from model import checkpoint
    from stream.console.gating import gate as gated
    from stream.lists.depot import local
    from stream.lists.release import RECORD, known
    from stream.lists.release import announce as announce_release
    from stream.lists.variants import FALLBACK

    if alias == FALLBACK:
        raise typer.BadParameter(f"{FALLBACK} is what needs no release: choose another", param_hint="--alias")
    if alias.startswith(RECORD):
        raise typer.BadParameter(f"{RECORD}N is where version N is kept: choose another", param_hint="--alias")

    s = settings(kafka)
    depot = depot_of(s)
    path = depot.look(folder)
    standing = run(known(s.kafka, s.topics.release)).standing.get(alias)
    noted = gated(path, standing, depot, gate, margin, force)
    metrics = checkpoint.load(path).metrics | noted
    location = None if local(folder) is not None else folder
    done = run(announce_release(s.kafka, s.topics.release, path, metrics, name, alias, location))
    out.print(f"{done.name} announced from {done.location}")


@release.command("list")
def list_(kafka: Bootstrap = None, as_json: Json = False) -> None:
    """List every release that ever stood, the newest first. Example: eddyline release list"""
    import json

    import msgspec

    from stream.lists.release import known

    s = settings(kafka)
    found = run(known(s.kafka, s.topics.release))
    stands = {one.version: alias for alias, one in found.standing.items()}
    if as_json:
        rows = [msgspec.to_builtins(one) | {"stands": stands.get(one.version)} for one in found.versions]
        print(json.dumps(rows))
        return
    if not found.versions:
        out.print("none yet: workers serve the fallback; announce one: eddyline release announce FOLDER")
        return
    rows = [("release", "stands as", "announced", "NDCG@10", "location")]
    for one in found.versions:
        stood = stands.get(one.version, "")
        rows.append((one.name, stood, _when(one.announced), _quality(one.metrics), one.location))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.print(line.rstrip(), highlight=False, markup=False)


@release.command()
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="One of `release list`: 3, or ours@3.")
    ] = None,
    kafka: Bootstrap = None,
    alias: Alias = "default",
    as_json: Json = False,
) -> None:
    """Show the release that workers serve, or another. Examples: eddyline release show; eddyline release show 3"""
    import json

    import msgspec

    from stream.lists.release import NAME, known

    s = settings(kafka)
    releases = run(known(s.kafka, s.topics.release))
    found = releases.find(name) if name is not None else releases.standing.get(alias)
    if as_json:
        out.print_json(json.dumps(msgspec.to_builtins(found)))
        return
    if found is None:
        out.print("none: workers serve the fallback" if alias == NAME else f"none as {alias}")
    else:
        out.print(f"{found.name} from {found.location}", highlight=False)
        for what, said in (
            ("announced", f"{_when(found.announced)} as {found.alias}"),
            ("manifest", found.sha256),
            ("data", found.data),
            ("metrics", json.dumps(found.metrics)),
        ):
            out.print(f"  {what}: {said}", highlight=False, markup=False)
    for other, beside in releases.standing.items() if name is None else ():
        if other != alias:
            out.print(f"as {other}: {beside.name} from {beside.location}", highlight=False)


@release.command()
def rollback(
    kafka: Bootstrap = None,
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Which; default: what stood before what stands now.")
    ] = None,
    alias: Alias = "default",
) -> None:
    """Let an earlier release stand again. Examples: eddyline release rollback; eddyline release rollback --to 3"""
    from stream.lists.release import known, restore

    s = settings(kafka)
    releases = run(known(s.kafka, s.topics.release))
    earlier = releases.find(to) if to is not None else releases.before(alias)
    depot_of(s).at(earlier)  # what is damaged or gone is told here, not by workers
    run(restore(s.kafka, s.topics.release, earlier, alias))
    now = releases.standing.get(alias)
    out.print(f"{earlier.name} stands again, in place of {now.name if now is not None else 'none'}")


@release.command()
def withdraw(kafka: Bootstrap = None, alias: Alias = "default") -> None:
    """Withdraw the release: workers return to the fallback. Example: eddyline release withdraw"""
    from stream.lists.release import NAME
    from stream.lists.release import withdraw as withdraw_release

    s = settings(kafka)
    run(withdraw_release(s.kafka, s.topics.release, alias))
    served = "the fallback" if alias == NAME else f"the release {NAME} in its place"
    out.print(f"withdrawn: workers return to {served}")


def depot_of(s: Settings) -> Depot:
    """Where releases of these settings are on this machine; workers here use the same."""
    from stream.lists.depot import Depot

    return Depot(s.cache / "releases" / s.topics.release)


def _when(ms: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(" ", "minutes")[:16] if ms else ""


def _quality(metrics: Mapping[str, Any]) -> str:
    """As its training noted it."""
    fitted = metrics.get("validation")
    value = fitted.get("ndcg@10") if isinstance(fitted, dict) else None
    return f"{value:.4f}" if isinstance(value, float) else ""
