"""The catalogue snapshot: rows by hash, and no two items that state could mistake for each other."""

import numpy as np
import pytest

from model.catalog import Catalog, HashCollisionError, Item, check_distinct
from model.history import item_hash


def test_rows_are_sorted_by_id_whatever_the_order_of_arrival():
    items = {i: Item(i, i.upper()) for i in ("b", "c", "a")}
    catalog = Catalog.build(items, version=3)
    assert (catalog.ids, catalog.titles, catalog.version, len(catalog)) == (
        ["a", "b", "c"],
        ["A", "B", "C"],
        3,
        3,
    )


def test_an_item_is_found_by_its_hash_and_a_stranger_is_not():
    catalog = Catalog.build({i: Item(i, i) for i in ("a", "b")})
    asked = np.array([[item_hash("b"), 0], [item_hash("x"), item_hash("a")]], np.uint64)
    assert catalog.index_of(asked).tolist() == [[1, -1], [-1, 0]]


def test_an_empty_catalogue_knows_nothing():
    assert Catalog.build({}).index_of(np.array([5], np.uint64)).tolist() == [-1]


def test_a_hash_collision_names_both_items():
    with pytest.raises(HashCollisionError, match="'a' and 'c'"):
        check_distinct(["a", "b", "c"], np.array([5, 9, 5], np.uint64))


def test_the_encoder_reads_title_categories_and_text():
    item = Item("1", "Alien (1979)", text="A ship.", categories=["Horror", "Sci-Fi"])
    assert item.text_for_encoder() == "Alien (1979). Horror, Sci-Fi. A ship"
    assert Item("2", "Bread").text_for_encoder() == "Bread"


def test_a_category_has_its_items_and_an_item_its_categories_each_once():
    kinds = (["film", "new", "film"], [], ["book"], ["new", "film"])
    catalog = Catalog.build({f"i{k}": Item(f"i{k}", "x", categories=c) for k, c in enumerate(kinds)})
    assert catalog.categories == [("film", "new"), (), ("book",), ("new", "film")]
    members = catalog.members
    assert dict(members.number) == {"film": 0, "new": 1, "book": 2}
    assert [members.of(name).tolist() for name in ("film", "new", "book", "none")] == [[0, 3], [0, 3], [2], []]
    assert members.numbers.tolist() == [0, 0, 1, 1, 2]
    assert members.table(4).toarray().tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 1, 0]]
    assert Catalog.build({}).members.table(0).shape == (0, 0)
