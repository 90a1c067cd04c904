"""The systems that eddyline is measured beside, each a small program as its documentation would have it.

They run in an environment of their own, made once in the cache folder: their dependencies are not eddyline's.
What each does, and what it does not, is said in its docstring. The programs are told by the environment:
BENCH_BROKER, BENCH_NAME (their consumer group), BENCH_INPUT, BENCH_OUTPUT, BENCH_PARTITIONS, BENCH_FOLDER.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from filelock import FileLock
from uv import find_uv_bin

from stream.folders import cache_folder

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"


def environment() -> Path:
    """The `bin` folder of the peers' environment, made or brought up to date where it is not."""
    folder = cache_folder() / "bench"
    stamp, wanted = folder / "installed.txt", REQUIREMENTS.read_text()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "install.lock"):
        python = folder / "venv" / "bin" / "python"
        if not (python.exists() and stamp.exists() and stamp.read_text() == wanted):
            print(f"installing the peers into {folder / 'venv'}", file=sys.stderr, flush=True)
            uv = find_uv_bin()
            if not python.exists():
                subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
            subprocess.run([uv, "pip", "sync", "-q", "--python", str(python), str(REQUIREMENTS)], check=True)
            stamp.write_text(wanted)
    return python.parent
