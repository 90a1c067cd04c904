"""Several processes train one model: the model that one process would have trained."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from model import checkpoint
from model.encoder import TextEncoder
from model.parallel import Group
from tests.model.worlds import RING, ring_walks, text_vectors

EVENTS, CATALOG = ring_walks(users=20)
GIVEN = {"dim": 16, "layers": 1, "epochs": 3, "batch": 7, "device": "cpu", "seed": 3}


def shop(tmp_path: Path) -> Path:
    """The ring as a data set, its texts' vectors in the cache: BERT takes seconds to load, and is not tested here."""
    data = tmp_path / "shop"
    data.mkdir()
    rows = zip(EVENTS.user, EVENTS.item, EVENTS.ts, strict=True)
    (data / "events.csv").write_text("\n".join(["user,item,action,ts", *(f"{u},{i},click,{t}" for u, i, t in rows)]))
    encoder = TextEncoder(cache=tmp_path)
    vectors = text_vectors(RING, 384)
    encoder._write({encoder._key(title): vector for title, vector in zip(CATALOG.ids, vectors, strict=True)})
    return data


def trained(data: Path, out: Path, launcher: list[str], env: dict[str, str]) -> list[dict]:
    """What a training told, as its standard output has it."""
    flags = [word for name, value in GIVEN.items() for word in (f"--{name}", str(value))]
    command = [*launcher, "-m", "stream.console.cli", "train", str(data), "--out", str(out), "--json", *flags]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def test_two_processes_end_with_the_weights_of_one(tmp_path: Path):
    data = shop(tmp_path)
    settings = {"CACHE": tmp_path, "TRAIN__HELD_OUT": 0.3, "TRAIN__DROPOUT": 0, "TRAIN__ID_DROPOUT": 0}
    env = {**os.environ, "OMP_NUM_THREADS": "1", **{f"EDDYLINE_{n}": str(v) for n, v in settings.items()}}
    alone = trained(data, tmp_path / "one", [sys.executable], env)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = trained(data, tmp_path / "two", launcher, env)
    assert [(t.get("phase"), t.get("epoch")) for t in both] == [(t.get("phase"), t.get("epoch")) for t in alone]
    one, two = (checkpoint.load(tmp_path / n) for n in ("one", "two"))
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=1e-3, atol=1e-4)
    assert (one.record["environment"]["processes"], two.record["environment"]["processes"]) == (1, 2)
    assert not (tmp_path / "two.training").exists()


def test_one_alone_asks_nobody():
    alone, weight = Group(), torch.ones(2, requires_grad=True)
    (3 * weight.sum()).backward()
    assert alone.averaged([weight], 2.5, 4) == 2.5
    assert weight.grad is not None and weight.grad.tolist() == [3, 3]
    assert alone.averaged([weight], 0.0, 0) is None
    assert alone.first and alone.agreed("it") == "it"
