"""What it costs an item to have been shown: by hand."""

from collections.abc import Sequence

import numpy as np
import pytest

from model.fatigue import AWAY, HOUR_MS, OUTCOME_CODE, FatigueConfig, Outcomes, fatigue
from model.history import item_hash
from tests.model.test_arranged_lists import ranked
from tests.model.test_engine import CATALOG, engine
from tests.model.worlds import met

CONFIG = FatigueConfig(penalty=2.0, half_life_h=10.0)
NOW = 1_700_000_000_000


def told(*of_users: Sequence[tuple[int, str, float]]) -> Outcomes:
    """(catalogue row, outcome, hours ago) of each user."""
    wide = max(len(one) for one in of_users)
    shape = (len(of_users), wide)
    found = Outcomes(np.zeros(shape, np.uint64), np.zeros(shape, np.int64), np.zeros(shape, np.uint8))
    for user, outcomes in enumerate(of_users):
        for place, (row, outcome, ago) in enumerate(outcomes):
            found.items[user, place] = item_hash(f"i{row:02}") if row >= 0 else item_hash("not in the catalogue")
            found.times[user, place] = NOW - int(ago * HOUR_MS)
            found.codes[user, place] = OUTCOME_CODE[outcome]
    return found


def lost(outcomes: Outcomes, config: FatigueConfig = CONFIG) -> list[dict[int, float]]:
    found = fatigue(outcomes, CATALOG, np.full(len(outcomes.codes), NOW), config)
    rows = np.tile(np.arange(len(CATALOG)), (found.users, 1))
    return [{r: round(float(v), 4) for r, v in enumerate(row) if v} for row in found.at(rows)]


def test_each_time_counts_and_less_as_time_goes_by():
    outcomes = told([(3, "shown", 0), (3, "shown", 10), (5, "shown", 20), (-1, "shown", 0)], [(3, "shown", -5)], [])
    assert lost(outcomes) == [{3: 2.0 + 1.0, 5: 0.5}, {3: 2.0}, {}]


@pytest.mark.parametrize("outcome", ["clicked", "bought", "liked"])
def test_what_was_taken_begins_anew_whatever_came_first(outcome: str):
    before = [(3, "shown", 10), (3, outcome, 5.0), (3, "shown", 0)]
    assert lost(told(before)) == lost(told(before[::-1])) == [{3: 2.0}]


def test_what_was_refused_or_just_shown_is_held_back():
    held = FatigueConfig(hold_back_h=3.0)
    assert held.on and not FatigueConfig().on
    assert lost(told([(1, "shown", 2.9), (2, "shown", 3.0), (4, "hidden", 99), (5, "disliked", 99)]), held) == [
        {1: AWAY, 4: AWAY, 5: AWAY}
    ]


def test_what_tires_sinks_and_what_is_held_back_comes_last():
    e, h = engine(), met([1, 2], [1, 2])
    plain = ranked(e, h, n=20, m=20)
    first = int(plain.items[0, 0])
    tired = fatigue(told([(first, "shown", 0)], []), CATALOG, np.full(2, NOW), FatigueConfig(hold_back_h=1))
    found = ranked(e, h, n=20, m=20, tired=tired)
    assert found.items[0].tolist() == [*plain.items[0, 1:].tolist(), first]
    assert found.items[1].tolist() == plain.items[1].tolist()
