"""Ranked lists -> messages: in terms of the catalogue's item ids, with names, sources and reasons.

Not what a message looks like (`stream.messages`), not what is in a list (`model.engine`), nor when and to whom it goes
(`recommend.py`). Nothing here waits or remembers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.history import ACTION_NAME
from stream import messages
from stream.answers.progress import Waiting
from stream.kafka.batches import Out
from stream.lists.interests import Interests
from stream.lists.profile import Profile
from stream.messages import Recommendation

if TYPE_CHECKING:  # torch is behind these
    from model.arrange import Drawn
    from model.reasons import Ranked, RankedLists
    from model.reasons import Reason as EngineReason
    from stream.lists.building import Served


def told(
    served: Served,
    variant: str,
    state: str,
    interests: Interests,
    ranked: RankedLists,
    windows: Sequence[int],
    short: Sequence[float],
    profiles: Sequence[Profile | None],
    now_ms: int,
    moment: float,
) -> list[Recommendation]:
    """A message for each user. windows: how many interactions the short-term window had; short: its weight beside the
    profile's; moment: now, on the clock by which profiles were made.
    """
    return [
        _message(served, variant, state, w, one, length, weight, profile, applied, now_ms, moment)
        for w, one, length, weight, profile, applied in zip(
            interests.users, ranked, windows, short, profiles, interests.applied, strict=True
        )
    ]


def _message(
    served: Served,
    variant: str,
    state: str,
    w: Waiting,
    ranked: Ranked,
    length: int,
    short: float,
    profile: Profile | None,
    applied: Mapping[str, int],
    now_ms: int,
    moment: float,
) -> Recommendation:
    t = w.trigger
    assert t is not None  # `Source.interests` has seen to it
    return Recommendation(
        id=_name(w, applied),
        user=w.user,
        ts=now_ms,
        items=_items(served, ranked),
        interest=messages.Interest(
            short=round(short, 4),
            long=round(1 - short, 4),
            window=length,
            profile_age_s=round(moment - profile.made, 3) if profile else None,
        ),
        model=served.name,
        catalog_version=served.catalog.version,
        variant=variant,
        source=messages.Source(state, t.topic, w.partition, t.offset, t.ts, dict(applied)),
        correlation_id=t.request.correlation_id if t.request is not None else msgspec.UNSET,
        drawn=msgspec.UNSET if ranked.drawn is None else drawn(ranked.drawn),
    )


def seeds(interests: Interests) -> NDArray[np.uint64]:
    """What is drawn for each user follows from the name of their list, u64[B]."""
    names = [_name(w, applied) for w, applied in zip(interests.users, interests.applied, strict=True)]
    return np.array([messages.seed(name) for name in names], np.uint64)


def records(events: Sequence[Recommendation], users: Sequence[Waiting]) -> list[Out]:
    """As they are written: keyed by user, with headers; a trace goes on from what caused the list."""
    return [
        Out(
            w.user.encode(),
            messages.encode(event),
            messages.headers(event, w.trigger.trace if w.trigger is not None else None),
        )
        for event, w in zip(events, users, strict=True)
    ]


def drawn(one: Drawn) -> messages.Drawn:
    """What a list was drawn from."""
    return messages.Drawn([round(u, 4) for u in one.utilities], one.pool, one.new, one.free, one.at)


def _name(w: Waiting, applied: Mapping[str, int]) -> str:
    t = w.trigger
    assert t is not None  # `Source.interests` has seen to it
    return messages.name(w.user, applied, t.topic, w.partition, t.offset)


def _items(served: Served, ranked: Ranked) -> list[messages.RecommendedItem]:
    """A ranked list in terms of the catalogue's item ids."""
    ids = served.catalog.ids
    reasons = ranked.reasons or [[] for _ in ranked.items]
    explained = ranked.explained or [0.0] * len(ranked.items)
    listed = zip(ranked.items, ranked.scores, ranked.propensities, reasons, explained, strict=True)
    return [
        messages.RecommendedItem(
            item=ids[item],
            rank=rank,
            score=round(float(score), 5),
            propensity=round(likely, 7),
            reasons=_reasons(served, why),
            explained=round(share, 4),
        )
        for rank, (item, score, likely, why, share) in enumerate(listed, 1)
    ]


def _reasons(served: Served, why: Sequence[EngineReason]) -> list[messages.Reason]:
    out: list[messages.Reason] = []
    for reason in why:
        share = round(float(reason.share), 4)
        if reason.type == "taste":
            out.append(messages.TasteReason(reason.taste, share))
        elif reason.type == "popular":
            out.append(messages.PopularReason(share))
        else:
            out.append(messages.InteractionReason(served.catalog.ids[reason.item], ACTION_NAME[reason.action], share))
    return out
