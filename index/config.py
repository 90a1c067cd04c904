"""How the nearest items are searched for, as a setting. Nothing is imported for it but pydantic."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["auto", "exact", "flat", "hnsw", "ivf-pq", "gpu-flat", "cagra"]
NEEDS_MORE: frozenset[Kind] = frozenset({"gpu-flat", "cagra"})
"""Kinds that need a GPU, and a FAISS for it."""


class IndexConfig(BaseModel):
    """How the nearest items are searched for."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind = Field(default="auto", description="auto: by the number of items and the device")
    recall: float = Field(
        default=0.95, gt=0, le=1, description="share of the exact neighbours that must be found; else all are compared"
    )
    keep: bool = Field(default=True, description="keep what takes long to build in the cache, for the next start")

    @property
    def by_tensors(self) -> bool:
        """Whether torch compares all items where vectors are not on a CPU, so that who has them there need not ask."""
        return self.kind in ("auto", "exact")
