"""Several processes that train one model, each with its share of every step: data-parallel, as `torchrun` starts them.

Not a launcher. All processes draw the same windows from the same seed, so no data is sent: each takes every n-th window
of a step, gradients are averaged by how many targets stand behind them, and every process takes the same step. A step
is of as many windows as without, so a run's settings mean the same however many train. Only the first process writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """Process number `rank` of `size`. One alone needs nobody."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one reads, decides and writes for all."""
        return self.rank == 0

    def agreed(self, value: T) -> T:
        """What the first process brings, whatever the others do."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def averaged(self, parameters: Sequence[Tensor], loss: float, targets: int) -> float | None:
        """Every process's gradients become the mean over all targets; one that no process has stays away. Gives the
        mean loss, or None where nobody had a target.
        """
        if self.size == 1:
            return loss if targets else None
        has = [p.grad is not None for p in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        said = torch.tensor([loss, 1.0, *map(float, has)], device=parameters[0].device)
        flat = torch.cat([said, *(g.flatten().float() for g in gradients)]) * targets
        dist.all_reduce(flat)
        total = flat[1].item()
        if not total:
            return None
        flat /= total
        had, parts = flat[2 : len(said)].tolist(), flat[len(said) :].split([p.numel() for p in parameters])
        for p, part, some in zip(parameters, parts, had, strict=True):
            p.grad = part.view_as(p).to(p.dtype) if some else None
        return flat[0].item()


@contextmanager
def joined(device: str) -> Iterator[tuple[Group, str]]:
    """The group that `torchrun` started this process in, and the device that is its own; else one process alone."""
    if not dist.is_torchelastic_launched():
        yield Group(), device
        return
    cuda = device.startswith("cuda")
    if cuda:
        device = f"cuda:{int(os.environ['LOCAL_RANK'])}"  # as torchrun says
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield Group(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
