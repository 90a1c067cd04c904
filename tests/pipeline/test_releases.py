"""Releases come and go under a running worker: listed, gone back to, fetched, refused while the old one serves."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
import torch

from model import checkpoint
from model.config import ModelConfig
from model.recommender import Recommender
from stream.lists.release import Release, manifest_sha256
from tests.pipeline.harness import Deployment, Worker, check_answered, some_events, until
from tests.pipeline.test_errors import DATA, check_told
from tests.pipeline.test_release import NOW, check_serves, corrupt, save_model


def refused(worker: Worker) -> str:
    """Why the worker does not serve what is announced."""
    return worker.status().get("refused", {}).get("default", "")


def serves(worker: Worker, name: str) -> None:
    until(lambda: worker.status().get("model") == name, 60, f"{name} is served")


def announce(deployment: Deployment, folder: Path, name: str) -> None:
    check_told(deployment.cli("release", "announce", str(folder), "--name", name), 0, f"{name}@")


def test_releases_are_listed_and_an_earlier_one_stands_again(deployment: Deployment) -> None:
    first, second = save_model(deployment.folder / "1"), save_model(deployment.folder / "2")
    check_told(deployment.cli("release", "list"), 0, "none yet")
    check_told(deployment.cli("release", "rollback"), DATA, "nothing stands as default", "--to N")
    announce(deployment, first, "first")
    check_told(deployment.cli("release", "rollback"), DATA, "nothing stood as default before first@1", "withdraw")
    worker = deployment.worker().ready()
    check_serves(deployment, worker, "first@1", 0)
    announce(deployment, second, "second")
    serves(worker, "second@2")

    rows = json.loads(deployment.cli("release", "list", "--json").output)
    assert [(row["version"], row["model"], row["stands"], row["follows"]) for row in rows] == [
        (2, "second", "default", 1),
        (1, "first", None, 0),
    ]
    check_told(deployment.cli("release", "list"), 0, "second@2", "first@1", "default", str(first))
    check_told(deployment.cli("release", "show", "1"), 0, "first@1", manifest_sha256(first))
    check_told(deployment.cli("release", "show", "9"), DATA, "no release '9'", "eddyline release list")

    check_told(deployment.cli("release", "rollback"), 0, "first@1 stands again, in place of second@2")
    serves(worker, "first@1")
    check_serves(deployment, worker, "first@1", 1)
    check_told(deployment.cli("release", "rollback", "--to", "second@2"), 0, "second@2 stands again")
    serves(worker, "second@2")
    corrupt(first)
    check_told(deployment.cli("release", "rollback"), DATA, "model.safetensors: not the file the manifest names")
    check_serves(deployment, worker, "second@2", 2)
    announce(deployment, second, "third")
    serves(worker, "third@3")
    log = worker.log.read_text()
    assert "Traceback" not in log and "version/" not in log and worker.stop() == 0


def cut(folder: Path) -> Path:
    """Lose the end of a model's weights."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


def of_another_format(folder: Path) -> Path:
    """As a later version of eddyline would write it."""
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": checkpoint.FORMAT + 1}))
    return folder


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda f: corrupt(save_model(f)), "model.safetensors: not the file the manifest names;"),
        (lambda f: cut(save_model(f)), "(cut short: 1,000 of"),
        (lambda f: save_model(f, text_dim=8), "reads text vectors of 8 dimensions, and the text encoder makes 384"),
        (lambda f: of_another_format(save_model(f)), "format 2, this version reads 1; install the eddyline here"),
    ],
    ids=["corrupt", "truncated", "wrong dimension", "later format"],
)
def test_a_bad_release_is_refused(deployment: Deployment, make: Callable[[Path], Path], words: str) -> None:
    """With the reason, while the old one serves."""
    announce(deployment, save_model(deployment.folder / "good"), "good")
    worker = deployment.worker().ready()
    check_serves(deployment, worker, "good@1", 0)
    folder = make(deployment.folder / "bad")
    bad = Release("bad", 2, str(folder), manifest_sha256(folder))
    topic = deployment.settings.topics.release
    deployment.send_raw_to(topic, 0, [(b"default", msgspec.json.encode(bad))])
    until(lambda: words in refused(worker), 60, words)
    assert refused(worker).startswith("bad@2: ")
    check_serves(deployment, worker, "good@1", 1)
    check_told(deployment.cli("release", "rollback", "--to", "1"), 0, "good@1 stands again")
    until(lambda: not refused(worker), 60, "nothing is refused any more")
    check_serves(deployment, worker, "good@1", 2)
    log = worker.log.read_text()
    assert words in log and "Traceback" not in log and worker.stop() == 0


