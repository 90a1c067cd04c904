"""Users as they describe themselves: which groups attributes make, and which words are kept."""

from __future__ import annotations

import numpy as np
import pytest

from model.history import item_hash
from model.people import People, Person, Value, group_of, words


@pytest.mark.parametrize(
    ("value", "group"),
    [
        ("24", "age 20"),
        (29, "age 20"),
        (7, "age 7"),
        ("0.034", "age 0.03"),
        (85711, "age 80000"),
        (-12, "age -10"),
        ("0", "age 0"),
        ("about 30", "age about 30"),
        ("nan", "age nan"),
        (True, "age True"),
        (None, None),
        ("  ", None),
    ],
)
def test_a_value_makes_a_group_and_numbers_are_cut_to_their_first_digit(value: Value, group: str | None) -> None:
    assert group_of("age", value) == group


def test_a_word_is_kept_once_and_as_its_hash() -> None:
    person = Person("u", {"age": 24, "gender": None, "zip": ""}, ["i7", "film", "i7"], ["i9", "i9"])
    groups, interests, hidden = words(person)
    assert groups.tolist() == [item_hash("age 20")]
    assert interests.tolist() == sorted([item_hash("i7"), item_hash("film")])
    assert hidden.tolist() == [item_hash("i9")]


def test_people_are_found_by_name_and_the_last_description_of_one_counts() -> None:
    people = People.of([Person("a", {"x": "1"}), Person("b", {}, ["i1"]), Person("a", {"x": "2"}, ["i2", "i3"])])
    about = people.about.take(people.rows(["b", "nobody", "a"]))
    assert [about.groups.row(b).tolist() for b in range(3)] == [[], [], [item_hash("x 2")]]
    assert [len(about.interests.row(b)) for b in range(3)] == [1, 0, 2]
    assert about.hidden.owner.tolist() == []
    assert not about.nothing
    assert about.take(np.array([1])).nothing
    assert len(People.empty()) == 0
