"""A micro-batch on a device: columns that come in one copy, and the catalogue rows of what is in them.

Not what is made of it (`lists.py`). Names: B users, L interactions of a history, K of a window, N items of the
catalogue, X vectors of profiles, P their length, -1 = none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.baselines import joined
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


class Window(NamedTuple):
    """Windows i64[B,K] each but `there`, bool[B,K], which is False on the left only; K at least 1."""

    rows: Tensor
    actions: Tensor
    times: Tensor
    there: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Histories: rows i64[B,L] of the catalogue, hashes i64[B,L] (0 = none), actions i64[B,L], times i64[B,L], lengths
    i64[B]; beyond them seen i64[S] (4-byte hashes) of users owner i64[S]. Profiles: flat f32[X,P], at i64[X] where they
    stand in [B,S], and mask bool[B,S] of what says anything.
    """

    rows: Tensor
    hashes: Tensor
    actions: Tensor
    times: Tensor
    lengths: Tensor
    seen: Tensor
    owner: Tensor
    flat: Tensor
    at: Tensor
    mask: Tensor

    def window(self, k: int, ttl_ms: int | None) -> Window:
        """As `Engine.window_rows` has it: what is outside the catalogue is closed up."""
        users, length = self.rows.shape
        if not min(k, length):
            none = self.rows.new_full((users, 1), -1)
            return Window(none, torch.zeros_like(none), torch.zeros_like(none), none >= 0)
        wide = min(k, length)
        rows, actions, times = (column[:, length - wide :] for column in (self.rows, self.actions, self.times))
        place = torch.arange(wide, device=rows.device)
        there = (place >= wide - self.lengths[:, None]) & (rows >= 0)
        if ttl_ms is not None:
            there &= times >= times[:, -1:] - ttl_ms
        order = there.to(torch.uint8).argsort(stable=True, dim=1)
        there = there.gather(1, order)

        def moved(column: Tensor, nothing: int) -> Tensor:
            return torch.where(there, column.gather(1, order), nothing)

        return Window(moved(rows, -1), moved(actions, 0), moved(times, 0), there)


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
        columns = [h.items, h.actions, h.times, h.lengths, h.seen, owner, flat, np.flatnonzero(there), mask]
        hashes, actions, times, lengths, seen, owner, flat, at, mask = carried(columns, device)
        seen = seen.long() & LOW
        return Batch(self.rows(hashes), hashes, actions.long(), times, lengths.long(), seen, owner, flat, at, mask)
