"""A training's curve as events for TensorBoard. Not the record of it: `experiment.json` has the same and more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHOWN = ("loss", "hr", "ndcg")


class BoardError(RuntimeError):
    """Events cannot be written; the message says what to do."""


class Board:
    """Takes what `train` reports of each epoch. An interrupted run that goes on writes into the same folder."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as e:
            raise BoardError("--tensorboard needs its library: pip install 'eddyline[tensorboard]'") from e
        self._writer = SummaryWriter(str(folder))

    def __call__(self, at: dict[str, Any]) -> None:
        for name in SHOWN:
            if name in at:
                self._writer.add_scalar(f"{at['phase']}/{name}", at[name], at["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """All is written."""
        self._writer.close()
