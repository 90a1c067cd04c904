"""A data set that nobody has seen, through the two commands, with no other argument: trained, compared, and best."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from model import checkpoint
from stream.console.cli import app

PARTS, PEOPLE, STEPS = 60, 260, 18
OURS = "cnn-lstm-attention/pooled/attention"
VENDORS = ("Ålborg", "Kvist & Søn", "Tide")


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shop of machine parts: whoever put one into the cart needs the one that fits behind it, and whoever shared one
    is looking for what goes instead; four times of five.
    """
    rng = np.random.default_rng(5)
    follows = {action: rng.permutation(PARTS) for action in ("add_to_cart", "share")}
    names = np.array([f"SKU/{k * 7919 % 10_000:04}-{VENDORS[k % 3][0]}" for k in range(PARTS)])
    rows = []
    for person in range(PEOPLE):
        at, begin = int(rng.integers(PARTS)), int(rng.integers(200 * 86_400_000))
        for step in range(STEPS):
            ts = 1_750_000_000_000 + begin + step * 60_000
            action = str(rng.choice(list(follows)))
            rows.append((f"kunde {person}", names[at], action, ts))
            at = int(follows[action][at] if rng.random() < 0.8 else rng.integers(PARTS))
    events = pl.DataFrame(rows, schema=["user", "item", "action", "ts"], orient="row")
    folder = tmp_path / "werkstatt"
    folder.mkdir()
    events.sample(fraction=1.0, shuffle=True, seed=1).write_csv(folder / "events.csv")
    kinds = [f"{VENDORS[k % 3]}|size {k % 5}" for k in range(PARTS)]
    pl.DataFrame({"item": names, "title": [f"part {n}" for n in names], "categories": kinds}).write_csv(
        folder / "items.csv"
    )
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_folder_nobody_has_seen_is_trained_and_beats_item_knn_and_popularity(workshop: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(workshop)])
    assert done.exit_code == 0, done.output
    assert checkpoint.load(Path("models/werkstatt")).config.items == PARTS
    done = CliRunner().invoke(app, ["evaluate", str(workshop), "--json"])  # as it would print, for programs
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)["rows"]["temporal"]
    assert row["best"] == OURS
    for other in ("item-knn", "popular"):
        behind = row["behind"][other]
        assert behind["hr@10"][0] > 0, behind
        assert behind["ndcg@10"][1] > 0, behind  # the low end of the interval
