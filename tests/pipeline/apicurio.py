"""A real schema registry: Apicurio's, from Maven Central, on 127.0.0.1, its schemas in a file of H2."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from filelock import FileLock

from stream.dev.java import find_java
from stream.dev.processes import free_port
from stream.folders import cache_folder

VERSION = "3.0.9"
SHA256 = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
STARTS_WITHIN_S = 90.0
FLAGS = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Djava.net.preferIPv4Stack=true")


def install() -> Path:
    """The folder of the unpacked application, fetched where it is not there."""
    cache = cache_folder(os.environ)
    target = cache / f"apicurio-{VERSION}"
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{target.name}.lock", timeout=600):
        if not target.exists():
            _fetch(target)
    return target


def _fetch(target: Path) -> None:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    staging = target.with_suffix(".new")
    shutil.rmtree(staging, ignore_errors=True)
    context = MavenContext(
        repo_cache=staging / "repository",
        remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
    )
    project = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
    archive = project.artifact(classifier="all", packaging="tar.gz").resolve()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert found == SHA256, f"{archive.name} has the SHA-256 {found}, and not {SHA256}"
    with tarfile.open(archive) as tar:
        tar.extractall(staging / "app", filter="data")
    (staging / "app").rename(target)
    shutil.rmtree(staging)


class Apicurio:
    """One registry; what it has lies in `folder`, and is there again after a restart, at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> Apicurio:
        """Start it, and return once it answers."""
        app = install()
        environ = {
            **os.environ,
            "QUARKUS_HTTP_HOST": "127.0.0.1",
            "QUARKUS_HTTP_PORT": str(self._port),
            "APICURIO_STORAGE_KIND": "sql",
            "APICURIO_STORAGE_SQL_KIND": "h2",
            "APICURIO_DATASOURCE_URL": f"jdbc:h2:file:{self._folder / 'schemas'}",
        }
        with (self._folder / "registry.log").open("ab") as log:
            command = [str(find_java().executable), *FLAGS, "-jar", *map(str, app.glob("*-runner.jar"))]
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self._log()
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=2) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def _log(self) -> str:
        return (self._folder / "registry.log").read_text()[-3000:]
