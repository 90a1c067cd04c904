"""Indexes: how fast they are built and searched and what they find, beside plain FAISS of the same kind and hnswlib.

100,000 and 1,000,000 items x 128 by `clustered`, queries from the same distribution, 50 neighbours sought. Each index
is in a process of its own, over the same files; rounds of queries are interleaved, figures are medians of rounds and
ratios medians of the rounds' own ratios. Queries come singly, and in batches of 64 as a worker has them.

`exclude_ratio` is the p50 of single queries that exclude 1,000 of the 10,000 items nearest to each, over that of the
same queries without; `exclude_anywhere_ratio`: 1,000 of all items; `exclude_half_ratio`: 1,000 of the 2,000 nearest;
`exclude_nearest_ratio`: the 1,000 nearest themselves, which a graph has to walk through. `graph_ratio`: ours over the
FAISS graph that it holds, in one process, since two processes with one graph differ by a tenth in how it lies in
memory. The last line is JSON; keys end in the number of items.

    make bench NAME=index
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.graph import BUILD, LINKS, width_for
from tests.bench import common, peers
from tests.bench.peers.seat import K

DIM = 128
QUERIES, EXCLUDING = 1024, 128
"""Queries whose neighbours are known, and those of them that exclude, too."""
SEEN, NEAR = 1_000, 10_000
BATCH = 64
WIDTHS = (64, 96, 128, 192, 256, 384, 512)
"""Values of efSearch whose recall is told."""
KINDS = {"hnsw": ["ours", "faiss", "hnswlib"], "flat": ["ours", "faiss"], "ivf-pq": ["ours", "faiss"]}
COMPARED = 20_000_000
"""Vectors that a round of an index that compares all may look at: a few seconds."""
SEED = 20261127


def clustered(n: int, dim: int, seed: int) -> Iterator[np.ndarray]:
    """Vectors of length 1, f32[n,dim] by parts: a centre and as much noise, so that two of a cluster have a cosine of
    about 1/2. The square root of n centres, the k-th drawn in proportion to 1 / sqrt(k): clusters differ in size.
    """
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((int(n**0.5), dim), np.float32)
    weight = 1 / np.sqrt(np.arange(1, len(centres) + 1))
    while n > 0:
        part = min(n, 65_536)
        vectors = centres[rng.choice(len(centres), part, p=weight / weight.sum())]
        vectors += rng.standard_normal((part, dim), np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        n -= part


class World:
    """Vectors, queries and exclusions of one size in files, and what is to be found."""

    def __init__(self, folder: Path, items: int) -> None:
        made = np.concatenate(list(clustered(items + QUERIES, DIM, SEED)))
        made, queries = made[:items], made[items:]
        self._folder, self.items = folder, items
        self.vectors, self.queries = self._kept("vectors", made), self._kept("queries", queries)
        self.truth = exact(made, queries, K)
        self._near = exact(made, queries[:EXCLUDING], min(NEAR, items))
        rng = np.random.default_rng(SEED)
        self._seen = {
            "near": rng.permuted(self._near, axis=1)[:, :SEEN],
            "half": rng.permuted(self._near[:, : 2 * SEEN], axis=1)[:, :SEEN],
            "anywhere": np.stack([rng.choice(items, SEEN, replace=False) for _ in self._near]),
            "nearest": self._near[:, :SEEN],
        }
        self.excluded = {name: self._kept(name, seen) for name, seen in self._seen.items()}

    def recall(self, found: np.ndarray, excluding: str | None = None) -> float:
        """Share of the K nearest that may be found, i64[Q,K], that were."""
        truth = self.truth if excluding is None else self._left(excluding)
        return float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))

    def _left(self, name: str) -> np.ndarray:
        rows = zip(self._near, self._seen[name], strict=True)
        return np.stack([near[~np.isin(near, seen)][:K] for near, seen in rows])

    def _kept(self, name: str, values: np.ndarray) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, values)
        return str(path)


def exact(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Rows of the k nearest, i64[Q,k], a few queries at a time."""
    parts = (queries[first : first + BATCH] for first in range(0, len(queries), BATCH))
    return np.concatenate([faiss.knn(part, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)[1] for part in parts])


