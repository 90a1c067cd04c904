"""A single-node Apache Kafka (KRaft mode) on 127.0.0.1, for development, the demo, tests and benches.

Not for production: one node, no authentication, replication 1, and it keeps everything for ever (a replayed
data set carries event times of decades ago: retention by time would delete it at once). All that it has lies
under one state folder, and only a process started for that folder is ever signalled::

    <state>/broker.json         pid and ports of the process started last
    <state>/server.properties   written at each start, as is log4j2.properties
    <state>/logs/broker.log     what Kafka and Java print; the run before is broker.log.1
    <state>/data/               topics, offsets, cluster metadata
"""

import base64
import json
import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from stream.dev.handshake import answers, split_addresses
from stream.dev.java import Java, find_java
from stream.dev.kafka_jars import Progress, class_path
from stream.dev.properties import LOG4J2, server_properties
from stream.errors import BrokerStartError, BrokerUnavailable

__all__ = ["BrokerStatus", "LocalBroker", "answers", "ensure"]

HOST = "127.0.0.1"
LOCAL_NAMES = frozenset({HOST, "localhost", "::1"})
JVM_FLAGS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Djava.net.preferIPv4Stack=true",
)
PORT_ATTEMPTS = 3
"""A free port may be lost to another program before Kafka binds it: then others are chosen."""
TAIL_LINES = 15
ELSEWHERE = "or point kafka.bootstrap_servers at a running broker"


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """What is known of a state folder's broker; `started` is in unix seconds, None where it is down."""

    running: bool
    answers: bool
    address: str | None
    pid: int | None
    started: float | None
    log: Path


@dataclass(frozen=True, slots=True)
class _Record:
    """The content of broker.json. It outlives the process: its ports are tried first at the next start."""

    pid: int
    port: int
    controller_port: int


def ensure(
    address: str, state: Path, timeout: float = 60.0, on_progress: Progress | None = None
) -> "LocalBroker | None":
    """See to it that a broker answers at `address`: returns the one started for it, None where one was there.

    Raises `BrokerUnavailable` where nothing answers and the address is not one of this machine (none can be
    started there), `BrokerStartError` where starting fails.
    """
    if answers(address):
        return None
    addresses = split_addresses(address)
    if len(addresses) != 1 or addresses[0][0] not in LOCAL_NAMES:
        raise BrokerUnavailable(
            f"no Kafka broker answers at {address}, and only at one local address can one be started",
            f"check kafka.bootstrap_servers, or set it to {HOST}:9092 to have a local broker started",
        )
    broker = LocalBroker(state, addresses[0][1])
    broker.start(timeout, on_progress)
    return broker


