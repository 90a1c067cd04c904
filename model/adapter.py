"""What was learned to change in a text encoder: small matrices beside its large ones, and the weights they belong to.

Not how they are learned (`adapt.py`) and not the encoder (`encoder.py`, which merges them). A layer W becomes W + B A,
where A and B are of a low rank (LoRA; Hu et al. 2021), so an adapter is a hundredth of what it adapts, and a merged
encoder is as fast as it was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn


class AdapterError(ValueError):
    """An adapter that does not fit the encoder it is put into; the message says what does."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """base: `TextEncoder.base_id` of the weights that it was learned on. down, up: A f32[R,I] and B f32[O,R] of each
    linear layer, by its name in the encoder; a scale is in B already.
    """

    base: str
    down: Mapping[str, NDArray[np.float32]]
    up: Mapping[str, NDArray[np.float32]]

    @cached_property
    def id(self) -> str:
        """Names it: changes when a number of it does."""
        digest = blake2b(self.base.encode(), digest_size=12)
        for name in sorted(self.down):
            digest.update(name.encode() + self.down[name].tobytes() + self.up[name].tobytes())
        return digest.hexdigest()

    def merge(self, encoder: nn.Module) -> None:
        """Adds each B A to the weight of its layer. Raises AdapterError where there is no such layer."""
        layers = dict(encoder.named_modules())
        with torch.no_grad():
            for name, down_RI in self.down.items():
                weight_OI = getattr(layers.get(name), "weight", None)
                change_OI = torch.from_numpy(self.up[name] @ down_RI)
                if weight_OI is None or weight_OI.shape != change_OI.shape:
                    raise AdapterError(f"the text encoder has no layer {name} of {tuple(change_OI.shape)}")
                weight_OI += change_OI.to(weight_OI)

    def save(self, path: Path) -> None:
        tensors = {f"{name}.A": a for name, a in self.down.items()} | {f"{name}.B": b for name, b in self.up.items()}
        save_file(tensors, path, metadata={"base": self.base})

    @staticmethod
    def load(path: Path) -> Adapter:
        """Raises safetensors' SafetensorError for a file that is not whole."""
        with safe_open(path, framework="np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            base = (file.metadata() or {}).get("base", "")
        parts = ({n.removesuffix(end): t for n, t in found.items() if n.endswith(end)} for end in (".A", ".B"))
        return Adapter(base, *parts)
