"""Serve: from columns in host memory to finished lists with reasons, on one thread.

A shop of 100,000 items (`shop.py`: an HNSW graph, counts, a model of the default shape with random weights), rules of
several kinds, MMR, and reasons. Three systems take turns on the same batches of users:

    ours    the engine, as a worker calls it, to `RankedLists`; messages, one object a user, are timed apart
    parts   the bare forward of the model over tensors that are there, and the bare FAISS search of its vectors
    eager   the same steps by plain PyTorch and FAISS with a loop over users (`eager.py`), whose lists must be ours

Times are of the CPU of the process, and of the clock; figures are medians of rounds, ratios medians of the rounds' own.
The last line is JSON. With `--device cuda` lists are made by tensors on a GPU (`model/device/`), where all items are
compared; `--tensors` has the same on a CPU. The other two systems are of a CPU.

    make bench NAME=serve
    make bench NAME=serve ARGS="--device cuda --systems ours --items 1000000 --batches 256 1024 4096"
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from index.graph import width_for
from index.held import use_threads
from model import fusion
from model.baselines import padded
from model.fusion import Fused
from model.history import Histories
from model.reasons import RankedLists
from tests.bench import common
from tests.bench.eager import PLACES, SOUGHT, Eager, Listed
from tests.bench.shop import Shop, shop

SYSTEMS = ("ours", "parts", "eager")
SAME = 0.9
"""Of users, whose lists must be ours: the sums of two ways to the same number differ, and neighbours change places."""
Batch = tuple[Histories, list[NDArray[np.float32]]]


class Took(NamedTuple):
    """Seconds."""

    cpu: float
    clock: float


def timed(act: Callable[[], Any]) -> tuple[Took, Any]:
    """How long something takes, and what it returns."""
    cpu, clock = time.process_time(), time.perf_counter()
    made = act()
    return Took(time.process_time() - cpu, time.perf_counter() - clock), made


class Ours:
    """What a worker does of a micro-batch on its device thread, to columns."""

    def __init__(self, world: Shop) -> None:
        self._world = world

    def lists(self, h: Histories, profiles: list[NDArray[np.float32]]) -> RankedLists:
        engine, online = self._world.engine, self._world.online
        fused = engine.encode(h, profiles, None, True)
        return engine.lists(h, fused, self._world.index.search, online, PLACES, SOUGHT)


class Parts:
    """The bare forward and the bare search."""

    def __init__(self, world: Shop, params: Any) -> None:
        self._world, self._params = world, params
        self._items = torch.from_numpy(world.engine.item_vectors)

    def of(self, h: Histories, profiles: list[NDArray[np.float32]]) -> Callable[[], NDArray[np.int64]]:
        """Tensors made beforehand, and what is then to be timed."""
        model, engine = self._world.model, self._world.engine
        window, rows = engine.window_rows(h)
        rows_BK = torch.from_numpy(rows.astype(np.int64))
        times_BK, actions_BK = torch.from_numpy(window.times), torch.from_numpy(window.actions.astype(np.int64))
        profile_BSP, mask_BS = padded(profiles, model.config.text_dim, "cpu")

        def forward() -> Fused:
            there_BK = rows_BK >= 0
            items_BKD = self._items[rows_BK.clamp(min=0)] * there_BK[..., None]
            short_BD = model.short(items_BKD, actions_BK, times_BK, there_BK, last=True)
            facts_B2 = fusion.window_facts(times_BK, there_BK)[:, -1]
            return model.fuse(short_BD, model.project(profile_BSP), mask_BS, facts_B2)

        def act() -> NDArray[np.int64]:
            with torch.inference_mode():
                vectors = forward().vectors.numpy()
            return self._world.index.structure.search(vectors, SOUGHT, params=self._params)[1]

        return act


def same(ours: RankedLists, theirs: list[Listed]) -> tuple[int, int]:
    """How many users have one list, and of the items of these how many have one first reason."""
    kinds = {"interaction", "taste", "popular"}
    lists = first = 0
    for mine, other in zip(ours, theirs, strict=True):
        if mine.items.tolist() != other.items or not np.allclose(mine.scores, other.scores, rtol=1e-3, atol=1e-6):
            continue
        lists += 1
        assert all(reason.type in kinds for why in mine.reasons for reason in why)
        said = [(why[0].type, why[0].item) if why else None for why in mine.reasons]
        first += said == [(why[0][0], why[0][2]) if why else None for why in other.reasons]
    return lists, first


def measure(world: Shop, size: int, rounds: int, systems: list[str]) -> dict[str, Any]:
    """Rounds of batches of so many users, by turns; a round does at least 64 of them."""
    params = faiss.SearchParametersHNSW(efSearch=width_for(len(world.catalog)))  # pyright: ignore[reportAttributeAccessIssue]
    ours, parts = Ours(world), Parts(world, params)
    eager = Eager(world, world.index.structure, params)
    users, many = len(world.histories), max(1, 64 // size)
    took: dict[str, list[Took]] = {name: [] for name in systems}
    agreed = np.zeros(3, np.int64)
    for number in range(rounds + 1):  # the first warms up
        at = (number * many * size + np.arange(many * size)) % users
        batches = [world.users(part) for part in np.split(at, many)]
        made: dict[str, list[Any]] = {}
        for name in systems:
            acts = [_act(name, batch, ours, parts, eager) for batch in batches]
            spent, made[name] = timed(lambda acts=acts: [act() for act in acts])
            if number:
                took[name].append(spent)
        if "eager" in systems:
            for mine, other in zip(made["ours"], made["eager"], strict=True):
                agreed += [*same(mine, other), len(mine)]
    if "eager" in systems and agreed[0] < SAME * agreed[2]:
        raise SystemExit(f"only {agreed[0]} of {agreed[2]} eager lists are ours: they are not the same steps")
    return figures(took, size * many, agreed)


def _act(name: str, batch: Batch, ours: Ours, parts: Parts, eager: Eager) -> Callable[[], Any]:
    if name == "parts":
        return parts.of(*batch)
    return (lambda: ours.lists(*batch)) if name == "ours" else (lambda: eager.lists(*batch))


def figures(took: dict[str, list[Took]], users: int, agreed: NDArray[np.int64]) -> dict[str, Any]:
    """Users a second of each system, and what ours is to the others, by CPU and by the clock."""
    out: dict[str, Any] = {}
    for kind, prefix in (("cpu", ""), ("clock", "clock_")):
        seconds = {name: np.array([getattr(t, kind) for t in rounds]) for name, rounds in took.items()}
        for name, of in seconds.items():
            out[f"{prefix}{'' if name == 'ours' else name + '_'}users_per_s"] = round(users / float(np.median(of)), 1)
        if "parts" in seconds:
            out[f"{prefix}share_of_parts"] = round(float(np.median(seconds["parts"] / seconds["ours"])), 3)
        if "eager" in seconds:
            out[f"{prefix}times_eager"] = round(float(np.median(seconds["eager"] / seconds["ours"])), 2)
    if agreed[2]:
        out["lists_as_eager"] = round(float(agreed[0] / agreed[2]), 4)
        out["first_reasons_as_eager"] = round(float(agreed[1] / max(agreed[0], 1)), 4)
    return out


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="ours is needed")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1, help="of torch and of FAISS, for all alike")
    parser.add_argument("--device", default="cpu", help="torch's name of where lists are made; cpu: with an index")
    parser.add_argument("--tensors", action="store_true", help="as on a GPU, wherever that is")
    args = parser.parse_args()
    if (args.tensors or args.device != "cpu") and args.systems != ["ours"]:
        parser.error("parts and eager are of a CPU with an index: add --systems ours")
    torch.set_num_threads(args.threads)
    use_threads(args.threads)
    with common.told(f"a shop of {args.items:,} items"):
        world = shop(args.items, args.users, device=args.device, tensors=args.tensors)
    found = {size: measure(world, size, args.rounds, args.systems) for size in args.batches}
    last = max(args.batches)
    result: dict[str, Any] = {"bench": "serve", "items": args.items, "threads": args.threads, "batch": last}
    result |= {"device": torch.cuda.get_device_name(args.device) if args.device != "cpu" else "cpu"}
    result |= found[last] | {f"{k}_{size}": v for size, of in found.items() if size != last for k, v in of.items()}
    columns = ["batch", "users / CPU-s", "users / s", "of parts, by CPU", "by the clock", "times eager", "by the clock"]
    keys = ("users_per_s", "clock_users_per_s", "share_of_parts", "clock_share_of_parts", "times_eager")
    table = [
        [f"{size:,}", *(f"{of[k]:,}" if k in of else "" for k in (*keys, "clock_times_eager"))]
        for size, of in found.items()
    ]
    common.report("serve", columns, table, result)


if __name__ == "__main__":
    main()
