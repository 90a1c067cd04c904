"""Items with few interactions, and what they borrow from the items of their categories."""

from __future__ import annotations

import numpy as np

from model.catalog import Catalog, Item
from model.history import item_hashes
from model.kin import Kin
from model.mix import Mix
from model.online import Counts, OnlineParams, OnlineScores
from tests.model.worlds import shown

# 0, 1 and 2 are films, 2 is also new; 3 is a book; 4 has no category; 5 is new and nothing else.
KINDS = (["film"], ["film"], ["film", "new"], ["book"], [], ["new"])
CATALOG = Catalog.build({f"i{k}": Item(f"i{k}", f"Item {k}", categories=kinds) for k, kinds in enumerate(KINDS)})
WINDOWS = np.array([[-1, 3], [3, 4], [-1, -1]], np.int32)


def counted() -> Counts:
    """After 3 came 0 (8 times) and 1 (4 times), after 4 came 0; 3 was met 20 times, 0 often, the rest never."""
    ids = [f"i{k}" for k in range(6)]
    h = item_hashes(ids)
    a, b, n = h[[3, 3, 4]], h[[0, 1, 0]], np.array([8, 4, 2], np.uint32)
    now = np.zeros(3, np.int32)
    return Counts(a, b, now, n, h[[3, 4, 0]], now, np.array([20, 20, 380], np.uint32))


def scores(kin: float) -> OnlineScores:
    return OnlineScores.build(CATALOG, counted(), 0, OnlineParams(kin=kin, shrink=0.0, recency=0.5))


def test_an_item_borrows_the_mean_of_its_categories_and_less_the_more_it_was_met() -> None:
    plain, lent = scores(0).related(WINDOWS)[0], scores(20).related(WINDOWS)[0]
    np.testing.assert_allclose(plain, [0.4, 0.2, 0, 0, 0, 0], rtol=1e-6)
    film, new = (0.4 + 0.2 + 0) / 3, 0.0
    w = 20 / (20 + np.array([380, 0, 0]))
    mixed = (film / 3 + new / 2) / (1 / 3 + 1 / 2)
    np.testing.assert_allclose(lent[:3], [0.4 + w[0] * film, 0.2 + w[1] * film, w[2] * mixed], rtol=1e-5)
    assert lent[3:].tolist() == [0, 0, 0]


def test_followers_and_what_each_item_of_a_window_gives_say_the_same() -> None:
    online = scores(20)
    related = online.related(WINDOWS)
    every = np.arange(6, dtype=np.int32)
    found = online.followers(WINDOWS).at(np.tile(every, (3, 1)))
    np.testing.assert_allclose(found, related, rtol=1e-6)
    given = online.contribution(WINDOWS, np.tile(every, (3, 1)))
    np.testing.assert_allclose(given.sum(1), related, rtol=1e-5, atol=1e-7)


def test_what_is_borrowed_can_make_a_candidate() -> None:
    allowed = np.array([[False, False, True, False, True, True]])
    best = scores(20).strongest(scores(20).followers(WINDOWS[:1]), Mix(), shown(allowed), 1)
    assert best.tolist() == [[2]]


def test_nobody_borrows_unless_asked_to_or_where_there_is_no_category() -> None:
    assert scores(0).kin is None
    bare = Catalog.build({"a": Item("a", "a")})
    assert Kin.of(bare, np.zeros(1), 5.0) is None
    assert Kin.of(CATALOG, np.full(6, 1e6), 5.0) is None
