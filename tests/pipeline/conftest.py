"""One real broker for all pipeline tests, and a deployment of its own for each."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from stream.dev.broker import LocalBroker
from tests.pipeline.harness import Deployment

TOLD_LINES = 12


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Kafka."""
    local = LocalBroker(tmp_path_factory.mktemp("broker"))
    yield local.start()
    local.stop()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoded texts, shared by all workers."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def empty(broker: str, cache: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Deployment]:
    """A deployment without topics yet."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:38]
    deployment = Deployment(broker, name, tmp_path, cache)
    yield deployment
    deployment.close()


@pytest.fixture
def deployment(empty: Deployment) -> Deployment:
    """A deployment with topics and a catalogue."""
    return empty.create()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails tells what its workers were at, and what they said last."""
    report = yield
    deployment = getattr(item, "funcargs", {}).get("empty")
    if report.failed and report.when == "call" and deployment is not None:
        for n, worker in enumerate(deployment.workers):
            code, status = worker.process.poll(), worker.status()
            said = worker.log.read_text().splitlines()[-TOLD_LINES:]
            report.sections.append((f"worker {n}, exit code {code}", "\n".join([f"{status}", *said])))
    return report
