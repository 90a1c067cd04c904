"""FAISS, or what to install where it is not there: it comes with an extra, since its packages exclude each other."""

from __future__ import annotations

MISSING = (
    "FAISS is not installed: pip install 'eddyline[cpu]', or for a GPU [gpu] or [cuvs] in its place "
    "(one of them only: they share a folder)"
)

try:
    import faiss
except ImportError as error:
    raise ImportError(MISSING) from error

__all__ = ["MISSING", "faiss"]
