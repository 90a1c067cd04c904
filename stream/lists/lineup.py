"""What lists are made from just now, variant by variant, and how a micro-batch is dealt out among them.

Not how it is built (`building.py`), and not who gets which (`variants.py`). Swapped as one, so that all variants answer
from one catalogue version and from the same counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from stream.lists.variants import Split

if TYPE_CHECKING:  # torch is behind these
    from model.catalog import Catalog
    from model.online import OnlineScores
    from model.people import About
    from stream.lists.building import Served
    from stream.lists.interests import Interests

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Those users of a micro-batch for whom one variant makes lists: at i64[n], their places in it; None for all."""

    variant: str
    shadow: bool
    served: Served
    at: NDArray[np.int64] | None
    interests: Interests
    about: About | None


@dataclass(frozen=True, slots=True, eq=False)
class Lineup:
    """emitted: one `Served` for each name of the split, the same where variants differ in nothing. shadows: by name.
    models: what each alias stands for, as it is without variants. refused: by alias, the release that cannot be served,
    and why.
    """

    split: Split
    emitted: tuple[Served, ...]
    shadows: Mapping[str, Served]
    models: Mapping[str, Served]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def first(self) -> Served:
        """What the first variant is made from."""
        return self.emitted[0]

    @property
    def name(self) -> str:
        """The model of the first variant."""
        return self.first.name

    @property
    def catalog(self) -> Catalog:
        return self.first.catalog

    @property
    def told(self) -> str:
        """The models, in a line: one name where there are no variants."""
        if len(self.emitted) == 1 and not self.shadows:
            return self.name
        return ", ".join(f"{variant}: {model}" for variant, model in self.named().items())

    def named(self) -> dict[str, str]:
        """The model of each variant, shadows included."""
        named = {variant: served.name for variant, served in zip(self.split.names, self.emitted, strict=True)}
        return named | {variant: served.name for variant, served in self.shadows.items()}

    @property
    def unknown(self) -> list[str]:
        """What the rules of a variant name and the catalogue does not have."""
        return list(dict.fromkeys(x for s in (*self.emitted, *self.shadows.values()) for x in s.engine.rules.unknown))

    def readers(self) -> dict[str, Served]:
        """One of each model whose profiles are kept: those of the fallback's shadows are made for each list."""
        from_shadows = [s for s in self.shadows.values() if s.engine.given is not None]
        return {served.weights: served for served in (*self.emitted, *from_shadows)}

    def with_online(self, online: OnlineScores) -> Lineup:
        """The same with other scores from counts."""
        made: dict[int, Served] = {}

        def counted(served: Served) -> Served:
            return made.setdefault(id(served), replace(served, online=online))

        return replace(
            self,
            emitted=tuple(map(counted, self.emitted)),
            shadows={variant: counted(served) for variant, served in self.shadows.items()},
            models={alias: counted(served) for alias, served in self.models.items()},
        )

    def parts(self, interests: Interests, about: About | None) -> list[Part]:
        """Who of a micro-batch is answered by which variant, every user once; after them the shadows, of every user."""
        shadows = [Part(name, True, served, None, interests, about) for name, served in self.shadows.items()]
        if len(self.emitted) == 1:
            return [Part(self.split.names[0], False, self.first, None, interests, about), *shadows]
        number = self.split.numbers([w.user for w in interests.users])
        parts = []
        for n, (name, served) in enumerate(zip(self.split.names, self.emitted, strict=True)):
            at = np.flatnonzero(number == n)
            if len(at):
                known = about.take(at) if about is not None else None
                parts.append(Part(name, False, served, at, interests.take(at), known))
        return [*parts, *shadows]


def together(parts: Sequence[Part], made: Sequence[Sequence[T]]) -> list[T]:
    """What was made for each user of each part, in the order of the micro-batch."""
    if len(parts) == 1 and parts[0].at is None:
        return list(made[0])
    order = np.argsort(np.concatenate([part.at for part in parts if part.at is not None]))
    joined = [one for each in made for one in each]
    return [joined[i] for i in order.tolist()]
