"""How places are filled: by hand, and against what every list must keep to."""

from itertools import combinations

import numpy as np
import pytest

from model.arrange import Arranger, arrange
from model.explore import ExploreConfig
from model.exposure import Bounds, ExposureConfig
from model.peruser import best_first
from model.terms import Quota, Terms
from tests.model.worlds import shelf

M = 8
ROWS = np.arange(M, dtype=np.int32)[None]
BEST_FIRST = -np.arange(M, dtype=np.float32)[None]
NO_LIMIT = 1000


def pinned(*rows: int) -> np.ndarray:
    return np.array([rows], np.int32)


def quota(*members: int, least: int = 0, most: int = NO_LIMIT, users: int = 1) -> Quota:
    member = np.zeros(M, bool)
    member[list(members)] = True
    return Quota(member, np.full(users, least, np.int32), np.full(users, most, np.int32))


def terms(places: int = 4, *quotas: Quota, pins: tuple[int, ...] = (), **more) -> Terms:
    fixed = np.array([[*pins, *[-1] * (places - len(pins))]], np.int32)
    return Terms(np.array([places], np.int32), fixed, quotas, **more)


def listed(wanted: Terms, utility=BEST_FIRST, **options) -> list[int]:
    found = arrange(ROWS, utility, wanted, **options)
    assert (found.propensity[found.column >= 0] > 0).all()
    return ROWS[0, found.column[found.column >= 0]].tolist()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (terms(4), [0, 1, 2, 3]),
        (terms(4, pins=(-1, 6)), [0, 6, 1, 2]),
        (terms(4, pins=(2, 0)), [2, 0, 1, 3]),
        # two of three are taken already, so the last places are for 6 and 7 and not before
        (terms(4, quota(1, 6, 7, least=3)), [0, 1, 6, 7]),
        (terms(4, quota(6, 7, least=2)), [0, 1, 6, 7]),
        (terms(4, quota(7, least=3)), [0, 1, 2, 7]),
        (terms(4, quota(0, 1, 2, 3, most=1)), [0, 4, 5, 6]),
        (terms(4, quota(*range(7), most=2)), [0, 1, 7]),
        # a pin counts first: for what is wanted, and against what is bounded
        (terms(4, quota(6, 7, least=1), pins=(7,)), [7, 0, 1, 2]),
        (terms(4, quota(0, 1, 7, most=1), pins=(-1, -1, 7)), [2, 3, 7, 4]),
        (terms(3, quota(5, least=1), quota(6, least=1)), [0, 5, 6]),
        # places are kept as if each quota needed an item of its own
        (terms(2, quota(5, 6, least=1), quota(6, 7, least=1)), [5, 6]),
        (terms(1, quota(5, 6, least=1), quota(6, 7, least=1)), [6]),
        # the one place of the second is kept for whom the first wants from it
        (terms(3, quota(4, least=1), quota(0, 4, most=1)), [1, 2, 4]),
        # more is wanted than there are places
        (terms(2, quota(5, 6, 7, least=3)), [5, 6]),
    ],
)
def test_quotas_and_pins(wanted: Terms, expected: list[int]):
    assert listed(wanted) == expected


@pytest.mark.parametrize(("pins", "expected"), [((), [0, 2, 4, 5]), ((-1, 1), [2, 1, 4, 5]), ((0, 1), [0, 1, 2, 4])])
def test_a_list_has_one_of_each_group(pins: tuple[int, ...], expected: list[int]):
    """0 and 1 are one thing, 2 and 3 another; two pins of a group both stand."""
    groups = np.array([5, 5, 3, 3, -1, -1, -1, -1], np.int32)
    assert listed(terms(4, pins=pins, one_of=groups)) == expected


def test_who_is_not_there_is_not_listed_and_a_pin_moves_up_behind_the_last():
    utility = np.where(np.arange(M) < 2, BEST_FIRST, -np.inf)
    assert listed(terms(5, pins=(-1, -1, -1, 1)), utility) == [0, 1]
    assert listed(terms(3), np.full((1, M), -np.inf)) == []


def test_lists_have_their_own_lengths():
    rows, utility = np.repeat(ROWS, 3, 0), np.repeat(BEST_FIRST, 3, 0)
    wanted = Terms(np.array([2, 4, 0], np.int32), np.full((3, 4), -1, np.int32))
    found = arrange(rows, utility, wanted)
    assert found.column.tolist() == [[0, 1, -1, -1], [0, 1, 2, 3], [-1, -1, -1, -1]]
    assert found.propensity.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]


def test_equal_utilities_stand_by_catalogue_row():
    found = arrange(np.array([[7, 3, 5]], np.int32), np.zeros((1, 3)), terms(3))
    assert found.column.tolist() == [[1, 2, 0]]


def best_within(utility, places: int, quotas) -> bool:
    """Whether any list of so many items, or of all that are there, keeps to all quotas."""
    return any(
        all(q.least[0] <= q.member[list(chosen)].sum() <= q.most[0] for q in quotas)
        for chosen in combinations(range(M), places)
    )


