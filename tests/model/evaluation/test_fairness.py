"""Groups of items and of users: by hand."""

from pathlib import Path

import numpy as np
import pytest

from model.catalog import Catalog, Item
from model.dataset import DatasetError
from model.datasets import load
from model.evaluation.fairness import exposure, quality, tenths
from model.evaluation.tables import Answers, Asks, Table
from model.people import group_of


def table_of(ranks: list[float], targets: list[int], users: list[int], lists: list[list[int]], items: int) -> Table:
    t = len(ranks)
    zero = np.zeros(t, np.int64)
    asks = Asks(np.array(users), np.array(targets), zero, zero, zero)
    answers = {"a": Answers(np.array([ranks]), np.array(lists, np.int32), 1.0)}
    return Table(2, items, np.arange(items)[::-1], asks, answers)


def test_exposure_by_hand():
    catalog = Catalog.build({f"i{k}": Item(f"i{k}", "", categories=["film"] if k < 2 else []) for k in range(4)})
    found = exposure(table_of([1, 9, 2], [0, 1, 3], [0, 0, 1], [[0, 1], [0, -1]], 4), catalog)
    film = found["film"]
    # of three places all are films, of four items two, of three that were taken two; of these one was in the first two
    assert (film.places, film.catalog, film.taken, film.hr) == ({"a": 1.0}, 0.5, pytest.approx(2 / 3), {"a": 0.5})
    first = found["popularity 1"]
    assert (first.places["a"], first.catalog, first.hr) == (pytest.approx(2 / 3), 0.25, {"a": 1.0})
    assert "a" not in found["popularity 6"].hr  # of which nothing was taken


def test_tenths_are_of_the_catalogue_and_the_first_is_the_most_popular():
    found = tenths(np.array([5, 0, 9, 1, 2, 3, 4, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert [int(group.sum()) for group in found.values()] == [2] * 10
    assert np.flatnonzero(found["popularity 1"]).tolist() == [2, 9]


def test_quality_by_hand():
    users = np.array([f"u{u}" for u in range(24)])
    said = {
        f"u{u}": {"gender": "F" if u < 12 else "M", "age": str(20 + u)} for u in range(23)
    }  # of u23 nothing is said
    ranks = [1.0] * 12 + [9.0] * 12
    found = quality(table_of(ranks, [0] * 24, list(range(24)), [[0]], 1), users, said, ["gender", "age"])
    assert {g: (s.users, s.questions, s.quality["a"]["hr@2"].mean) for g, s in found.items()} == {
        "gender F": (12, 12, 1.0),
        "gender M": (11, 11, 0.0),
        "age 20": (10, 10, 1.0),
        "age 30": (10, 10, 0.2),
    }  # three are forty: too few to be told of
    with pytest.raises(DatasetError, match="nobody's 'shoe size' is known; known of users: age, gender"):
        quality(table_of(ranks, [0] * 24, list(range(24)), [[0]], 1), users, said, ["shoe size"])


@pytest.mark.parametrize(
    ("value", "group"),
    [("24", "x 20"), ("0", "x 0"), ("85711", "x 80000"), ("-7.5", "x -7"), ("F", "x F"), ("nan", "x nan"), (" ", None)],
)
def test_numbers_are_cut_to_their_first_digit(value: str, group: str | None):
    assert group_of("x", value) == group


def test_attributes_are_read_beside_the_events(tmp_path: Path):
    def said() -> dict[str, dict[str, object]]:
        people = load(tmp_path, tmp_path).people
        return {u: {name: v for name, v in p.attributes.items() if v is not None} for u, p in people.items()}

    (tmp_path / "events.csv").write_text("user,item,action,ts\nu1,i1,click,1700000000000\n")
    assert said() == {}
    (tmp_path / "users.csv").write_text("user,gender,age\nu1,F,33\nu2,,4\n")
    assert said() == {"u1": {"gender": "F", "age": "33"}, "u2": {"age": "4"}}
    (tmp_path / "users.csv").write_text("name\nu1\n")
    with pytest.raises(DatasetError, match=r"users\.csv: lacks the column\(s\) user;"):
        said()
