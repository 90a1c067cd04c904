"""An interrupted training goes on where it was, and ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model import checkpoint, resume
from model.encoder import TextEncoder
from model.train import train
from stream.console import training
from tests.model.test_train import TEXT, TINY
from tests.model.worlds import RING, ring_walks, text_vectors

EVENTS, CATALOG = ring_walks(users=20)
SHORT = TINY.model_copy(update={"epochs": 3, "patience": 9, "shuffle": True, "ema": 0.5, "held_out": 0.3})


class Stopped(Exception):
    """As Ctrl-C would."""


def interrupted(path: Path, after: tuple[str, int]) -> None:
    def tell(at):
        if (at["phase"], at["epoch"]) == after:
            raise Stopped

    with pytest.raises(Stopped):
        train(EVENTS, CATALOG, TEXT, SHORT, tell, resumable=path)


@pytest.fixture(scope="module")
def whole():
    return train(EVENTS, CATALOG, TEXT, SHORT)


@pytest.mark.parametrize("after", [("fit", 1), ("fit", 3), ("refit", 1)])
def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(tmp_path, whole, after):
    path, told = tmp_path / "one.training", []
    interrupted(path, after)
    torch.rand(100)  # whatever else has drawn random numbers
    model = train(EVENTS, CATALOG, TEXT, SHORT, told.append, resumable=path)
    assert all(torch.equal(model.state_dict()[n], t) for n, t in whole.state_dict().items())
    order = [(phase, epoch) for phase in ("fit", "refit") for epoch in range(1, SHORT.epochs + 1)]
    whole_epochs = [at for at in order if at[0] == "fit" or at[1] <= whole.metrics["epochs"]]
    assert [(t["phase"], t["epoch"]) for t in told] == whole_epochs[whole_epochs.index(after) + 1 :]

    def losses(m):
        return [(e["phase"], e["epoch"], e["loss"]) for e in m.record["curve"]]

    assert losses(model) == losses(whole) and model.config == whole.config
    assert not path.exists()


def test_another_training_does_not_take_it_up(tmp_path):
    path, told = tmp_path / "one.training", []
    interrupted(path, ("fit", 2))
    other = SHORT.model_copy(update={"seed": 5})
    train(EVENTS, CATALOG, TEXT, other, told.append, resumable=path)
    assert told[0]["epoch"] == 1


@pytest.mark.parametrize("content", [None, b"", b"\0" * 50])
def test_what_is_no_state_is_nothing_to_go_on_from(tmp_path, content):
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    assert resume.read(tmp_path / "x", "key") is None


def test_a_command_that_is_killed_goes_on_when_it_is_given_again(tmp_path, monkeypatch, capsys):
    data, out = tmp_path / "shop", tmp_path / "m"
    data.mkdir()
    rows = zip(EVENTS.user, EVENTS.item, EVENTS.ts, strict=True)
    (data / "events.csv").write_text("\n".join(["user,item,action,ts", *(f"{u},{i},click,{t}" for u, i, t in rows)]))
    encoder = TextEncoder(cache=tmp_path)  # BERT takes seconds to load, and is not what is tested
    vectors = text_vectors(RING, 384)
    encoder._write({encoder._key(title): vector for title, vector in zip(CATALOG.ids, vectors, strict=True)})
    given = {"dim": 16, "layers": 1, "epochs": 40, "device": "cpu"}
    for name, value in (("CACHE", tmp_path), ("TRAIN__HELD_OUT", 0.2), ("TRAIN__PATIENCE", 40)):
        monkeypatch.setenv(f"EDDYLINE_{name}", str(value))
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "stream.console.cli", "train", str(data), "--out", str(out), "--json", *flags]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        killed = [json.loads(first.stdout.readline()) for _ in range(3)]
        first.send_signal(signal.SIGKILL)
    assert killed[-1]["epoch"] == 3 and not out.exists()
    training.train(str(data), folder=str(out), as_json=True, **given)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["epoch"] > 3 and told[-1]["folder"] == str(out)
    curve = checkpoint.load(out).record["curve"]
    assert [at["epoch"] for at in curve if at["phase"] == "fit"] == list(range(1, 41))