def test_where_a_list_can_keep_to_its_quotas_it_does():
    rng = np.random.default_rng(11)
    possible = 0
    for _ in range(600):
        kind = rng.integers(0, 3, M)
        sale = rng.random(M) < 0.4
        quotas = [
            quota(*np.flatnonzero(kind == k), least=int(rng.integers(0, 3)), most=int(rng.integers(2, 4)))
            for k in range(3)
        ]
        quotas.append(quota(*np.flatnonzero(sale), least=int(rng.integers(0, 3))))
        if not best_within(None, 5, quotas):
            continue
        possible += 1
        utility = rng.permutation(M)[None].astype(np.float32)
        chosen = listed(terms(5, *quotas), utility)
        assert len(chosen) == 5
        for q in quotas:
            assert q.least[0] <= q.member[chosen].sum() <= q.most[0], (kind, sale, chosen, quotas)
    assert possible > 100


def random_terms(rng: np.random.Generator, users: int, places: int) -> Terms:
    """Terms in which all is asked for at once, of other lists something else."""
    pins = np.full((users, places), -1, np.int32)
    for user in range(0, users, 2):
        pins[user, rng.integers(places)] = rng.integers(30)
    quotas = tuple(
        Quota(
            rng.random(30) < 0.4,
            rng.integers(0, 3, users).astype(np.int32),
            rng.integers(2, 5, users).astype(np.int32),
        )
        for _ in range(2)
    )
    return Terms(
        rng.integers(3, places + 1, users).astype(np.int32),
        pins,
        quotas,
        one_of=rng.integers(-1, 12, 30).astype(np.int32),
    )


@pytest.mark.parametrize("method", ["none", "epsilon", "softmax"])
def test_a_user_alone_has_the_list_of_the_batch(method):
    """Whoever else is in the micro-batch, and in whatever order the candidates come."""
    rng, users, places = np.random.default_rng(2), 12, 6
    wanted = random_terms(rng, users, places)
    rows = np.array([rng.permutation(30) for _ in range(users)], np.int32)
    utility = rng.normal(size=rows.shape)
    new, seeds = rng.random(rows.shape) < 0.2, rng.integers(0, 2**63, users).astype(np.uint64)
    explore = ExploreConfig(method=method, new_items=0.2, pool=12)
    whole = arrange(rows, utility, wanted, (), explore, new, seeds)
    for user in range(users):
        one, mixed = slice(user, user + 1), rng.permutation(30)
        quotas = tuple(Quota(q.member, q.least[one], q.most[one]) for q in wanted.quotas)
        own = Terms(wanted.places[one], wanted.pinned[one], quotas, one_of=wanted.one_of)
        alone = arrange(rows[one][:, mixed], utility[one][:, mixed], own, (), explore, new[one][:, mixed], seeds[one])
        there = whole.column[user] >= 0
        assert (alone.column[0] >= 0).tolist() == there.tolist()
        assert rows[user, mixed[alone.column[0]]][there].tolist() == rows[user, whole.column[user]][there].tolist()
        np.testing.assert_allclose(alone.propensity[0], whole.propensity[user])


def test_pins_and_what_is_not_drawn_have_propensity_one():
    found = arrange(
        ROWS, BEST_FIRST, terms(4, pins=(-1, 6)), (), ExploreConfig(method="softmax"), None, np.array([4], np.uint64)
    )
    assert found.propensity[0, 1] == 1 and (found.propensity[0, [0, 2, 3]] < 1).all()
    assert found.explored is not None and found.explored.at[0, 1] == -1
    with pytest.raises(ValueError, match="pass `seeds`"):
        arrange(ROWS, BEST_FIRST, terms(4), (), ExploreConfig(method="softmax"))


def test_bounds_on_exposure_are_quotas_of_each_lists_own_length():
    """Even rows of the shelf are films; half of four places are two, of three one."""
    catalog = shelf(M)
    bounds = Bounds(ExposureConfig(categories={"film": 0.5}), catalog)
    vectors = np.eye(M, dtype=np.float32)
    online = None
    arranger = Arranger(None, None, bounds, vectors)
    wanted = Terms(np.array([4, 3], np.int32), np.full((2, 4), -1, np.int32))
    films_first = np.array([[9, 0, 8, 0, 7, 0, 6, 0.5]] * 2, np.float32)
    rows = np.repeat(ROWS, 2, 0)
    found = arranger.lists(rows, films_first, np.zeros(rows.shape, bool), wanted, online, None)  # type: ignore[arg-type]
    assert found.column.tolist() == [[0, 2, 7, 1], [0, 7, 1, -1]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_best_comes_first_and_of_equals_the_lower_row(dtype):
    rng = np.random.default_rng(0)
    rows = np.array([rng.permutation(40) for _ in range(20)], np.int32)
    scores = rng.choice(np.array([-np.inf, -2.5, -1e-30, -0.0, 0.0, 1e-30, 3.0], dtype), rows.shape)
    expected = [sorted(range(40), key=lambda c, b=b: (-scores[b, c], rows[b, c])) for b in range(20)]
    assert best_first(rows, scores).tolist() == expected
