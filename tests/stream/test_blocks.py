"""Blocks keep what was put into them, and memory follows what is in use."""

from __future__ import annotations

import numpy as np
import pytest

from stream.windows.blocks import PAGE, Blocks

SIZES = (4, 12, 40)


def contents(blocks: Blocks, handle: int, length: int) -> list[int]:
    start = blocks.start(handle)
    return blocks.data["x"][start : start + length].tolist()


def fill(blocks: Blocks, handles: np.ndarray, length: int) -> None:
    for handle in handles.tolist():
        start = blocks.start(handle)
        blocks.data["x"][start : start + length] = handle


@pytest.mark.parametrize("seed", range(4))
def test_blocks_that_grow_and_go_at_random_keep_their_contents(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = Blocks(SIZES, {"x": np.int64})
    blocks.reserve(6000)
    held: dict[int, int] = {}
    for _ in range(60):
        absent = np.array(sorted(set(range(6000)) - set(held)))
        taken = rng.choice(absent, min(len(absent), int(rng.integers(1, 800))), replace=False)
        classes = rng.integers(0, 3, len(taken))
        blocks.take(taken, classes)
        held.update(zip(taken.tolist(), classes.tolist(), strict=True))
        fill(blocks, taken, 4)
        grow = np.array([h for h, k in held.items() if k < 2 and rng.random() < 0.2], np.int64)
        if len(grow):
            wanted = np.array([rng.integers(held[h] + 1, 3) for h in grow.tolist()])
            blocks.resize(grow, wanted, np.full(len(grow), 4))
            held.update(zip(grow.tolist(), wanted.tolist(), strict=True))
        gone = np.array([h for h in held if rng.random() < 0.15], np.int64)
        blocks.give_back(gone)
        for h in gone.tolist():
            del held[h]
        there = np.array(sorted(held))
        assert blocks.classes(there).tolist() == [held[h] for h in there.tolist()]
        assert all(contents(blocks, h, 4) == [h] * 4 for h in held)
        starts = np.sort(blocks.starts(there))
        sizes = np.array(SIZES)[[held[h] for h in there[np.argsort(blocks.starts(there))].tolist()]]
        assert (starts[1:] >= starts[:-1] + sizes[:-1]).all(), "blocks lie apart"


def test_blocks_that_all_move_up_leave_no_room_behind() -> None:
    blocks = Blocks(SIZES, {"x": np.uint64})
    every = np.arange(20_000)
    blocks.reserve(len(every))
    blocks.take(every, np.zeros(len(every), np.int64))
    for start in range(0, len(every), 100):
        some = every[start : start + 100]
        blocks.resize(some, np.full(100, 1), np.full(100, 4))
    assert len(blocks.data["x"]) < 1.1 * 20_000 * 12 + 8 * PAGE


def test_memory_is_let_go_when_most_blocks_are_given_back() -> None:
    blocks = Blocks(SIZES, {"x": np.uint64})
    every = np.arange(60_000)
    blocks.reserve(len(every))
    blocks.take(every, np.full(len(every), 2))
    kept = every[::10]
    fill(blocks, kept, 40)
    before = len(blocks.data["x"])
    blocks.give_back(np.setdiff1d(every, kept))
    assert len(blocks.data["x"]) < before / 5
    assert all(contents(blocks, h, 40) == [h] * 40 for h in kept.tolist())
    blocks.give_back(kept)
    assert len(blocks.data["x"]) <= 8 * PAGE
