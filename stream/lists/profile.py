"""Step 3: the long-term profile of a user, refreshed in the background when it is due.

A profile is a pure function of (history, encoder), so what is kept here is a cache and never a source
of truth: what is lost is computed again. Deciding when is here; computing is the engine's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

Key = tuple[int, str]


class ProfileConfig(BaseModel):
    """When a profile is due, and how many are kept."""

    model_config = ConfigDict(extra="forbid")

    refresh_events: int = Field(default=16, ge=1, description="new interactions after which a profile is due")
    refresh_ms: int = Field(default=86_400_000, ge=0, description="event time after which a profile is due")
    keep: int = Field(default=200_000, ge=1, description="profiles in memory; the least recently used go first")
    batch: int = Field(default=64, ge=1)


class Profile(NamedTuple):
    """f32[S, P]: one vector per segment of the history; what it was computed from, and when (seconds, any clock)."""

    vectors: np.ndarray
    interactions: int
    newest_ms: int
    made: float


class Profiles:
    """Cached profiles, and the users whose profile is due."""

    def __init__(self, config: ProfileConfig) -> None:
        self.config = config
        self._kept: OrderedDict[Key, Profile] = OrderedDict()
        self._due: OrderedDict[Key, None] = OrderedDict()
        self._left: set[Key] = set()  # since due ones were taken last: some of these may be under way

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, interactions: int, newest_ms: int) -> Profile | None:
        """The profile as it is; marks it due where it has aged or is not there. Who has done nothing has none."""
        if not interactions:
            return None
        profile = self._kept.get(key)
        if profile is None or is_due(self.config, profile, interactions, newest_ms):
            self._due[key] = None
        if profile is not None:
            self._kept.move_to_end(key)
        return profile

    def put(self, key: Key, profile: Profile) -> None:
        if key in self._left:
            return
        self._kept[key] = profile
        self._kept.move_to_end(key)
        if len(self._kept) > self.config.keep:
            self._kept.popitem(last=False)

    def take_due(self) -> list[Key]:
        """Users to refresh next, longest due first."""
        self._left.clear()
        return [self._due.popitem(last=False)[0] for _ in range(min(len(self._due), self.config.batch))]

    @property
    def due(self) -> int:
        return len(self._due)

    def forget(self, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        for kept in (self._kept, self._due):
            for key in [key for key in kept if key[0] in gone]:
                del kept[key]

    def left(self, partition: int, users: Iterable[str]) -> None:
        """These users are no longer known: their windows are gone."""
        keys = [(partition, user) for user in users]
        for key in keys:
            self._kept.pop(key, None)
            self._due.pop(key, None)
        self._left.update(keys)


class ProfilesOf:
    """`Profiles` of each model that is served: one reads nothing of another's."""

    def __init__(self, config: ProfileConfig) -> None:
        self._config = config
        self._models: dict[str, Profiles] = {}

    def __len__(self) -> int:
        return sum(map(len, self._models.values()))

    def of(self, model: str) -> Profiles:
        """Those that this model reads."""
        if model not in self._models:
            self._models[model] = Profiles(self._config)
        return self._models[model]

    def keep(self, models: Iterable[str]) -> None:
        """These are served, and no others: theirs will not be read any more."""
        kept = set(models)
        self._models = {model: profiles for model, profiles in self._models.items() if model in kept}

    def forget(self, partitions: Iterable[int]) -> None:
        """See `Profiles.forget`."""
        gone = set(partitions)
        for profiles in self._models.values():
            profiles.forget(gone)

    def left(self, partition: int, users: Iterable[str]) -> None:
        """See `Profiles.left`."""
        users = list(users)
        for profiles in self._models.values():
            profiles.left(partition, users)


def is_due(config: ProfileConfig, profile: Profile, interactions: int, newest_ms: int) -> bool:
    """Whether a profile has aged, by interactions or by event time. Never by the wall clock: a replay decides alike.

    `interactions` may fall, where a row was merged with late events.
    """
    return (
        abs(interactions - profile.interactions) >= config.refresh_events
        or newest_ms - profile.newest_ms >= config.refresh_ms > 0
    )
