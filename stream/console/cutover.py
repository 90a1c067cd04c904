"""`eddyline cut-over`: one state version answers in place of another, or again in its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream.console.common import Bootstrap, Execute, Json, err, out, run, settings

if TYPE_CHECKING:
    from stream.cutover import Plan
    from stream.settings import Settings


def cut_over(
    before: Annotated[str, typer.Option("--from", metavar="NAME", help="The state version that answers.")],
    speaker: Annotated[str, typer.Option("--to", metavar="NAME", help="The one that is to, from then on.")],
    kafka: Bootstrap = None,
    rollback: Annotated[bool, typer.Option(help="The reverse: the first one answers again.")] = False,
    execute: Execute = False,
    as_json: Json = False,
) -> None:
    """Let another state version answer: each event is one's. Example: eddyline cut-over --from v1 --to v2 --execute"""
    from stream.process.keys import settled

    s, _ = run(settled(settings(kafka)))
    names = (speaker, before) if rollback else (before, speaker)
    if execute:
        _execute(s, *names, as_json)
        return
    plan = run(_look(s, *names))
    if as_json:
        out.print_json(json.dumps(_told(plan)))
        return
    for line in _lines(plan):
        out.print(line, highlight=False)


def _execute(s: Settings, before: str, speaker: str, as_json: bool) -> None:
    from stream.cutover import cut_over

    turn = run(cut_over(s, before, speaker, lambda line: err.print(line, highlight=False)))
    if as_json:
        done = {"answers": speaker, "number": turn.number, "cut": dict(turn.floor)} if turn is not None else {}
        out.print_json(json.dumps({"answers": speaker, **done}))
    elif turn is None:
        out.print(f"state {speaker} answers already; nothing was done")
    else:
        out.print(f"it is state {speaker}'s turn; go back with the same command and --rollback, or without it")


async def _look(s: Settings, before: str, speaker: str) -> Plan:
    from stream.cutover import opened

    async with opened(s) as board:
        return await board.plan(before, speaker)


def _lines(plan: Plan) -> list[str]:
    from stream.cutover import Step

    before, speaker = plan.before.name, plan.speaker.name
    steps = [
        f"{before} answers what it has taken in, falls silent and commits: that is the cut; it goes on reading",
        f"{speaker} answers every event from the cut on",
    ]
    if plan.step is Step.NOTHING:
        return [f"state {speaker} answers already: there is nothing to do"]
    if plan.step is Step.GO_BACK:
        steps = [f"a cut-over to {before} was begun: {speaker} goes on where it fell silent, and {before} keeps silent"]
    if plan.step is Step.GO_ON:
        steps = [f"a cut-over was begun, and {before} asked to fall silent", *steps]
    if plan.step is Step.ASK and plan.behind:
        steps = [f"{speaker} is {plan.behind} offsets behind {before}, and is waited for", *steps]
    return [*(f"{n}. {step}" for n, step in enumerate(steps, 1)), "do it with --execute"]


def _told(plan: Plan) -> dict[str, Any]:
    return {
        "from": plan.before.name,
        "to": plan.speaker.name,
        "step": plan.step.value,
        "behind": plan.behind,
        "workers": {group.name: group.members for group in (plan.before, plan.speaker)},
        "answers": plan.turn.answering if plan.turn is not None else plan.before.name,
    }
