"""Releases: a running worker takes up a model that it is told of, and whatever is wrong with one, it serves on."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from model import checkpoint
from model.catalog import Item
from model.config import ModelConfig
from model.recommender import Recommender
from stream.publishing import publish_items
from tests.pipeline.harness import ITEMS, Deployment, Sent, Worker, run, some_events, until
from tests.pipeline.test_errors import DATA, check_told

NOW = datetime(2026, 11, 22, tzinfo=UTC)
FALLBACK = "fallback"
T0 = 1_700_000_000_000


def save_model(folder: Path, text_dim: int = 384) -> Path:
    """An untrained model, as `eddyline train` writes one."""
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, text_dim=text_dim, items=1)
    checkpoint.save(folder, Recommender(config).eval(), NOW)
    return folder


def save_reader(folder: Path) -> Path:
    """An untrained model whose profiles are documents, and weigh four tenths whatever they say."""
    torch.manual_seed(0)
    config = ModelConfig(dim=16, layers=1, items=1, short_term="gru", long_term="document", fusion="alpha", alpha=0.6)
    checkpoint.save(folder, Recommender(config).eval(), NOW)
    return folder


def corrupt(folder: Path) -> Path:
    """Damage a model's weights."""
    weights = folder / "model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[len(raw) // 2] ^= 1
    weights.write_bytes(raw)
    return folder


def check_serves(deployment: Deployment, worker: Worker, name: str, seed: int) -> None:
    """Events are answered by this model."""
    start = T0 + seed * 10**6
    events = some_events(20, users=5, seed=seed, start=start)
    deployment.send(events)
    deployment.settled()
    answers = [event for event in deployment.lists() if start <= event.source.ts < start + 10**6]
    assert {event.user for event in answers} == {e.user for e in events}
    assert {event.model for event in answers} == {name}
    assert worker.process.poll() is None


def told(worker: Worker, words: str) -> None:
    until(lambda: words in worker.log.read_text(), 30, words)


def announce_by_hand(deployment: Deployment, value: bytes) -> None:
    deployment.send_raw_to(deployment.settings.topics.release, 0, [(b"default", value)])


def test_a_model_is_taken_up_and_given_up_without_a_stop(deployment: Deployment) -> None:
    worker = deployment.worker().ready()
    check_serves(deployment, worker, FALLBACK, 0)
    folder = save_model(deployment.folder / "model")
    check_told(deployment.cli("release", "announce", str(folder), "--name", "ours"), 0, "ours@1 announced")
    check_told(deployment.cli("release", "show"), 0, "ours@1", str(folder))
    told(worker, "serving ours@1 over 20 items")
    check_serves(deployment, worker, "ours@1", 1)
    check_told(deployment.cli("release", "withdraw"), 0, "fallback")
    told(worker, "serving fallback over 20 items")
    until(lambda: worker.status()["model"] == FALLBACK, 20, "the fallback serves again")
    check_serves(deployment, worker, FALLBACK, 2)
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()


def test_a_model_that_reads_histories_as_documents_is_served(deployment: Deployment) -> None:
    folder = save_reader(deployment.folder / "model")
    assert deployment.cli("release", "announce", str(folder), "--name", "reader").code == 0
    worker = deployment.worker().ready()
    told(worker, "serving reader@1 over 20 items")
    check_serves(deployment, worker, "reader@1", 0)
    until(lambda: worker.status()["profiles"] >= 5, 120, "BERT has read the histories of all users")
    check_serves(deployment, worker, "reader@1", 1)
    profiled = [event.interest for event in deployment.lists() if event.interest.profile_age_s is not None]
    assert profiled and {(i.short, i.long) for i in profiled} == {(0.6, 0.4)}
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()


def test_a_list_that_is_made_again_by_another_model_has_the_same_name(deployment: Deployment) -> None:
    forgetful = "from stream.state import State\nState.committable = lambda self: {}\n"
    events = [Sent(f"u{n}", f"i{n % 20}", "view", T0 + n) for n in range(30)]
    first = deployment.worker(prelude=forgetful).ready()
    deployment.send(events)
    until(lambda: first.status()["lists"] == len(events), 30, "everyone is answered, and nothing is committed")
    first.kill()
    folder = save_model(deployment.folder / "model")
    assert deployment.cli("release", "announce", str(folder), "--name", "ours").code == 0
    second = deployment.worker().ready()
    deployment.settled()
    names: dict[str, dict[str, str]] = {}
    for event in deployment.lists():
        names.setdefault(event.user, {})[event.model] = event.id
    assert len(names) == len(events)
    for user, by_model in names.items():
        assert by_model.keys() == {FALLBACK, "ours@1"} and len(set(by_model.values())) == 1, user
    assert second.stop() == 0


def test_whatever_is_wrong_with_a_release_the_one_before_it_serves_on(deployment: Deployment) -> None:
    good = save_model(deployment.folder / "good")
    damaged, small = save_model(deployment.folder / "damaged"), save_model(deployment.folder / "small", text_dim=8)
    assert deployment.cli("release", "announce", str(good), "--name", "good").code == 0
    worker = deployment.worker().ready()
    check_serves(deployment, worker, "good@1", 0)

    assert deployment.cli("release", "announce", str(small), "--name", "small").code == 0
    told(worker, "release small@2 is not served, what was served before goes on")
    assert deployment.cli("release", "announce", str(damaged), "--name", "damaged").code == 0
    told(worker, "serving damaged@3")
    corrupt(damaged)
    by_hand = {"model": "gone", "version": 4, "location": "/nowhere/model", "sha256": "0" * 64}
    for n, change in enumerate(({}, {"location": str(good)}, {"location": "\0"}), 4):
        announce_by_hand(deployment, json.dumps({**by_hand, **change, "version": n}).encode())
        told(worker, f"release gone@{n} is not served")
        check_serves(deployment, worker, "damaged@3", n)
    announce_by_hand(deployment, b"?")
    told(worker, "is no release and is ignored")

    run(publish_items(deployment.settings.kafka, deployment.settings.topics.catalog, [Item("new", "A new weir")]))
    until(lambda: worker.status()["items"] == len(ITEMS) + 1, 90, "the new item is served")
    check_serves(deployment, worker, "damaged@3", 8)
    log = worker.log.read_text()
    assert "/nowhere/model is no model folder" in log and "is not what was announced" in log
    assert "Traceback" not in log and worker.stop() == 0


def test_a_worker_that_finds_a_damaged_release_serves_the_fallback_and_says_so(deployment: Deployment) -> None:
    folder = save_model(deployment.folder / "model")
    assert deployment.cli("release", "announce", str(folder)).code == 0
    corrupt(folder)
    worker = deployment.worker().ready()
    check_serves(deployment, worker, FALLBACK, 0)
    log = worker.log.read_text()
    assert "model.safetensors: not the file the manifest names" in log and "Traceback" not in log
    assert worker.stop() == 0


@pytest.mark.parametrize("kind", ["missing", "empty", "foreign", "damaged"])
def test_a_folder_that_is_no_model_is_not_announced(deployment: Deployment, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    if kind == "damaged":
        corrupt(save_model(folder))
    elif kind != "missing":
        folder.mkdir()
        if kind == "foreign":
            (folder / "manifest.json").write_text('{"format": 1}')
    check_told(deployment.cli("release", "announce", str(folder)), DATA, str(folder))
    check_told(deployment.cli("release", "show"), 0, "none: workers serve the fallback")
