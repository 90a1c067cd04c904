"""Events for TensorBoard, read back as it reads them."""

from pathlib import Path

import pytest

from model.board import Board, BoardError


def test_the_curve_is_there(tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = Board(tmp_path / "events")
    board({"phase": "fit", "epoch": 1, "epochs": 2, "loss": 3.0, "hr": 0.25, "ndcg": 0.125, "seconds": 1.0})
    board({"phase": "fit", "epoch": 2, "epochs": 2, "loss": 2.0, "hr": 0.5, "ndcg": 0.25, "seconds": 2.0})
    board({"phase": "refit", "epoch": 1, "epochs": 2, "loss": 2.5, "seconds": 3.0})
    board.close()
    read = EventAccumulator(str(tmp_path / "events")).Reload()
    assert set(read.Tags()["scalars"]) == {"fit/loss", "fit/hr", "fit/ndcg", "refit/loss"}
    assert [(e.step, e.value) for e in read.Scalars("fit/loss")] == [(1, 3.0), (2, 2.0)]
    assert [(e.step, e.value) for e in read.Scalars("fit/ndcg")] == [(1, 0.125), (2, 0.25)]


def test_it_needs_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(BoardError, match=r"eddyline\[tensorboard\]"):
        Board(tmp_path)
