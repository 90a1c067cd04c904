"""What a shop wants of its lists, on the running worker: each rule by what a list that is asked for holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model.catalog import Item
from model.people import Person
from stream.asking import ask
from stream.publishing import publish_items, publish_people, withdraw_items
from tests.pipeline.harness import Deployment, Sent, Worker, run, until

T0 = 1_700_000_000_000
SHOP = [
    *(Item(f"film{n}", f"a film of rivers {n}", categories=["film"], price=10.0 + n) for n in range(10)),
    *(Item(f"book{n}", f"a book of bridges {n}", categories=["book"], price=20.0 + n) for n in range(10)),
    *(Item(f"song{n}", f"a song of mills {n}", categories=["song"], price=1.0) for n in range(5)),
    *(Item(f"toy{n}", f"a toy harbour {n}", categories=["toy"], price=5.0) for n in range(3)),
    *(
        Item(f"shirt{n}", f"a shirt, size {n}", categories=["wear"], price=30.0, item_group_id="shirt")
        for n in range(6)
    ),
    Item("gone", "a film that is sold out", categories=["film"], price=9.0, in_stock=False),
    Item("gold", "a book bound in gold", categories=["book"], price=1000.0),
    Item("free", "a book without a price", categories=["book"]),
]
RULES = """
[rank.rules]
one_of_group = true
categories = { deny = ["toy"] }
items = { deny = ["film9"] }
price = { max = 100 }
seen = { view = "allow" }
least = { song = 2 }
most = { film = 3 }
pinned = { book7 = 2 }
boosts = { items = { book3 = 9.0 } }
"""
FILMS = {f"film{n}" for n in range(9)}
BOOKS = {f"book{n}" for n in range(10)}


class Shop:
    """A deployment with these rules, and its worker."""

    def __init__(self, deployment: Deployment, **environ: str) -> None:
        self.deployment = deployment
        self.settings = deployment.settings
        self.worker: Worker = deployment.worker(**environ).ready()

    def ask(self, user: str, n: int = 60, **context: Any) -> list[str]:
        """The items of the answer to a request."""
        return [item.item for item in run(ask(self.settings, user, n, context, 30)).items]

    def describe(self, *people: Person) -> None:
        """What is known of users, and known to the worker on return."""
        before = self.worker.status()["described"]
        run(publish_people(self.settings.kafka, self.settings.topics.users, people))
        until(lambda: self.worker.status()["described"] >= before + len(people), 30, "the users are read")

    def did(self, *events: Sent) -> None:
        self.deployment.send(events)
        self.deployment.settled()


@pytest.fixture(scope="module")
def shop(broker: str, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "eddyline.toml").write_text(RULES)
    deployment = Deployment(broker, "shop", folder, cache).create(SHOP)
    yield Shop(deployment, EDDYLINE_CONFIG=str(folder / "eddyline.toml"))
    deployment.close()


def test_what_is_out_of_stock_or_denied_is_in_no_list(shop: Shop) -> None:
    assert set(shop.ask("a", category="film")) == FILMS
    assert shop.ask("a", category="toy") == []
    shop.did(Sent("b", "toy1", "click", T0))
    (event,) = (e for e in shop.deployment.lists() if e.user == "b")
    listed = {item.item for item in event.items}
    assert listed and not any(i.startswith("toy") for i in listed) and not listed & {"gone", "film9", "gold", "free"}


def test_prices_are_within_their_range_and_a_request_may_narrow_it(shop: Shop) -> None:
    assert set(shop.ask("c", category="book")) == BOOKS
    assert set(shop.ask("c", category="book", price={"min": 22, "max": 24})) == {"book2", "book3", "book4"}
    assert set(shop.ask("c", category="book", price={"max": 5000})) == BOOKS


def test_what_was_bought_never_comes_back_and_what_was_viewed_may(shop: Shop) -> None:
    shop.did(
        Sent("d", "film1", "buy", T0), Sent("d", "film2", "view", T0 + 1000), Sent("d", "film3", "click", T0 + 2000)
    )
    assert set(shop.ask("d", category="film")) == FILMS - {"film1", "film3"}


def test_what_a_user_hides_is_hidden_from_them_alone(shop: Shop) -> None:
    shop.describe(Person("e", hidden=["film4", "book7"]))
    assert set(shop.ask("e", category="film")) == FILMS - {"film4"}
    assert "book7" not in shop.ask("e")
    assert set(shop.ask("f", category="film")) == FILMS


def test_a_request_is_about_its_categories_or_items_without_what_it_excludes(shop: Shop) -> None:
    assert set(shop.ask("g", categories=["song", "toy"])) == {f"song{n}" for n in range(5)}
    assert set(shop.ask("g", only=["film1", "film9", "song1", "stranger"])) == {"film1", "song1"}
    assert set(shop.ask("g", category="film", exclude=["film1", "film2"])) == FILMS - {"film1", "film2"}


def test_the_item_of_a_page_is_not_in_its_list_and_what_is_like_it_comes_first(shop: Shop) -> None:
    films, songs = (shop.ask("h", n=5, item=item, categories=["film", "song"]) for item in ("film1", "song1"))
    assert "film1" not in films and "song1" not in songs
    assert {item[:4] for item in films[:3]} == {"film"}
    assert {item[:4] for item in songs[:3]} == {"song"}
    windows = shop.deployment.windows()
    assert all(windows.row(p, "h") is None for p in range(4)), "no state knows of it"


def test_a_list_holds_what_there_is_in_the_category_however_little(shop: Shop) -> None:
    run(publish_items(shop.settings.kafka, shop.settings.topics.catalog, [Item("rare", "x", categories=["rare"])]))
    # without a price it is not shown, as prices are bound
    run(
        publish_items(
            shop.settings.kafka, shop.settings.topics.catalog, [Item("one", "y", categories=["rare"], price=3.0)]
        )
    )
    until(lambda: shop.worker.status()["items"] == len(SHOP) + 2, 30, "the catalogue is read")
    assert shop.ask("i", category="rare") == ["one"]
    run(withdraw_items(shop.settings.kafka, shop.settings.topics.catalog, ["rare", "one"]))


def test_allow_lists_leave_nothing_else(empty: Deployment) -> None:
    items = {"EDDYLINE_RANK__RULES__ITEMS__ALLOW": "film1,song2,gone,book3"}
    other = Shop(empty.create(SHOP), EDDYLINE_RANK__RULES__CATEGORIES__ALLOW="film, song", **items)
    assert set(other.ask("j")) == {"film1", "song2"}
    assert other.worker.stop() == 0


def test_a_list_has_at_least_and_at_most_so_many_of_a_category(shop: Shop) -> None:
    shop.did(*(Sent("k", f"film{n}", "view", T0 + n) for n in range(9)))
    found = shop.ask("k", n=10)
    assert len(found) == 10
    assert sum(item.startswith("film") for item in found) <= 3
    assert sum(item.startswith("song") for item in found) >= 2
    (event,) = [e for e in shop.deployment.lists() if e.user == "k" and e.source.topic.endswith("view")][-1:]
    assert sum(item.item.startswith("film") for item in event.items) <= 3


def test_of_variants_a_list_has_one(shop: Shop) -> None:
    assert sum(item.startswith("shirt") for item in shop.ask("l")) == 1
    assert len(shop.ask("l", category="wear")) == 1


def test_a_pinned_item_has_its_place_and_a_boosted_one_comes_up(shop: Shop) -> None:
    shop.did(*(Sent("m", f"song{n}", "view", T0 + n) for n in range(5)))
    found = shop.ask("m", n=5)
    assert found[1] == "book7"
    assert "book3" in found
    shop.did(Sent("m", "book7", "buy", T0 + 9))
    assert "book7" not in shop.ask("m", n=5)


def test_a_list_is_as_long_as_it_is_asked_to_be(shop: Shop) -> None:
    assert [len(shop.ask("n", n=n)) for n in (1, 3, 15)] == [1, 3, 15]
