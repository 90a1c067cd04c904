"""One index of `bench_index` in a process of its own: told by lines of JSON what to do, it answers by lines of JSON.

Not an index: hnswlib's is `hnsw.py`, ours and plain FAISS's are `tests/bench/index_seat.py`. Needs only numpy and
psutil, so that it runs in the peers' environment too.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import psutil

K = 50
"""Neighbours that are sought."""


class Seat(Protocol):
    """What is measured."""

    def build(self, vectors: np.ndarray) -> None:
        """Makes an index of vectors f32[N,D]; a vector's id is its row."""
        ...

    def search(self, queries: np.ndarray, exclude: list[np.ndarray] | None) -> np.ndarray:
        """Ids of the K nearest, i64[B,K]; exclude: ids for each query that must not be found."""
        ...

    def widen(self, search: int) -> None:
        """Searches with so many candidates (efSearch) from now on."""
        ...


def serve(seat: Seat, more: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
    """Do as the lines say until they end. more: does what is not known here."""
    queries = np.zeros((0, 0), np.float32)
    for line in sys.stdin:
        told = json.loads(line)
        said: dict[str, Any] = {}
        if told["do"] == "build":
            queries = np.load(told["queries"])
            said = built(seat, told["vectors"])
        elif told["do"] == "read":
            queries, said = np.load(told["queries"]), more(told) if more is not None else {}
        elif told["do"] == "widen":
            seat.widen(told["search"])
        elif told["do"] == "found":
            np.save(told["path"], seat.search(queries[: told["queries"]], excluded(told)))
        elif told["do"] == "round":
            said = timed(seat, queries, told)
        elif more is not None:
            said = more(told)
        print(json.dumps(said), flush=True)


def built(seat: Seat, path: str) -> dict[str, float]:
    """Seconds, wall clock and CPU, and what the process holds more than before once the vectors given are dropped."""
    before, vectors = psutil.Process().memory_info().rss, np.load(path)
    began, used = time.perf_counter(), time.process_time()
    seat.build(vectors)
    said = {"build_s": time.perf_counter() - began, "build_cpu_s": time.process_time() - used}
    del vectors
    return {**said, "memory_mb": (psutil.Process().memory_info().rss - before) / 2**20}


def timed(seat: Seat, queries: np.ndarray, told: dict[str, Any]) -> dict[str, float]:
    """So many queries in batches of `batch`: queries a second, the median of what a batch took, and the CPU time of a
    query, in microseconds, which says more where other programs run.
    """
    size, hidden, took = told["batch"], excluded(told), []
    used = time.process_time()
    for first in range(0, told["queries"], size):
        part = slice(first, first + size)
        few, without = queries[part], hidden[part] if hidden is not None else None
        began = time.perf_counter()
        seat.search(few, without)
        took.append(time.perf_counter() - began)
    cpu = (time.process_time() - used) / told["queries"]
    return {"qps": told["queries"] / sum(took), "p50_us": float(np.median(took)) * 1e6, "cpu_us": cpu * 1e6}


def excluded(told: dict[str, Any]) -> list[np.ndarray] | None:
    """Ids for each query, where there are any."""
    return list(np.load(told["exclude"])) if told.get("exclude") else None
