"""The demo's helpers as processes of their own: started, watched, and all of them stopped at the end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from stream.errors import EddylineError


class Processes:
    """`eddyline` commands run beside this one; each writes a log into `folder`."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = {**os.environ, **environ}
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str, *arguments: str, nice: int = 0) -> asyncio.subprocess.Process:
        """Run `eddyline` with these arguments; its stdout can be read, its stderr goes to the log."""
        with self.log(name).open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "stream.console.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environ,
                # Its own session: Ctrl-C reaches the demo alone, which then stops the rest in order.
                start_new_session=True,
                preexec_fn=(lambda: os.nice(nice)) if nice else None,
            )
        self._running[name] = process
        return process

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def check(self, name: str) -> None:
        """Raise where a process that should run has ended."""
        process = self._running[name]
        if process.returncode is not None:
            tail = self.log(name).read_text(errors="replace").splitlines()[-8:]
            raise EddylineError(
                f"the {name} ended with exit code {process.returncode}; its last lines:\n    " + "\n    ".join(tail),
                f"read {self.log(name)}",
            )

    async def finish(self, name: str, on_line: Callable[[str], None]) -> None:
        """Read a process's lines until it ends; raises where it failed."""
        process = self._running[name]
        assert process.stdout is not None
        async for line in process.stdout:
            on_line(line.decode(errors="replace").rstrip())
        if await process.wait():
            self.check(name)

    async def stop(self, timeout: float = 25.0) -> None:
        """Tell all to stop, and wait; kill what does not."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            try:
                await asyncio.wait_for(process.wait(), timeout)
            except TimeoutError:
                with suppress(ProcessLookupError):
                    process.kill()


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
