"""`eddyline` commands as processes of their own that are forked, not started: what they import is there already.

A start costs some 5 s of imports, and the tests start a hundred. What runs in the fork is `main()`, as in a
process that was started; `tests/system` and the first test of `test_state` start real ones.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `main` does, but torch is loaded before it
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["stream.app", "stream.process.worker", "stream.console.cli", "model.datasets"])


class Fork:
    """A forked process, with what the tests use of `subprocess.Popen`."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], log: Path, prelude: str = "") -> None:
        log.touch()
        self._process: Any = _CONTEXT.Process(target=_run, args=(list(arguments), dict(environ), str(log), prelude))
        self._process.start()
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} still runs after {timeout} s")
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(arguments: list[str], environ: dict[str, str], log: str, prelude: str) -> None:
    """In the fork: become the command."""
    os.environ.clear()
    os.environ.update(environ)
    to = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(to, stream)
    sys.argv = ["eddyline", *arguments]
    logging.getLogger("multiprocessing").setLevel(logging.CRITICAL)
    exec(prelude, {})
    from stream.console.cli import main

    main()
