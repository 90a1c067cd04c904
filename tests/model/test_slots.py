"""Hashes found by their first bits: as a search in order of all finds them."""

import numpy as np
import pytest

from model.peruser import MANY, PerUser
from model.slots import Slots

CROWD = (np.uint64(5) << np.uint64(60)) + np.arange(40, dtype=np.uint64)
"""Their first bits are the same."""


@pytest.mark.parametrize("known", [0, 1, 7, 3000])
def test_a_hash_is_found_where_it_stands_and_a_stranger_is_not(known):
    rng = np.random.default_rng(known)
    hashes = rng.permutation(np.concatenate([rng.integers(1, 2**64, known, np.uint64), CROWD[: known // 2]]))
    asked = np.concatenate([hashes[::-1], rng.integers(1, 2**64, 3000, np.uint64), [np.uint64(0)], CROWD])
    place = {h: k for k, h in enumerate(hashes.tolist())}
    found = Slots(hashes).find(asked)
    assert found.tolist() == [place.get(h, -1) for h in asked.tolist()]
    assert found.dtype == np.int32


def test_what_is_asked_keeps_its_shape():
    assert Slots(CROWD).find(CROWD[[[3, 1], [2, 39]]]).tolist() == [[3, 1], [2, 39]]
    assert Slots(CROWD[:0]).find(np.zeros((2, 3), np.uint64)).tolist() == [[-1] * 3] * 2
    assert Slots(CROWD).find(np.zeros((2, 0), np.uint64)).shape == (2, 0)


def test_many_users_numbers_are_found_as_few_are():
    rng, items = np.random.default_rng(0), 50
    user, row = np.repeat(np.arange(MANY), 9), rng.integers(0, items, 9 * MANY)
    numbers = PerUser.summed(MANY, items, user, row, np.ones(len(row), np.float32))
    rows = np.broadcast_to(np.arange(-1, items), (MANY, items + 1))
    each = [[int(((user == b) & (row == r)).sum()) for r in range(-1, items)] for b in range(MANY)]
    assert numbers.at(rows).tolist() == each
    assert numbers.has(rows).tolist() == [[n > 0 for n in of] for of in each]
    few = PerUser(MANY - 1, items, numbers.keys, numbers.values)
    assert few.at(rows).tolist() == each