class Process:
    """An index in a process of its own."""

    def __init__(self, system: str, kind: str, threads: int) -> None:
        if system == "hnswlib":
            program = Path(peers.__file__).parent / "hnsw.py"
            command = [str(peers.environment() / "python"), str(program), str(LINKS), str(BUILD), str(threads)]
        else:
            command = [sys.executable, "-m", "tests.bench.index_seat", system, kind, str(threads)]
        environ = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=common.ROOT
        )

    def __call__(self, do: str, **told: Any) -> dict[str, Any]:
        """Its answer."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **told}) + "\n")
        self._process.stdin.flush()
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"an index's process ended with {self._process.wait()} when told to {do} {told}")
        return json.loads(said)

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()


Figures = dict[str, dict[str, Any]]


@contextmanager
def built(world: World, kind: str, args: argparse.Namespace) -> Iterator[tuple[dict[str, Process], Figures]]:
    """An index of each system, made one after the other, and what that took."""
    with ExitStack() as running:
        processes, figures = {}, {}
        for system in [name for name in KINDS[kind] if name in args.systems]:
            processes[system] = process = Process(system, kind, args.threads)
            running.callback(process.close)
            with common.told(f"{world.items:,} items, {kind}, {system}"):
                if args.one_graph and (kind, system) == ("hnsw", "faiss"):
                    graph = f"{world.vectors}.graph"
                    processes["ours"]("write", path=graph)
                    figures[system] = process("read", path=graph, queries=world.queries)
                    Path(graph).unlink()
                else:
                    figures[system] = process("build", vectors=world.vectors, queries=world.queries)
            if kind == "hnsw" and system != "ours":  # which has it of itself
                process("widen", search=width_for(world.items))
        yield processes, figures


def measure(world: World, kind: str, folder: Path, args: argparse.Namespace) -> Figures:
    """Figures of each system, and of ours `qps_ratio` and `batch_ratio` to each other."""
    with built(world, kind, args) as (processes, figures):
        path = folder / "found.npy"
        queries = QUERIES if kind != "flat" else max(BATCH, min(QUERIES, COMPARED // world.items // BATCH * BATCH))
        singly = queries // 2 if kind != "flat" else max(8, COMPARED // world.items)
        for system, process in processes.items():
            process("found", queries=QUERIES, path=str(path))
            figures[system]["recall"] = world.recall(np.load(path))
            print(f"{kind} {system}: {figures[system]}", file=sys.stderr, flush=True)
        rounds: dict[str, list[tuple[float, float, float]]] = {system: [] for system in processes}
        for number in range(args.rounds):
            for system in list(processes)[:: 1 if number % 2 else -1]:
                one, many = (processes[system]("round", queries=n, batch=b) for n, b in ((singly, 1), (queries, BATCH)))
                rounds[system].append((one["qps"], many["qps"], 1e6 / one["cpu_us"]))
                print(f"{kind} {system}: {one['qps']:.0f}/s, {many['qps']:.0f}/s", file=sys.stderr, flush=True)
        rates = {system: np.array(found) for system, found in rounds.items()}
        for system, rate in rates.items():
            figures[system] |= dict(zip(("qps", "batch_qps", "cpu_qps"), np.median(rate, 0).tolist(), strict=True))
            if system != "ours":
                ratio = np.median(rates["ours"] / rate, 0)
                figures[system] |= dict(zip(("qps_ratio", "batch_ratio", "cpu_ratio"), ratio.tolist(), strict=True))
        ours = processes["ours"]
        if kind == "hnsw":
            figures["ours"] |= beside_its_graph(world, ours, args.rounds)
            figures["ours"]["recall_by_ef_search"] = by_width(world, ours, path)
            print(f"{kind}: {figures}", file=sys.stderr, flush=True)
        if kind != "flat":
            figures["ours"] |= excluding(world, ours, path, args.rounds)
            figures["ours"] |= ours("keep", path=str(folder / "kept.index"))
            (folder / "kept.index").unlink()
    return figures


def beside_its_graph(world: World, ours: Process, rounds: int) -> dict[str, float]:
    """Queries a second of ours over those of FAISS's own graph that it holds, in one process: what our code costs."""
    ratios = []
    for _ in range(rounds):
        mine = [ours("round", queries=QUERIES, batch=batch)["qps"] for batch in (1, BATCH)]
        ours("bare", search=width_for(world.items))
        bare = [ours("round", queries=QUERIES, batch=batch)["qps"] for batch in (1, BATCH)]
        ours("bare", search=0)
        ratios.append((mine[0] / bare[0], mine[1] / bare[1]))
    return dict(zip(("graph_ratio", "graph_batch_ratio"), np.median(ratios, 0).tolist(), strict=True))


