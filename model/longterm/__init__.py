"""Who a user has been: profiles of the history, by name. What they have in common is in `base.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.longterm.base import DAY_MS, HALF_LIFE_DAYS, SEGMENT, SEGMENTS, Encode, LongTerm
from model.longterm.buckets import Buckets
from model.longterm.document import Document
from model.longterm.pooled import Counted, Pooled

__all__ = [
    "DAY_MS",
    "HALF_LIFE_DAYS",
    "SEGMENT",
    "SEGMENTS",
    "Buckets",
    "Counted",
    "Document",
    "Encode",
    "LongTerm",
    "Pooled",
    "make",
]


def make(
    kind: Literal["pooled", "counted", "document", "buckets"],
    vectors: NDArray[np.float32],
    titles: Sequence[str],
    encode: Encode | None,
) -> LongTerm:
    """Profiles of this kind over a catalogue with these vectors f32[N,P] and titles. Raises ValueError where a
    document is asked for and there is no `encode`.
    """
    match kind:
        case "pooled":
            return Pooled(vectors)
        case "counted":
            return Counted(vectors)
        case "buckets":
            return Buckets(vectors)
        case "document" if encode is not None:
            return Document(titles, encode, vectors.shape[1])
    raise ValueError("this model reads histories as documents: give the engine a text encoder")
