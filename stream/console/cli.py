"""The entry point `eddyline`: the tree of commands, and how errors end the process.

Commands import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import json
import os
import sys

import typer

from stream.console import (
    broker,
    cutover,
    data,
    evaluating,
    history,
    models,
    replaying,
    running,
    topics,
    training,
    trial,
)
from stream.console.common import Bootstrap, err, out, quiet, settings

app = typer.Typer(
    name="eddyline",
    help="Real-time recommendations beside Kafka. Start with: eddyline demo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 broker, 5 state, 6 data or model.",
)
app.add_typer(broker.app, name="broker")
app.add_typer(topics.app, name="topics")
app.add_typer(data.catalog, name="catalog")
app.add_typer(data.users, name="users")
app.add_typer(models.release, name="release")
for command in (
    running.demo,
    running.worker,
    data.send,
    data.request,
    replaying.replay,
    history.backfill,
    history.verify,
    cutover.cut_over,
    running.pause,
    running.resume,
    training.train,
    evaluating.evaluate,
    trial.trial,
    running.tail,
):
    app.command()(command)
config = typer.Typer(help="The effective settings.", no_args_is_help=True)
app.add_typer(config, name="config")


@config.command("show")
def show(kafka: Bootstrap = None) -> None:
    """Show the effective settings, secrets masked. Example: eddyline config show"""
    out.print_json(json.dumps(settings(kafka).model_dump(mode="json")))


@config.command("path")
def path() -> None:
    """Say which file is read. Example: eddyline config path"""
    from stream.settings import FILE

    out.print(os.environ.get("EDDYLINE_CONFIG", FILE))


def main() -> None:
    """Run a command. An error that eddyline knows is one message with its remedy, never a traceback."""
    from stream.errors import EddylineError

    # Worker and training share a machine in the demo: OpenMP's threads would spin against each other, ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    quiet()
    try:
        app()
    except EddylineError as error:
        err.print(f"[bold red]error:[/] {_plain(error)}", highlight=False)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except Exception as error:
        if not _is_data_error(error):
            raise
        err.print(f"[bold red]error:[/] {_plain(error)}", highlight=False)
        sys.exit(6)


def _plain(error: Exception) -> str:
    return str(error).replace("[", r"\[")


def _is_data_error(error: Exception) -> bool:
    """Errors of `model` and `index`, which know nothing of ours: their messages name the remedy."""
    return type(error).__module__.partition(".")[0] in ("model", "index")


if __name__ == "__main__":
    main()
