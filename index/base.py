"""What every index offers, and the file that every index can be saved to and loaded from.

Not an implementation. Scores are inner products, larger is nearer. Vectors are f32; ids are any i64 of the
caller's except -1, which says "none" in answers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "eddyline-index-2"

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]
Bytes = NDArray[np.uint8]


class IndexFileError(ValueError):
    """A saved index is damaged or not one of ours; the message names the file. Build it again from the
    catalogue.
    """


class Index(Protocol):
    """Vectors by id. `add` and `remove` may be slow (they may build aside and swap); a search never sees half
    of one.
    """

    @property
    def dim(self) -> int:
        """Length of its vectors."""
        ...

    def __len__(self) -> int:
        """How many vectors it holds."""
        ...

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Adds vectors f32[n,d] under ids i64[n]; an id that is there gets the new vector. Raises ValueError
        on wrong shapes, repeated ids or -1.
        """
        ...

    def remove(self, ids: Ids) -> int:
        """Removes these ids and returns how many of them were there."""
        ...

    def search(
        self, vectors: Vectors, k: int, exclude: Sequence[Ids] | None = None, allow: Ids | None = None
    ) -> tuple[Vectors, Ids]:
        """The k nearest of each of B vectors: scores f32[B,k], descending, and ids i64[B,k]; where there are
        fewer, -inf and -1.

        exclude: for each row, ids that must not be found. allow: ids that may be found, the same for all
        rows.
        """
        ...

    def save(self, path: Path) -> None:
        """Writes one file that any index of this package loads."""
        ...

    @classmethod
    def load(cls, path: Path) -> Self:
        """The index saved at `path`. Raises IndexFileError."""
        ...

    def stats(self) -> dict[str, Any]:
        """kind, device, size, dim; recall, where it was measured, and why this kind, where it was chosen."""
        ...


def check(ids: Ids, vectors: Vectors, dim: int) -> tuple[Ids, Vectors]:
    """The arguments of `add` in their proper types. Raises ValueError, saying what is wrong."""
    ids, vectors = np.ascontiguousarray(ids, np.int64), np.ascontiguousarray(vectors, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != dim:
        raise ValueError(f"expected vectors f32[n,{dim}], got shape {vectors.shape}")
    if ids.shape != (len(vectors),):
        raise ValueError(f"expected one id for each of {len(vectors)} vectors, got shape {ids.shape}")
    if len(np.unique(ids)) != len(ids):
        raise ValueError("an id occurs twice in one call: keep its last vector only")
    if (ids == -1).any():
        raise ValueError('id -1 means "none" and cannot be added')
    return ids, vectors


def places(ids: Ids, wanted: Ids, order: Ids | None = None) -> Ids:
    """Where each wanted id stands among ids i64[n], which may hold -1 more than once; -1 where it does not.

    order: what sorts the ids, where that is known.
    """
    if not len(ids):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(ids, kind="stable") if order is None else order
    place = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(ids[place] == wanted, place, -1)


def merged(ids: Ids, vectors: Vectors, new_ids: Ids, new_vectors: Vectors) -> tuple[Ids, Vectors]:
    """Old and new vectors together; where an id is in both, the new vector stands in the old place."""
    place = places(ids, new_ids)
    known = place >= 0
    vectors = vectors.copy()
    vectors[place[known]] = new_vectors[known]
    return np.concatenate([ids, new_ids[~known]]), np.concatenate([vectors, new_vectors[~known]])


class Saved(NamedTuple):
    """What a file holds; id -1: a vector that was removed.

    structure u8: what an index of `kind` reads instead of building it anew; None: there is nothing that would save it.
    """

    ids: Ids
    vectors: Vectors
    kind: str = ""
    structure: Bytes | None = None
    recall: float | None = None


def save(path: Path, saved: Saved) -> None:
    """Writes it with its checksum; through a temporary file, so that a reader never meets half of one."""
    tensors = {"ids": saved.ids, "vectors": np.ascontiguousarray(saved.vectors)}
    if saved.structure is not None:
        tensors["structure"] = saved.structure
    recall = "" if saved.recall is None else str(saved.recall)
    about = {"format": FORMAT, "kind": saved.kind, "recall": recall, "sha256": _sum(tensors)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several workers may share a cache
    save_file(tensors, partial, metadata=about)
    partial.replace(path)


def load(path: Path) -> Saved:
    """Reads what `save` wrote. Raises IndexFileError for any other file, FileNotFoundError for none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no saved index there")
    try:
        with safe_open(path, framework="np") as f:
            about = f.metadata() or {}
            if about.get("format") != FORMAT:
                raise IndexFileError(f"{path}: not an index file of format {FORMAT}; build the index again")
            tensors = {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118, it is no dict
    except SafetensorError as e:
        raise IndexFileError(f"{path}: damaged ({e}); build the index again") from e
    if _sum(tensors) != about.get("sha256"):
        raise IndexFileError(f"{path}: damaged (its checksum is another); build the index again")
    recall = float(about["recall"]) if about.get("recall") else None
    return Saved(tensors["ids"], tensors["vectors"], about.get("kind", ""), tensors.get("structure"), recall)


def _sum(tensors: Mapping[str, NDArray[Any]]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(f"{name} {tensors[name].dtype} {tensors[name].shape}".encode())
        total.update(np.ascontiguousarray(tensors[name]).data)
    return total.hexdigest()