class LocalBroker:
    """The broker of one state folder, whichever process started it: a second object on the folder finds it.

    `port=None` keeps the port of the run before where it is still free, else takes any free one. `environ` is
    read for `JAVA_HOME`, `PATH`, `KAFKA_HOME` and `EDDYLINE_CACHE`; `cache` overrides the last.
    """

    def __init__(
        self,
        state: Path,
        port: int | None = None,
        *,
        cache: Path | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.state = Path(state).expanduser().resolve()
        self.port = port
        self._cache = cache
        self._environ = environ

    @property
    def log_path(self) -> Path:
        """What Kafka and Java print, of the run started last."""
        return self.state / "logs" / "broker.log"

    @property
    def address(self) -> str:
        """The running broker's "127.0.0.1:port"; raises `BrokerUnavailable` where none runs."""
        record = self._record()
        if record is None or self._process(record) is None:
            raise BrokerUnavailable(f"no broker runs on {self.state}", "start one: `eddyline broker start`")
        return f"{HOST}:{record.port}"

    def start(self, timeout: float = 60.0, on_progress: Progress | None = None) -> str:
        """Start the broker unless it runs, wait until it takes requests, and return "127.0.0.1:port".

        `timeout` (seconds) does not count a first download of Kafka, which `on_progress` is told of. Raises
        `BrokerStartError`, with the end of the log where Kafka itself failed; nothing is left running then.
        """
        try:
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self.state / "start.lock", timeout=timeout):
                return f"{HOST}:{self._start(timeout, on_progress).port}"
        except Timeout:
            raise BrokerStartError(
                f"another process has been starting the broker of {self.state} for {timeout:.0f} s",
                f"look at {self.log_path}, or try again",
            ) from None
        except OSError as error:
            raise BrokerStartError(
                f"the local broker cannot use its state folder: {error}",
                f"choose a folder that can be written, {ELSEWHERE}",
            ) from error

    def stop(self, timeout: float = 30.0) -> bool:
        """Shut the broker down cleanly (SIGTERM; SIGKILL after `timeout` seconds). False where none ran."""
        return self._signal(signal.SIGTERM, timeout)

    def kill(self) -> bool:
        """End the broker at once (SIGKILL), as a crash would: for tests. False where none ran."""
        return self._signal(signal.SIGKILL, 10.0)

    def freeze(self) -> bool:
        """Stop the broker where it stands (SIGSTOP), as a machine that hangs would: for tests. False where none ran."""
        return self._signal(signal.SIGSTOP, None)

    def thaw(self) -> bool:
        """Let a frozen broker go on. False where none ran."""
        return self._signal(signal.SIGCONT, None)

    def status(self) -> BrokerStatus:
        """What runs now, and whether it takes requests."""
        record = self._record()
        process = self._process(record) if record else None
        if record is None or process is None:
            return BrokerStatus(False, False, None, None, None, self.log_path)
        address = f"{HOST}:{record.port}"
        return BrokerStatus(True, answers(address), address, record.pid, process.create_time(), self.log_path)

    # -- the process

    def _start(self, timeout: float, on_progress: Progress | None) -> _Record:
        """`start` while no other process is starting this folder's broker."""
        record = self._record()
        process = self._process(record) if record else None
        if record and process:
            self._check_port(record)
            self._await(process, record, timeout)
            return record
        java, libraries = find_java(self._environ), class_path(self._environ, self._cache, on_progress)
        attempts = 0
        while True:
            attempts += 1
            record = self._launch(java, libraries, self._choose_ports(record))
            try:
                self._await(psutil.Process(record.pid), record, timeout)
                return record
            except BaseException as error:  # Ctrl-C while waiting included: leave nothing half started behind
                self.kill()
                ours = isinstance(error, BrokerStartError)
                if not (ours and attempts < PORT_ATTEMPTS and self._port_was_lost(record)):
                    raise

    @property
    def _marker(self) -> str:
        """An argument that every process started for this folder carries: how ours is told from others."""
        return f"-Deddyline.broker={self.state}"

    @property
    def _java_environ(self) -> dict[str, str]:
        """In the plain C locale Java cannot open a path that is not ASCII."""
        return {**self._environ, "LC_ALL": "C.UTF-8"}

    def _record(self) -> _Record | None:
        try:
            return _Record(**json.loads((self.state / "broker.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _process(self, record: _Record) -> psutil.Process | None:
        """The live process of `record`; None where it ended, or its pid is another program's by now."""
        with suppress(psutil.Error):
            process = psutil.Process(record.pid)
            if self._marker in process.cmdline() and not _ended(process):
                return process
        return None

    def _signal(self, number: signal.Signals, timeout: float | None) -> bool:
        """Send a signal, and wait until the process has ended (None: it is not meant to). False where none ran."""
        record = self._record()
        process = self._process(record) if record else None
        if process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
            if timeout is None:
                return True
            try:
                process.wait(timeout)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(10.0)
        return True

    def _launch(self, java: Java, libraries: str, ports: tuple[int, int]) -> _Record:
        """Write the configuration, format the data folder once, start Kafka, and note its pid and ports."""
        config = self.state / "server.properties"
        config.write_text(server_properties(self.state / "data", HOST, *ports))
        (self.state / "log4j2.properties").write_text(LOG4J2)
        command = [
            str(java.executable), *JVM_FLAGS, self._marker,
            f"-Dlog4j2.configurationFile={(self.state / 'log4j2.properties').as_uri()}", "-cp", libraries,
        ]  # fmt: skip
        if not (self.state / "data" / "meta.properties").exists():
            self._format(command, config)
        with suppress(FileNotFoundError):
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawn(
            command[0],
            [*command, "kafka.Kafka", str(config)],
            self._java_environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log_path), flags, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,  # Ctrl-C at the terminal must not end it while the pipeline drains
        )
        record = _Record(pid, *ports)
        draft = self.state / "broker.json.new"
        draft.write_text(json.dumps({name: getattr(record, name) for name in _Record.__slots__}))
        draft.replace(self.state / "broker.json")
        return record

    def _format(self, command: list[str], config: Path) -> None:
        command = [*command, "kafka.tools.StorageTool", "format", "-t", _cluster_id(), "-c", str(config)]
        done = subprocess.run(command, capture_output=True, text=True, env=self._java_environ, check=False)
        if done.returncode:
            raise BrokerStartError(
                f"Kafka could not format its data folder {self.state / 'data'}:\n{done.stdout}{done.stderr}",
                f"check that {self.state} is writable and the disk has room, {ELSEWHERE}",
            )

    def _await(self, process: psutil.Process, record: _Record, timeout: float) -> None:
        """Return once the broker takes requests; `BrokerStartError` where it ends, or is too slow."""
        deadline = time.monotonic() + timeout
        while not answers(f"{HOST}:{record.port}", timeout=1.0):
            if _ended(process):
                problem = "the local broker ended while starting"
            elif time.monotonic() > deadline:
                problem = f"the local broker (pid {process.pid}) took no requests within {timeout:.0f} s"
            else:
                time.sleep(0.05)
                continue
            raise BrokerStartError(
                f"{problem}; the end of {self.log_path}:\n{self._tail()}",
                f"read the log; deleting {self.state} starts from nothing; {ELSEWHERE}",
            )

    def _tail(self) -> str:
        """The log's last lines, less the frames of stack traces, which would leave room for nothing else."""
        with suppress(OSError):
            lines = self.log_path.read_text(errors="replace").splitlines()
            return "\n".join([line for line in lines if not line.startswith("\t")][-TAIL_LINES:])
        return "(no log)"

    # -- ports

    def _check_port(self, record: _Record) -> None:
        if self.port not in (None, record.port):
            raise BrokerStartError(
                f"the broker of {self.state} already runs at {HOST}:{record.port}, not at port {self.port}",
                f"use {HOST}:{record.port}, or stop it first with `eddyline broker stop`",
            )

    def _choose_ports(self, last: _Record | None) -> tuple[int, int]:
        """(broker, controller): the ones asked for or used last where they are free, else any."""
        if self.port is not None and not _is_free(self.port):
            raise BrokerStartError(
                f"port {self.port} on {HOST} is taken by another program, so no broker can listen there",
                f"stop that program, or leave the port out to have a free one chosen, {ELSEWHERE}",
            )
        with ExitStack() as stack:
            wanted = [self.port or (last.port if last else 0), last.controller_port if last else 0]
            free = [port if port and _is_free(port) else 0 for port in wanted]
            ports = [stack.enter_context(_bound(port)).getsockname()[1] for port in free]
        return ports[0], ports[1]

    def _port_was_lost(self, record: _Record) -> bool:
        return self.port is None and not (_is_free(record.port) and _is_free(record.controller_port))


def _ended(process: psutil.Process) -> bool:
    """Whether `process` is gone, or is only waiting for its parent to collect its exit status."""
    with suppress(psutil.NoSuchProcess):
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    return True


def _bound(port: int) -> socket.socket:
    """A socket bound as Kafka binds: an earlier run's connections in TIME_WAIT are no obstacle."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _is_free(port: int) -> bool:
    with suppress(OSError), _bound(port):
        return True
    return False


def _cluster_id() -> str:
    """A random id as Kafka writes it: 22 characters of URL-safe base64, no leading dash (a flag's)."""
    while True:
        name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not name.startswith("-"):
            return name
