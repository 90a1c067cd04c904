"""Periodic retraining as it is documented: what Kubernetes is told is valid, and what it runs trains and releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml

from model import checkpoint
from model.config import ModelConfig
from model.mix import Mix
from model.recommender import Recommender
from tests.pipeline.harness import ITEMS, Deployment
from tests.pipeline.test_errors import DATA, check_told
from tests.pipeline.test_release import NOW

ROOT = Path(__file__).parents[2]
RETRAIN = ROOT / "deploy" / "retrain"
TINY = {"EPOCHS": "3", "MODEL__DIM": "16", "MODEL__LAYERS": "1", "MODEL__SHORT_TERM": "cnn", "LEARNING_RATE": "0.01"}


def manifest() -> dict[str, Any]:
    return yaml.safe_load((RETRAIN / "cronjob.yaml").read_text())


def container() -> dict[str, Any]:
    (only,) = manifest()["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return only


def shop(folder: Path, users: int = 60, steps: int = 9) -> Path:
    """Users who go round the items one by one."""
    folder.mkdir()
    (folder / "items.csv").write_text("item,title\n" + "".join(f"{i.item},{i.title}\n" for i in ITEMS))
    rows = [f"u{u},i{(u + n) % len(ITEMS)},click,{1000 * (users * n + u)}" for n in range(steps) for u in range(users)]
    (folder / "events.csv").write_text("\n".join(["user,item,action,ts", *rows]))
    return folder


def test_kubernetes_takes_the_cron_job() -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest(), kubernetes_validate.latest_version(), strict=True)


def test_cron_and_kubernetes_run_the_same() -> None:
    script = [line for line in (RETRAIN / "retrain.sh").read_text().splitlines() if not line.startswith("#")]
    assert script == container()["args"][0].splitlines()
    assert os.access(RETRAIN / "retrain.sh", os.X_OK)


def test_what_the_cron_job_runs_trains_a_model_and_releases_it_and_refuses_a_worse_one(deployment: Deployment) -> None:
    torch.manual_seed(0)
    poor = Recommender(ModelConfig(dim=16, layers=1, items=1, mix=Mix(online=0.0))).eval()  # counts alone would do
    poor.record = {"until": 0}
    checkpoint.save(deployment.folder / "poor", poor, NOW)
    announce = ("release", "announce", str(deployment.folder / "poor"))
    check_told(deployment.cli(*announce, "--name", "poor"), 0, "poor@1")

    data, models = shop(deployment.folder / "shop"), deployment.folder / "models"
    models.mkdir()
    environ = {**os.environ, **deployment.environ, **{f"EDDYLINE_TRAIN__{n}": value for n, value in TINY.items()}}
    environ |= {"DATA": str(data), "MODELS": str(models)}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    only = container()
    done = subprocess.run([*only["command"], *only["args"]], env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (folder,) = models.iterdir()
    shown = json.loads(deployment.cli("release", "show", "--json").output)
    assert (shown["version"], shown["location"], shown["follows"]) == (2, str(folder), 1)
    gate = shown["metrics"]["gate"]
    assert gate["against"] == "poor@1" and gate["questions"] == 27 and gate["ndcg@10"] > gate["running_ndcg@10"]
    assert shown["data"] == checkpoint.manifest(folder).data

    words = f"is worse than {shown['model']}@2 by more than 5%"
    check_told(deployment.cli(*announce, "--gate", str(data)), DATA, words, "difference", "--force")
    assert json.loads(deployment.cli("release", "show", "--json").output)["version"] == 2
