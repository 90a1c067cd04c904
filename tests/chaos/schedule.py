"""What goes wrong, and when: rounds of faults from a seed. Pure; who does it is `arena`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS: dict[str, float] = {
    "worker killed": 5.0,
    "all workers killed": 0.7,
    "worker frozen": 4.0,
    "worker added": 3.5,
    "worker removed": 1.5,
    "broker killed": 1.2,
    "broker restarted": 0.8,
    "broker frozen": 1.2,
    "disk filled": 0.5,
    "flood": 0.8,
    "clock ahead": 0.8,
}
"""How often each is chosen, beside the others."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`after` seconds of peace; then, for `lasts` seconds where it has an end. `choice` in 0..1 picks who."""

    kind: str
    after: float
    lasts: float
    choice: float


LASTS: dict[str, tuple[float, float]] = {
    "worker frozen": (2.0, 11.0),  # sessions end after 6 s
    "broker killed": (0.0, 8.0),
    "broker frozen": (1.0, 12.0),
    "disk filled": (2.0, 5.0),
}


def round_of(rng: np.random.Generator, faults: int, only: tuple[str, ...] = ()) -> list[Fault]:
    """The faults of one round; `only`: of these kinds."""
    kinds = only or tuple(KINDS)
    weights = np.array([KINDS[kind] for kind in kinds])
    out: list[Fault] = []
    for chosen in rng.choice(len(kinds), faults, p=weights / weights.sum()).tolist():
        low, high = LASTS.get(kinds[chosen], (0.0, 0.0))
        # Some follow at once: what is mended has not come to rest then.
        after = float(rng.choice([0.2, rng.uniform(1.0, 4.0), rng.uniform(3.0, 8.0)]))
        out.append(Fault(kinds[chosen], after, float(rng.uniform(low, high)), float(rng.random())))
    return out
