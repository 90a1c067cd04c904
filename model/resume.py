"""An interrupted training goes on where it was: the state after an epoch, as one file beside the model folder.

Not a model folder (`checkpoint.py`): it is there while a training runs and goes when it ends. It is taken up only by
the same training, named by a key; weights, optimiser and random numbers are those of the epoch, so that on one
machine's CPU an interrupted run ends with the very weights of one that was not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


@dataclass(frozen=True, eq=False)
class State:
    """numbers: what JSON can say, `phase` and `epoch` among it; tensors by name."""

    numbers: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin so, without it."""
        return {name[len(prefix) :]: t for name, t in self.tensors.items() if name.startswith(prefix)}


def key(*parts: Any) -> str:
    """Names a training by all that it depends on: models (pydantic), arrays and strings."""
    digest = hashlib.sha256(torch.__version__.encode())
    for part in parts:
        raw = np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        digest.update(raw + b"\0")
    return digest.hexdigest()


def write(path: Path, name: str, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Replaces the file whole. name: see `key`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    said = {"key": name, "numbers": json.dumps(numbers)}
    save_file({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}, partial, said)
    partial.replace(path)


def read(path: Path, name: str) -> State | None:
    """What was written under this name; None where there is nothing, or something else, or half of it."""
    try:
        with safe_open(path, "pt") as file:
            said = file.metadata() or {}
            if said.get("key") != name:
                return None
            return State(json.loads(said["numbers"]), {n: file.get_tensor(n) for n in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError):
        return None


def randomness(rng: np.random.Generator) -> tuple[dict[str, Any], Tensor]:
    """The state of `rng` and of torch's own generator."""
    return dict(rng.bit_generator.state), torch.get_rng_state()


def restore_randomness(rng: np.random.Generator, numbers: dict[str, Any], state: Tensor) -> None:
    """Back to what `randomness` gave."""
    rng.bit_generator.state = numbers
    torch.set_rng_state(state)


def flat(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as tensors by name."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": t for i, of in state.items() for name, t in of.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Back to what `flat` gave."""
    whole: dict[str, Any] = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, what = name.partition(".")
        state.setdefault(int(number), {})[what] = tensor
    optimizer.load_state_dict(whole | {"state": state})
