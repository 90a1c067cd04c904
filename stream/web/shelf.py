"""The catalogue as the page shows it: titles, categories, and a search box over both.

This is NOT the candidate index: it knows no vectors, and its order is popularity, never a recommendation.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from model.catalog import Catalog


def fold(text: str) -> str:
    """The form in which texts are compared: no accents, no case ("Amélie" and "AMELIE" are one)."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


class Shelf:
    """One catalogue snapshot in the page's order: the popular items first, then the rest, each once.

    `popular` holds catalogue indices, most popular first; an index outside the catalogue raises `IndexError`.
    Items out of stock keep their titles (old reasons name them) and can still be sent, but are not listed.
    """

    def __init__(self, catalog: Catalog, popular: Sequence[int]) -> None:
        self._titles = dict(zip(catalog.ids, catalog.titles, strict=True))
        self._categories = dict(zip(catalog.ids, catalog.categories, strict=True))
        order = dict.fromkeys([*(int(i) for i in popular), *range(len(catalog.ids))])
        self._order = [catalog.ids[i] for i in order if catalog.in_stock[i]]
        self._folded = [fold(" ".join((self._titles[i], *self._categories[i]))) for i in self._order]

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, item: str) -> bool:
        return item in self._titles

    def title(self, item: str) -> str:
        """The item's title, or its id where this snapshot does not have it (the catalogue may be newer)."""
        return self._titles.get(item, item)

    def card(self, item: str) -> dict[str, object]:
        """What the page needs to draw one item."""
        return {"item": item, "title": self.title(item), "categories": self._categories.get(item, ())}

    def search(self, query: str, offset: int, limit: int) -> tuple[int, list[dict[str, object]]]:
        """(how many items hold every word of the query, the cards of one page of them, popular first)."""
        words = fold(query).split()
        if not words:
            return len(self._order), [self.card(i) for i in self._order[offset : offset + limit]]
        found = [n for n, text in enumerate(self._folded) if all(word in text for word in words)]
        return len(found), [self.card(self._order[n]) for n in found[offset : offset + limit]]
