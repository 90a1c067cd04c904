"""Variants of the lists: what each sets otherwise, and which users get which.

Pure decisions: who gets what follows from a user's name, the experiment's, and the shares, so that every worker decides
alike and nothing is remembered. How lists of a variant are made is in `lineup.py` and `building.py`, how variants are
compared in `model.evaluation.variants`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator

from model.config import RankConfig
from model.mix import Mix
from stream.lists.release import NAME

ONLY = "a"
"""What lists are called where there are no variants."""
SHADOW = "shadow"
"""What `recommend.shadow` calls the fallback's lists."""
FALLBACK = "fallback"
"""What is served where no model is released; the name that no release may have."""


class VariantConfig(BaseModel):
    """One variant. What is not set is as without variants."""

    model_config = ConfigDict(extra="forbid")

    share: float | None = Field(
        default=None, gt=0, le=1, description="of the users; variants without one share evenly what is left"
    )
    shadow: bool = Field(default=False, description="lists for every user, to the shadow topic only")
    model: str = Field(
        default=NAME, min_length=1, description=f"the alias that a release was announced under, or {FALLBACK}"
    )
    candidates: int | None = Field(default=None, ge=1, le=2048, description="as in [recommend]")
    mix: Mix | None = Field(default=None, description="weights in place of the model's own, each that is set")
    rank: RankConfig = Field(default=RankConfig(), description="put over [rank], setting by setting")

    @field_validator("mix")
    @classmethod
    def _not_in_the_vectors(cls, mix: Mix | None) -> Mix | None:
        if mix is not None and "text" in mix.model_fields_set:
            raise ValueError("text is in the vectors of a model: release one that was made with it, and name its alias")
        return mix


def under(base: RankConfig, variant: VariantConfig) -> bool:
    """Whether it makes the lists that its model makes without variants."""
    return variant.rank == base and variant.mix is None and variant.candidates is None


def over(base: Mapping[str, object], settings: Mapping[str, object]) -> dict[str, object]:
    """`settings` put over `base`, section by section."""
    out = dict(base)
    for name, value in settings.items():
        below = out.get(name)
        out[name] = over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return out


def shares(variants: Mapping[str, VariantConfig]) -> dict[str, float]:
    """The share of each variant that is emitted, by name in order of names; they sum to 1.

    Raises:
        ValueError: they cannot; the message says what to write.
    """
    if SHADOW in variants:
        raise ValueError(f"{SHADOW} is what recommend.shadow calls its lists: give the variant another name")
    emitted = {name: variants[name].share for name in sorted(variants) if not variants[name].shadow}
    if wrong := [name for name, v in variants.items() if v.shadow and v.share is not None]:
        raise ValueError(f"{wrong[0]} is a shadow, which is made for every user: take its share out")
    if variants and not emitted:
        raise ValueError("all are shadows: add one that is emitted, which may set nothing, as [variants.a]")
    given = math.fsum(share for share in emitted.values() if share is not None)
    open_ = [name for name, share in emitted.items() if share is None]
    left = 1 - given
    if left < -1e-9:
        raise ValueError(f"the shares sum to {given:.6g}: they may sum to 1 at most")
    if open_ and left <= 1e-9:
        raise ValueError(f"no users are left for {', '.join(open_)}: lower a share, or set shadow = true")
    if emitted and not open_ and left > 1e-9:
        last = next(reversed(emitted))
        raise ValueError(
            f"the shares sum to {given:.6g}, so some users have no variant: take out one of them, as that of {last}, "
            "which then has what is left"
        )
    return {name: left / len(open_) if share is None else share for name, share in emitted.items()}


@dataclass(frozen=True, eq=False)
class Split:
    """Users among variants. names: in order of the line [0, 1), which they share in this order; ends f64[V-1]: where
    one ends and the next begins. So a variant that grows takes users of its neighbour only.
    """

    experiment: str
    names: tuple[str, ...]
    ends: NDArray[np.float64]

    @staticmethod
    def of(experiment: str, shares: Mapping[str, float]) -> Split:
        """By shares that sum to 1."""
        return Split(experiment, tuple(shares), np.cumsum(list(shares.values()))[:-1])

    def numbers(self, users: Sequence[str]) -> NDArray[np.int64]:
        """The variant of each user, i64[B], by its place in `names`."""
        return np.searchsorted(self.ends, places(users, self.experiment), side="right")


def places(users: Sequence[str], salt: str) -> NDArray[np.float64]:
    """Where users stand on the line [0, 1), f64[B]: by name and salt alone, evenly, and for two salts independently.

    A polynomial of the name's code points, which does not mind how long others in the batch are, salted and then
    scattered by the finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
    """
    if not len(users):
        return np.zeros(0)
    names = np.array(users, np.str_)
    codes = names.view(np.uint32).reshape(len(names), -1).astype(np.uint64)
    first, second = np.frombuffer(blake2b(salt.encode(), digest_size=16).digest(), "<u8")
    hashed = (codes * _powers(codes.shape[1])).sum(1, dtype=np.uint64)
    return (_scattered(_scattered(hashed ^ first) ^ second) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _powers(n: int) -> NDArray[np.uint64]:
    """Of an odd number, modulo 2^64: u64[n]."""
    return np.cumprod(np.full(n, 0x9E3779B97F4A7C15, np.uint64), dtype=np.uint64)


def _scattered(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of u64 in which every bit of the outcome depends on every bit given."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
