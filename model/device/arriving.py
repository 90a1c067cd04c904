"""A micro-batch on a device: columns that come in one copy, and the catalogue rows of what is in them.

Not what is made of it (`lists.py`). Names: B users, L interactions of a history, K of a window, N items of the
catalogue, X vectors of profiles, P their length, -1 = none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.baselines import Reading, joined
from model.catalog import Catalog
from model.history import Histories

WORD = 8
"""Bytes that every column begins at a multiple of."""
SIGNED = {np.dtype(np.uint64): np.dtype(np.int64), np.dtype(np.uint32): np.dtype(np.int32)}
"""torch has few operations for unsigned numbers: those of the same bits stand for them."""
LOW = 0xFFFFFFFF


def carried(columns: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """The columns as tensors of their types and shapes (u64 and u32 signed, of the same bits): all cross in one buffer,
    which a GPU reads by itself while the host goes on.
    """
    ends = np.cumsum([0, *(-(-column.nbytes // WORD) * WORD for column in columns)]).tolist()
    buffer = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=device.type == "cuda")
    filled = buffer.numpy()
    for column, at in zip(columns, ends, strict=False):
        filled[at : at + column.nbytes] = column.reshape(-1).view(np.uint8)
    there = buffer.to(device, non_blocking=True)
    return [
        there[at : at + column.nbytes].view(_type(column)).view(column.shape)
        for column, at in zip(columns, ends, strict=False)
    ]


def _type(column: NDArray[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, SIGNED.get(column.dtype, column.dtype))).dtype


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Histories [B,L]: rows i64 of the catalogue, hashes i64 (0 = none), actions i64, times i64 (ms), weights f32;
    lengths i64[B]; beyond them seen i64[S] (4-byte hashes) of users owner i64[S]. Profiles as `Reading` has them.
    """

    rows: Tensor
    hashes: Tensor
    actions: Tensor
    times: Tensor
    weights: Tensor
    lengths: Tensor
    seen: Tensor
    owner: Tensor
    flat: Tensor
    at: Tensor
    mask: Tensor

    def reading(self, k: int, ttl_ms: int | None) -> Reading:
        """Windows as `Engine.window_rows` has them, what is outside the catalogue closed up, and profiles."""
        users, length = self.rows.shape
        wide, of_profiles = min(k, length), (self.flat, self.at, self.mask)
        if not wide:
            none = self.rows.new_zeros(users, 1)
            return Reading(none - 1, none, none, none.float(), *of_profiles)
        columns = self.rows, self.actions, self.times, self.weights
        rows, actions, times, weights = (column[:, length - wide :] for column in columns)
        place = torch.arange(wide, device=rows.device)
        there = (place >= wide - self.lengths[:, None]) & (rows >= 0)
        if ttl_ms is not None:
            there &= times >= times[:, -1:] - ttl_ms
        order = there.to(torch.uint8).argsort(stable=True, dim=1)
        there = there.gather(1, order)

        def moved(column: Tensor, nothing: int) -> Tensor:
            return torch.where(there, column.gather(1, order), nothing)

        return Reading(moved(rows, -1), moved(actions, 0), moved(times, 0), moved(weights, 0), *of_profiles)


class Known:
    """The items of a catalogue by their hashes, on a device."""

    def __init__(self, catalog: Catalog, device: torch.device) -> None:
        hashes, seen = catalog.hashes.view(np.int64), catalog.seen32.astype(np.int64)
        order, by_seen = np.argsort(hashes), np.argsort(seen, kind="stable")
        runs = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(seen[by_seen]) != 0, [True]])))
        self._alike = int(runs.max(initial=1))
        self._hashes, self._rows, self._seen, self._seen_rows = carried(
            [hashes[order], order, seen[by_seen], by_seen], device
        )

    def rows(self, hashes: Tensor) -> Tensor:
        """Catalogue rows of hashes i64, of the same shape."""
        place = torch.searchsorted(self._hashes, hashes).clamp(max=len(self._hashes) - 1)
        return torch.where(self._hashes[place] == hashes, self._rows[place], -1)

    def keys(self, seen: Tensor, owner: Tensor) -> Tensor:
        """Keys user x N + row of all items that have these 4-byte hashes i64[S], of users i64[S]."""
        first, last = torch.searchsorted(self._seen, seen), len(self._seen) - 1
        found = []
        for beyond in range(self._alike):  # once, or twice where two items share a hash
            place = (first + beyond).clamp(max=last)
            same = (first + beyond <= last) & (self._seen[place] == seen)
            found.append((owner * len(self._seen) + self._seen_rows[place])[same])
        return torch.cat(found)

    def batch(self, h: Histories, profiles: Sequence[NDArray[np.float32]], dim: int, device: torch.device) -> Batch:
        """Histories and their profiles f32[S,dim] on the device, by one copy."""
        flat, there, mask = joined(list(profiles), dim)
        owner = np.repeat(np.arange(len(h)), np.diff(h.seen_offsets))
        columns = [h.items, h.actions, h.times, h.weights, h.lengths, h.seen, owner, flat, np.flatnonzero(there), mask]
        hashes, actions, times, weights, lengths, seen, *others = carried(columns, device)
        rows = self.rows(hashes)
        return Batch(rows, hashes, actions.long(), times, weights, lengths.long(), seen.long() & LOW, *others)