def save_measured(folder: Path, ndcg: float) -> Path:
    """A model that says how good it is on the questions of one data set."""
    torch.manual_seed(0)
    model = Recommender(ModelConfig(dim=16, layers=1, items=1)).eval()
    fitted = {"ndcg@10": ndcg, "hr@10": 2 * ndcg, "events": 50}
    model.metrics = {"validation": fitted, "events": 500, "held_out": 50}
    checkpoint.save(folder, model, NOW, data="the same")
    return folder


def test_a_worse_release_is_refused_with_the_reason_unless_forced_while_the_old_one_serves(
    deployment: Deployment,
) -> None:
    good, worse = save_measured(deployment.folder / "1", 0.2), save_measured(deployment.folder / "2", 0.18)
    announce(deployment, good, "good")
    worker = deployment.worker().ready()
    asked = ("release", "announce", str(worse), "--name", "worse")
    words = "is worse than good@1 by more than 5%: NDCG@10 0.1800, good@1 0.2000, by 50 questions"
    check_told(deployment.cli(*asked), DATA, words, "--force")
    check_serves(deployment, worker, "good@1", 0)
    check_told(deployment.cli("release", "show"), 0, "good@1")
    check_told(deployment.cli(*asked, "--margin", "0.2"), 0, "worse@2 announced")
    check_told(deployment.cli("release", "rollback"), 0, "good@1 stands again")
    check_told(deployment.cli(*asked, "--force"), 0, "worse@3 announced")
    shown = json.loads(deployment.cli("release", "show", "3", "--json").output)
    assert shown["metrics"]["gate"]["forced"] and shown["metrics"]["gate"]["against"] == "good@1"
    assert shown["data"] == "the same"
    serves(worker, "worse@3")
    check_serves(deployment, worker, "worse@3", 1)
    assert worker.stop() == 0


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """A folder on a web server."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_release_is_fetched_from_a_web_server_and_tried_again_until_it_is_whole(deployment: Deployment) -> None:
    models = deployment.folder / "models"
    cache = {"EDDYLINE_CACHE": str(deployment.folder / "of-the-worker")}
    save_model(models / "1")
    save_measured(models / "2", 0.2)
    weights = models / "2" / "model.safetensors"
    with site(models) as address:
        check_told(deployment.cli("release", "announce", f"{address}/1", "--name", "first"), 0, f"from {address}/1")
        worker = deployment.worker(**cache).ready()
        check_serves(deployment, worker, "first@1", 0)
        check_told(deployment.cli("release", "announce", f"{address}/3"), DATA, "3 is no model folder", "upload")
        whole = weights.read_bytes()
        weights.write_bytes(whole[:1000])
        check_told(deployment.cli("release", "announce", f"{address}/2"), DATA, "model.safetensors has 1,000 of")
        second = Release("second", 2, f"{address}/2", manifest_sha256(models / "2"))
        deployment.send_raw_to(deployment.settings.topics.release, 0, [(b"default", msgspec.json.encode(second))])
        until(lambda: "has 1,000 of" in refused(worker), 60, "the worker says what is wrong")
        check_serves(deployment, worker, "first@1", 1)
        weights.write_bytes(whole)
        serves(worker, "second@2")
        check_serves(deployment, worker, "second@2", 2)
    assert worker.stop() == 0
    again = deployment.worker(**cache).ready()  # with the server away
    check_serves(deployment, again, "second@2", 3)
    assert again.stop() == 0 and "Traceback" not in again.log.read_text() + worker.log.read_text()


def test_a_swap_under_load_loses_nothing(deployment: Deployment) -> None:
    announce(deployment, save_model(deployment.folder / "1"), "first")
    worker = deployment.worker().ready()
    events = some_events(1200, users=40)
    stop, sent = threading.Event(), 0

    def send() -> None:
        nonlocal sent
        while not stop.is_set() and sent < len(events):
            deployment.send(events[sent : sent + 10])
            sent += 10
            time.sleep(0.05)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        until(lambda: worker.status()["lists"] > 50, 60, "lists are made")
        announce(deployment, save_model(deployment.folder / "2"), "second")
        serves(worker, "second@2")
        before = worker.status()["lists"]
        until(lambda: worker.status()["lists"] > before + 50 or not sender.is_alive(), 60, "and go on")
    finally:
        stop.set()
        sender.join()
    deployment.settled()
    check_answered(deployment)
    lists = deployment.lists()
    assert {one.model for one in lists} == {"first@1", "second@2"} and len({one.id for one in lists}) == len(lists)
    assert {one.user for one in lists} == {e.user for e in events[:sent]}
    assert "Traceback" not in worker.log.read_text() and worker.stop() == 0