def excluding(world: World, ours: Process, path: Path, rounds: int) -> dict[str, float]:
    """p50 of single queries that exclude, over that of those that do not, and what they find."""
    out: dict[str, float] = {}
    for name, seen in world.excluded.items():
        ratios, cpu = [], []
        for _ in range(rounds):
            without = ours("round", queries=EXCLUDING, batch=1)
            within = ours("round", queries=EXCLUDING, batch=1, exclude=seen)
            ratios.append(within["p50_us"] / without["p50_us"])
            cpu.append(within["cpu_us"] / without["cpu_us"])
        ours("found", queries=EXCLUDING, exclude=seen, path=str(path))
        recall = world.recall(np.load(path), name)
        out |= {f"exclude_{name}": common.median(ratios), f"exclude_{name}_recall": recall}
        out[f"exclude_{name}_cpu"] = common.median(cpu)
    return out


def by_width(world: World, ours: Process, path: Path) -> dict[str, float]:
    """Recall by efSearch, which is put back."""
    out: dict[str, float] = {}
    for width in (*WIDTHS, width_for(world.items)):
        ours("widen", search=width)
        ours("found", queries=QUERIES, path=str(path))
        out[str(width)] = round(world.recall(np.load(path)), 4)
    return out


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--systems", nargs="+", choices=KINDS["hnsw"], default=KINDS["hnsw"], help="ours is needed")
    parser.add_argument("--one-graph", action="store_true", help="FAISS searches a copy of our graph, and builds none")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for building, and for batches")
    args = parser.parse_args()
    result: dict[str, Any] = {"bench": "index", "dim": DIM, "k": K, "threads": args.threads}
    lines: list[list[str]] = []
    for items in args.items:
        with tempfile.TemporaryDirectory(prefix="eddyline-bench-") as name:
            with common.told(f"{items:,} items, and what is nearest"):
                world = World(Path(name), items)
            for kind in args.kinds:
                figures = measure(world, kind, Path(name), args)
                result |= as_keys(figures, kind, items)
                lines += [row(items, kind, system, of) for system, of in figures.items()]
    columns = ["items", "index", "build s", "recall@50", "1/s", "by 64", "MB", "x 1/s", "x by 64"]
    common.report("index", columns, lines, result)


def as_keys(figures: Figures, kind: str, items: int) -> dict[str, Any]:
    """As the line of JSON has them: those of the graph by their plain names, as `recall_1000000`; of other kinds and
    systems with these before the number, as `build_s_flat_faiss_1000000`. Ratios to plain FAISS are `qps_ratio_...`.
    """
    out: dict[str, Any] = {}
    for system, of in figures.items():
        about = [*([kind] if kind != "hnsw" else []), *([system] if system != "ours" else [])]
        for name, value in of.items():
            names = [n for n in about if not ("ratio" in name and n == "faiss")]
            out["_".join([name, *names, str(items)])] = round(value, 4) if isinstance(value, float) else value
            if name.startswith("exclude_") and not name.endswith(("recall", "cpu")):  # of the largest
                out[name.replace("_near", "_ratio", 1) if name == "exclude_near" else f"{name}_ratio"] = round(value, 4)
    if kind == "hnsw":
        out |= {f"ef_search_{items}": width_for(items), "links": LINKS, "ef_construction": BUILD}
    return out


def row(items: int, kind: str, system: str, of: dict[str, Any]) -> list[str]:
    """A line of the table."""
    rates = [f"{of[name]:,.0f}" for name in ("qps", "batch_qps", "memory_mb")]
    ratios = [f"{of[name]:.2f}" if name in of else "" for name in ("qps_ratio", "batch_ratio")]
    took = f"{of['build_s']:,.0f}" if "build_s" in of else ""
    return [f"{items:,}", f"{kind} {system}", took, f"{of['recall']:.4f}", *rates, *ratios]


if __name__ == "__main__":
    main()
