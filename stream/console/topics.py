"""`eddyline topics`: create or check the topics."""

from __future__ import annotations

from typing import Annotated

import typer

from stream.console.common import Bootstrap, Execute, out, run, settings

app = typer.Typer(help="The topics that eddyline reads and writes.", no_args_is_help=True)


@app.command()
def create(
    kafka: Bootstrap = None,
    partitions: Annotated[int | None, typer.Option(help="Partitions of topics that are created.")] = None,
    state: Annotated[str | None, typer.Option(help="The state version whose changelogs are created.")] = None,
    execute: Execute = False,
) -> None:
    """Create the topics that are missing. Example: eddyline topics create --execute"""
    from stream.kafka import topics
    from stream.process.keys import look

    s = settings(kafka, topics__partitions=partitions, state__name=state)
    wanted = topics.specs(s.topics, s.input.names, s.state.name)
    finding = run(look(s))
    if finding.needed:
        out.print(f"events are re-keyed into {s.topics.events}: {finding.why}", highlight=False)
        wanted.append(topics.events_spec(s.topics))
    have = run(topics.partitions(s.kafka, [spec.name for spec in wanted]))
    for spec in wanted:
        told = f"is there, {have[spec.name]} partitions" if spec.name in have else "is missing"
        out.print(f"{spec.name}: {told}; wanted {spec.partitions} partitions, {dict(spec.config)}", highlight=False)
    missing = [spec for spec in wanted if spec.name not in have]
    if missing and not execute:
        out.print(f"{len(missing)} would be created; add --execute to create them")
    elif missing:
        made = run(topics.create(s.kafka, missing, s.topics.replication))
        out.print(f"created {', '.join(made)}")


@app.command()
def check(kafka: Bootstrap = None) -> None:
    """Check that all topics are there and fit together. Example: eddyline topics check"""
    from stream.process.keys import settled
    from stream.process.preflight import check as check_topics

    s, finding = run(settled(settings(kafka)))
    if finding.needed:
        out.print(f"events are re-keyed into {s.topics.events}: {finding.why}", highlight=False)
    n = run(check_topics(s))
    out.print(f"all topics are there, with {n} partitions each where they belong together")
