"""Kafka's class path: `KAFKA_HOME`, or the jars of Apache Kafka fetched once into a cache of this user.

It knows nothing of ports, of a broker's folders, or of Java. `kafka_jars.lock` beside it names every jar with
its SHA-256, so what runs is what was tested, whatever a repository or a mirror answers. No resolver is asked:
with a logging artifact beside Kafka, one pulled kafka-clients back to 3.8. Repositories named in jgo's own
configuration file (`~/.config/jgo.conf`, section `repositories`) are asked before Maven Central.
"""

import hashlib
import importlib.util
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stream.errors import BrokerStartError
from stream.folders import cache_folder

log = logging.getLogger(__name__)

KAFKA_VERSION = "4.1.0"
LOCK = Path(__file__).with_name("kafka_jars.lock")
ATTEMPTS = 3
"""How often one jar is asked for before the fetch fails."""

Progress = Callable[[int, int], None]
"""Called with (jars done, jars in all) as a fetch advances, first with 0; never where none is needed."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock file: Maven coordinates and the digest of the file."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def filename(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def class_path(
    environ: Mapping[str, str] = os.environ, cache: Path | None = None, on_progress: Progress | None = None
) -> str:
    """The `-cp` argument that starts Kafka: `KAFKA_HOME/libs/*`, else the cached jars, fetched where absent.

    `cache` is `cache_folder(environ)` unless given. Raises `BrokerStartError` where `KAFKA_HOME` holds no
    Kafka, or the jars cannot be fetched.
    """
    if home := environ.get("KAFKA_HOME"):
        libs = Path(home).expanduser().resolve() / "libs"
        if not any(libs.glob("kafka-server*.jar")):
            raise BrokerStartError(
                f"KAFKA_HOME is {home}, and {libs} holds no Kafka",
                "point KAFKA_HOME at an unpacked Kafka, or unset it to use the one that eddyline fetches",
            )
        return str(libs / "*")
    return str(install(cache or cache_folder(environ), on_progress) / "*")


def installed(cache: Path) -> bool:
    """Whether every jar of the lock file is in `cache`."""
    folder = _target(cache)
    return all((folder / jar.filename).is_file() for jar in read_lock())


def install(cache: Path, on_progress: Progress | None = None) -> Path:
    """Fetch the jars into `cache` unless they are there; returns their folder.

    Safe for several processes at once: one fetches under a lock into a folder of its own, checks every
    digest, and renames the folder into place; the others wait. Raises `BrokerStartError` where it fails.
    """
    cache = cache.expanduser().resolve()
    target = _target(cache)
    if installed(cache):
        return target
    if importlib.util.find_spec("jgo") is None:
        raise BrokerStartError(
            f"Apache Kafka {KAFKA_VERSION} is not in {cache}, and jgo, which fetches it, is not installed",
            "`pip install 'eddyline[local]'`, or set KAFKA_HOME to an unpacked Kafka, "
            "or point kafka.bootstrap_servers at a running broker",
        )
    cache.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(cache / f"{target.name}.lock", timeout=600):
            if not installed(cache):
                _fetch_all(target, on_progress or _log_progress)
    except Timeout:
        raise BrokerStartError(
            f"another process has been fetching Kafka into {cache} for ten minutes",
            "wait for that process, or end it, and try again",
        ) from None
    return target


def read_lock() -> list[Jar]:
    """The jars that make a broker, from `kafka_jars.lock`."""
    jars = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, sha256 = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, sha256))
    return jars


def _target(cache: Path) -> Path:
    """Named by the lock file's content too: a changed list is another folder, never a half-updated one."""
    return cache / f"kafka-{KAFKA_VERSION}-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:8]}"


def _log_progress(done: int, total: int) -> None:
    if done == 0:
        log.info("fetching Apache Kafka %s: %d jars, 44 MB, once", KAFKA_VERSION, total)
    elif done == total or done % 10 == 0:
        log.info("fetched %d of %d jars", done, total)


def _fetch_all(target: Path, on_progress: Progress) -> None:
    jars = read_lock()
    staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
    try:
        on_progress(0, len(jars))
        with ThreadPoolExecutor(max_workers=4) as pool:
            tasks = [pool.submit(_fetch, jar, staging) for jar in jars]
            try:
                for done, task in enumerate(as_completed(tasks), start=1):
                    task.result()
                    on_progress(done, len(jars))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        shutil.rmtree(staging / "repository")
        shutil.rmtree(target, ignore_errors=True)
        staging.chmod(0o755)
        staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(jar: Jar, staging: Path) -> None:
    """Put one jar, its digest checked, into `staging`; `staging/repository` is jgo's scratch space."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    context = MavenContext(
        repo_cache=staging / "repository",
        remote_repos={**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL},
    )
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    reason = ""
    for _ in range(ATTEMPTS):
        try:
            path = artifact.resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors; jgo's own are RuntimeErrors
            reason = str(error)
        else:
            if hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256:
                path.rename(staging / jar.filename)
                return
            reason = f"its SHA-256 is not the expected {jar.sha256}"
        if (partial := artifact.cached_path) is not None:
            partial.unlink(missing_ok=True)  # jgo would take a broken file for the jar
    raise BrokerStartError(
        f"could not fetch {jar.filename} of Apache Kafka {KAFKA_VERSION}: {reason}",
        "check the network and try again, or set KAFKA_HOME to an unpacked Kafka, "
        "or point kafka.bootstrap_servers at a running broker",
    )
