"""One real broker for all pipeline tests, and a deployment of its own for each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.dev.broker import LocalBroker
from tests.pipeline.harness import Deployment


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
