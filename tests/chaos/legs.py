"""A long run as legs, each a process and a broker of its own, and their results as one.

A leg keeps what it has verified in a file after every round, so that one which is ended from outside, or by a defect
of the client that the harness itself uses (librdkafka 2.16 has ended by a segmentation fault while brokers came and
went), costs the round that it was in. What was left of it is cleared away.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

from stream.dev.broker import LocalBroker
from tests.chaos.report import Result

SPARE_S = 900.0
"""How long a leg may take beyond its time: the last round is finished, and everything is read once more."""


def run(minutes: float, leg_minutes: float, seed: int, more: Sequence[str], tell: Callable[[str], None]) -> Result:
    """Legs until the time is up or something is wrong; each has the next seed."""
    began, total = time.monotonic(), Result(seed)
    while not total.wrong and (left := minutes - (time.monotonic() - began) / 60) > 0.5:
        total = added(total, _leg(min(leg_minutes, left), seed, more, tell))
        seed += 1
    return total


def added(total: Result, leg: Result) -> Result:
    """Two results as one: counts added up, waits the longest of both."""
    out = Result(total.seed, disk=leg.disk or total.disk)
    for field in fields(Result):
        a, b = getattr(total, field.name), getattr(leg, field.name)
        if field.name in ("seed", "disk"):
            continue
        longest = field.name.endswith("unanswered_s")
        setattr(out, field.name, max(a, b) if longest else a + b)
    return out


def _leg(minutes: float, seed: int, more: Sequence[str], tell: Callable[[str], None]) -> Result:
    folder = Path(tempfile.mkdtemp(prefix="eddyline-chaos-"))
    kept = folder / "result.json"
    command = [sys.executable, "-m", "tests.chaos", "--one-leg", "--minutes", str(minutes), "--seed", str(seed)]
    tell(f"leg with seed {seed}")
    process = subprocess.Popen([*command, "--folder", str(folder), *more], start_new_session=True)
    try:
        code = process.wait(60 * minutes + SPARE_S)
    except subprocess.TimeoutExpired:
        code = -signal.SIGKILL
    except BaseException:
        _clear(process, folder)
        raise
    result = Result.read(kept) if kept.exists() else Result(seed)
    if code < 0:
        _clear(process, folder)
        result.cut_short.append(f"seed {seed} by signal {-code} after {result.rounds} rounds that were verified")
        tell(f"the harness itself was ended by signal {-code}; {result.rounds} rounds were verified")
    elif code > 1 or (code == 1 and not result.wrong):
        raise SystemExit(f"a leg of the harness failed with exit code {code}; its logs are in {folder}")
    if not result.wrong:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _clear(process: subprocess.Popen[bytes], folder: Path) -> None:
    """End what a leg has left: its workers are of its session, its broker is not."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    broker = LocalBroker(folder / "broker")
    broker.thaw()
    broker.kill()
    subprocess.run(["umount", str(folder / "broker" / "data")], capture_output=True, check=False)
