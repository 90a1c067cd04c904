"""Exploration, diversity and fatigue on the running worker: draws are told and are the same again, lists by MMR and DPP
have less of the same, and what was shown sinks.
"""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from model.explore import ExploreConfig, chances
from stream.messages import Recommendation, decode
from tests.pipeline.harness import ITEMS, Deployment, Sent, Worker, until

T0 = 1_700_000_000_000
N = 5
DIVERSE = """
[variants.a]

[variants.mmr]
shadow = true
rank.diversity = { method = "mmr", strength = 10.0 }

[variants.dpp]
shadow = true
rank.diversity = { method = "dpp", strength = 50.0 }
"""
THINGS = {item.item: item.categories[1] for item in ITEMS}


def one_more(deployment: Deployment, event: Sent) -> Recommendation:
    """The list that this event causes."""
    before = len(deployment.lists())
    deployment.send([event])
    until(lambda: len(deployment.lists()) > before, 60, "the list is there")
    (found,) = [said for said in deployment.lists() if said.user == event.user and said.source.ts == event.ts]
    return found


def test_what_is_drawn_is_said_and_drawn_alike_by_whoever_makes_the_list_again(deployment: Deployment) -> None:
    explore = ExploreConfig(method="softmax", temperature=2.0, pool=8, new_items=0.2)
    told = {f"EDDYLINE_RANK__EXPLORE__{name.upper()}": str(value) for name, value in explore.model_dump().items()}
    deployment.environ |= told | {"EDDYLINE_RECOMMEND__N": str(N), "EDDYLINE_RECOMMEND__EXACT": "true"}
    worker = deployment.worker().ready()
    first = one_more(deployment, Sent("u0", "i3", "click", T0))
    # another state version reads the same event, and nothing more, and gives its list the same name
    other = deployment.with_state("again")
    other.create([])
    again = other.worker().ready()
    until(lambda: len(deployment.lists()) == 2, 60, "the list is made again")
    assert again.stop() == 0
    same = next(said for said in deployment.lists() if said.ts != first.ts)
    assert same.id == first.id
    assert [(i.item, i.propensity) for i in same.items] == [(i.item, i.propensity) for i in first.items]
    lists = [first, *(one_more(deployment, Sent(f"u{n}", "i3", "click", T0 + n)) for n in range(1, 6))]
    assert len({tuple(item.item for item in said.items) for said in lists}) > 1
    for said in lists:
        drawn = said.drawn
        assert drawn is not msgspec.UNSET and drawn.pool == 8
        bits = np.arange(len(drawn.utilities))
        free = (np.array(drawn.free)[:, None] >> bits) & 1 == 1
        new = np.broadcast_to((drawn.new >> bits) & 1 == 1, free.shape)
        utility = np.broadcast_to(drawn.utilities, free.shape)
        p = chances(utility, free, np.broadcast_to(bits < 8, free.shape), new, explore)[np.arange(N), drawn.at]
        np.testing.assert_allclose([item.propensity for item in said.items], p, rtol=1e-3)
        assert all(0 < item.propensity < 1 for item in said.items)
    assert worker.stop() == 0


def less_of_the_same(deployment: Deployment, emitted: Recommendation) -> None:
    """Beside the list without it, those of MMR and DPP begin with the same item and are of more things."""
    topic = deployment.settings.topics.shadow
    until(lambda: len(deployment.records(topic)) == 2, 30, "the shadows are there")
    lists = {said.variant: said for said in (decode(record.value) for record in deployment.records(topic))}
    lists["plain"] = emitted
    listed = {name: [item.item for item in said.items] for name, said in lists.items()}
    kinds = {name: len({THINGS[item] for item in items}) for name, items in listed.items()}
    assert all(len(items) == N and items[0] == listed["plain"][0] for items in listed.values()), listed
    assert kinds["mmr"] > kinds["plain"] < kinds["dpp"], listed


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_shown_is_held_back(deployment: Deployment, restarted: bool) -> None:
    told = {"FATIGUE__HOLD_BACK_H": "10", "FEEDBACK__RATE": "1"}
    deployment.environ |= {f"EDDYLINE_RANK__{name}": value for name, value in told.items()}
    deployment.environ |= {"EDDYLINE_RECOMMEND__N": str(N)}
    (deployment.folder / "eddyline.toml").write_text(DIVERSE)
    deployment.environ["EDDYLINE_CONFIG"] = str(deployment.folder / "eddyline.toml")
    worker = deployment.worker().ready()
    first = one_more(deployment, Sent("u1", "i3", "click", T0))
    less_of_the_same(deployment, first)
    shown = {item.item for item in first.items}
    outcomes = [{"user": "u1", "recommendation": first.id, "item": i, "outcome": "shown", "ts": T0 + 5} for i in shown]
    feedback = deployment.settings.topics.feedback
    deployment.send_raw((feedback, b"u1", json.dumps(said).encode(), None, []) for said in outcomes)
    if restarted:
        assert worker.stop() == 0
        worker = deployment.worker().ready()
    until(lambda: worker.status().get("reacted") == 1, 60, "feedback is read")
    second = one_more(deployment, Sent("u1", "i4", "click", T0 + 1000))
    assert len(second.items) == N and not shown & {item.item for item in second.items}
    later = one_more(deployment, Sent("u1", "i5", "click", T0 + 11 * 3_600_000))
    assert shown & {item.item for item in later.items}
    moves_who_likes(deployment, worker)
    assert worker.stop() == 0


def moves_who_likes(deployment: Deployment, worker: Worker) -> None:
    """Of two who do the same, one says that they like what neither was shown: only that one is moved to it."""
    liked = "i12"  # a golden bridge: like nothing that they do, and met by nobody
    for user in ("u2", "u3"):
        assert liked not in {item.item for item in one_more(deployment, Sent(user, "i3", "click", T0)).items}
    said = {"user": "u2", "recommendation": "r", "item": liked, "outcome": "liked", "ts": T0 + 5}
    deployment.send_raw([(deployment.settings.topics.feedback, b"u2", json.dumps(said).encode(), None, [])])
    until(lambda: worker.status().get("reacted") == 2, 60, "feedback is read")
    moved, same = (one_more(deployment, Sent(user, "i4", "click", T0 + 1000)) for user in ("u2", "u3"))
    assert [liked in {item.item for item in said.items} for said in (moved, same)] == [True, False]
