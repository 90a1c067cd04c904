"""What is shown to whom, and what lists must keep to: each rule by hand, and lists that are never empty."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from pydantic import ValidationError

from index.exact import ExactIndex
from model.catalog import Catalog, Item
from model.config import RankConfig
from model.engine import Engine
from model.history import ACTION_CODE, Histories, HistoryLog, item_hash, pack
from model.near import MAX_FETCH, nearest
from model.online import OnlineScores
from model.people import Words
from model.peruser import Narrowed, PerUser, Shown
from model.rules import Ask, Asked, PriceRange, Rules, RulesConfig, wanted
from tests.model.test_engine import search_of
from tests.model.worlds import met, text_vectors

# rows 0..7; what is what can be seen at a glance
CATALOG = Catalog.build(
    {
        i.item: i
        for i in (
            Item("a", "A", categories=["film"], price=5.0, item_group_id="g"),
            Item("b", "B", categories=["film", "old"], price=10.0, item_group_id="g"),
            Item("c", "C", categories=["film"], price=20.0),
            Item("d", "D", categories=["book"], price=15.0, in_stock=False),
            Item("e", "E", categories=["book"], price=40.0, item_group_id="h"),
            Item("f", "F", categories=["book", "old"], item_group_id="h"),
            Item("g", "G", categories=["song"], price=1.0),
            Item("h", "H"),
        )
    }
)
N = len(CATALOG)
NOBODY = Histories.empty(1)


def names(mask: np.ndarray) -> str:
    return "".join(CATALOG.ids[row] for row in np.flatnonzero(mask))


def rules(**config) -> Rules:
    return Rules(RulesConfig.model_validate(config), CATALOG)


def asked(*asks: Ask | None, n: int | None = None, ts: int = 0) -> Asked | None:
    return Asked.by(len(asks), {b: (ask, n, ts) for b, ask in enumerate(asks) if ask is not None})


def test_the_catalogue_knows_prices_groups_and_members() -> None:
    np.testing.assert_array_equal(CATALOG.price, np.array([5, 10, 20, 15, 40, np.nan, 1, np.nan], np.float32))
    assert CATALOG.group.tolist() == [0, 0, -1, -1, 1, 1, -1, -1]
    assert [CATALOG.members.of(c).tolist() for c in ("film", "old", "nothing")] == [[0, 1, 2], [1, 5], []]
    assert names(CATALOG.in_any(["old", "song", "nothing"])) == "bfg"
    assert CATALOG.rows_of(["h", "stranger", "a"]).tolist() == [0, 7]
    empty = Catalog.build({})
    assert (len(empty.price), len(empty.group), empty.members.of("film").tolist()) == (0, 0, [])


@pytest.mark.parametrize(
    ("config", "left"),
    [
        ({}, "abcefgh"),
        ({"out_of_stock": True}, "abcdefgh"),
        ({"categories": {"allow": ["film", "song"]}}, "abcg"),
        ({"categories": {"allow": "film, song"}}, "abcg"),  # as the environment has it
        ({"categories": {"deny": ["old"]}}, "acegh"),
        ({"categories": {"allow": ["film"], "deny": ["old"]}}, "ac"),
        ({"items": {"allow": ["a", "d", "stranger"]}}, "a"),
        ({"items": {"deny": ["a", "h"]}}, "bcefg"),
        ({"price": {"min": 5, "max": 20}}, "abc"),  # d is out of stock; without a price nobody knows
        ({"price": {"max": 5}}, "ag"),
        ({"price": {"min": 20.5}}, "e"),
    ],
)
def test_what_anyone_may_see_is_in_stock_and_as_the_lists_and_prices_say(config: dict, left: str) -> None:
    assert names(rules(**config).shown(NOBODY).every()[0]) == left


def acted(*interactions: tuple[str, str]) -> Histories:
    """One user's (action, item), a second apart."""
    log = HistoryLog()
    for t, (action, item) in enumerate(interactions):
        log.add(0, 1000 * (t + 1), ACTION_CODE[action], item_hash(item), 1.0)
    return log.histories([0])


@pytest.mark.parametrize(
    ("seen", "actions", "left"),
    [
        ("exclude", {}, "cfgh"),
        ("exclude", {"view": "allow"}, "acfgh"),  # b was bought and viewed, e was bought
        ("exclude", {"view": "allow", "buy": "allow"}, "abcefgh"),
        ("allow", {}, "abcefgh"),
        ("allow", {"buy": "exclude"}, "acfgh"),
        ("allow", {"purchase": "exclude"}, "acfgh"),
    ],
)
def test_what_was_bought_may_stay_away_where_what_was_viewed_returns(seen, actions: dict, left: str) -> None:
    h = acted(("view", "a"), ("view", "b"), ("buy", "b"), ("buy", "e"))
    found = Rules(RulesConfig(seen=actions), CATALOG, seen)
    assert names(found.shown(h).every()[0]) == left
    assert found.returns == (seen == "allow" or bool(actions))


def test_what_fell_off_a_history_stays_away_if_what_was_met_by_any_action_does() -> None:
    beyond = pack([([(1000, ACTION_CODE["view"], item_hash("a"), 1.0)], [int(CATALOG.seen32[2])])])
    for seen, left in (("exclude", "abefgh"), ("allow", "abefgh")):
        config = RulesConfig(seen={"view": "allow", "buy": "exclude"})
        assert names(Rules(config, CATALOG, seen).shown(beyond).every()[0]) == left


def test_what_a_user_hides_is_hidden_from_nobody_else() -> None:
    hidden = Words.of([np.zeros(0, np.uint64), np.array([item_hash(i) for i in ("c", "stranger", "h")], np.uint64)])
    shown = rules().shown(met([], []), hidden)
    assert [names(row) for row in shown.every()] == ["abcefgh", "abefg"]


@pytest.mark.parametrize(
    ("ask", "left"),
    [
        (Ask(), "abcefgh"),
        (Ask(category="film"), "abc"),
        (Ask(category="song", categories=("old",)), "bfg"),
        (Ask(only=("a", "d", "h")), "ah"),
        (Ask(only=()), ""),
        (Ask(exclude=("a", "stranger")), "bcefgh"),
        (Ask(category="film", exclude=("a",), price=PriceRange(max=10)), "b"),
        (Ask(price=PriceRange(min=10)), "bce"),
        (Ask(item="a"), "bcefgh"),
    ],
)
def test_a_request_narrows_what_its_user_may_see_and_nobody_else(ask: Ask, left: str) -> None:
    shown = rules().shown(met([], [], []), None, asked(None, ask, None))
    assert [names(row) for row in shown.every()] == ["abcefgh", left, "abcefgh"]
    rows = np.tile(np.arange(N), (3, 1))
    np.testing.assert_array_equal(shown.at(rows), shown.every())
    np.testing.assert_array_equal(shown.at(rows[:1], np.array([1])), shown.every()[1:2])
    everything = PerUser(3, N, np.arange(3 * N), np.ones(3 * N, np.float32))
    np.testing.assert_array_equal(shown.of(everything).reshape(3, N), shown.every())


def test_a_request_allows_nothing_that_rules_forbid() -> None:
    found = rules(categories={"deny": ["old"]}).shown(acted(("buy", "a")), None, asked(Ask(only=("a", "b", "c", "d"))))
    assert names(found.every()[0]) == "c"


def test_equal_requests_share_a_mask() -> None:
    shown = rules().shown(met([], [], []), None, asked(Ask(category="film"), Ask(), Ask(category="film")))
    assert shown.narrowed is not None
    assert (len(shown.narrowed.masks), shown.narrowed.of.tolist()) == (1, [0, -1, 0])
    plain = rules().shown(met([]), None, asked(Ask()))
    assert plain.narrowed is None


def test_whoever_is_on_a_page_is_read_as_if_they_had_just_viewed_its_item() -> None:
    h = acted(("buy", "a"), ("buy", "b"))
    both = Histories.concat([h, Histories.empty(1), h])
    wish = Asked.by(3, {0: (Ask(item="c"), None, 9000), 1: (Ask(item="c"), None, 9000)})
    assert wish is not None
    found = wish.on_page(both)
    assert found.lengths.tolist() == [3, 1, 2]
    a, b, c = (item_hash(i) for i in "abc")
    assert found.items.tolist() == [[a, b, c], [0, 0, c], [0, a, b]]
    assert found.actions[:2, -1].tolist() == [ACTION_CODE["view"]] * 2
    assert found.times.tolist() == [[1000, 2000, 9000], [0, 0, 9000], [0, 1000, 2000]]
    early = Asked.by(1, {0: (Ask(item="c"), None, 5)})
    assert early is not None and early.on_page(h).times.tolist() == [[1000, 2000, 2000]]
    nothing = asked(Ask(category="film"))
    assert nothing is not None and nothing.on_page(h) is h


# Terms


def test_there_are_no_terms_where_nothing_is_asked_of_lists() -> None:
    found = rules(categories={"deny": ["old"]}, price={"max": 5})
    assert found.terms(found.shown(NOBODY), 10) is None
    assert RankConfig().rules == RulesConfig()


def test_a_request_says_how_long_its_list_is() -> None:
    found = rules()
    wish = Asked.by(3, {0: (Ask(), 2, 0), 2: (Ask(), None, 0)})
    terms = found.terms(found.shown(met([], [], []), None, wish), 5, wish)
    assert terms is not None
    assert (terms.places.tolist(), terms.width, terms.quotas, terms.boosts, terms.one_of) == (
        [2, 5, 5],
        5,
        (),
        None,
        None,
    )


def test_a_pinned_item_has_its_place_unless_it_may_not_be_shown() -> None:
    found = rules(pinned={"c": 2, "d": 1, "b": 4, "stranger": 3})
    h = Histories.concat([NOBODY, acted(("view", "c")), NOBODY, NOBODY])
    wish = asked(None, None, Ask(category="book"), None)
    terms = found.terms(found.shown(h, None, wish), 4, wish)
    assert terms is not None
    # d is out of stock; the second has seen c, the third asks for books
    assert terms.pinned.tolist() == [[-1, 2, -1, 1], [-1, -1, -1, 1], [-1] * 4, [-1, 2, -1, 1]]
    short = Asked.by(1, {0: (Ask(), 3, 0)})
    terms = found.terms(found.shown(NOBODY, None, short), 4, short)
    assert terms is not None and terms.pinned.tolist() == [[-1, 2, -1]]


def test_quotas_are_by_category_and_whoever_asks_for_one_may_have_all_of_it() -> None:
    found = rules(least={"book": 2}, most={"film": 1, "book": 3})
    wish = Asked.by(3, {1: (Ask(category="film"), None, 0), 2: (Ask(), 1, 0)})
    terms = found.terms(found.shown(met([], [], []), None, wish), 5, wish)
    assert terms is not None
    by_name = {names(q.member): (q.least.tolist(), q.most.tolist()) for q in terms.quotas}
    assert by_name == {"def": ([2, 2, 1], [3, 3, 1]), "abc": ([0, 0, 0], [1, 5, 1])}


def test_boosts_of_an_item_and_of_its_categories_add_up() -> None:
    found = rules(boosts={"items": {"b": 0.5, "h": -1}, "categories": {"film": 0.25, "old": 1.0}})
    terms = found.terms(found.shown(NOBODY), 3)
    assert terms is not None and terms.boosts is not None
    assert terms.boosts.tolist() == [0.25, 1.75, 0.25, 0, 0, 1.0, 0, -1]


def test_variants_share_a_place() -> None:
    found = rules(one_of_group=True)
    terms = found.terms(found.shown(NOBODY), 3)
    assert terms is not None and terms.one_of is not None
    assert terms.one_of.tolist() == CATALOG.group.tolist()


def test_what_rules_name_and_the_catalogue_does_not_have_is_told() -> None:
    found = rules(items={"deny": ["a", "zz"]}, most={"flim": 1}, pinned={"yy": 1}, categories={"allow": ["film"]})
    assert found.unknown == ["yy", "zz", "flim"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"seen": {"watch": "allow"}}, "unknown action 'watch'"),
        ({"least": {"film": 3}, "most": {"film": 2}}, "film: at least 3 and at most 2 cannot both be"),
        ({"least": {"film": -1}}, "film is -1: a number of items is 0 or more"),
        ({"pinned": {"a": 0}}, "a is pinned to place 0: the first place is 1"),
        ({"pinned": {"a": 1, "b": 1}}, "two items are pinned to one place"),
        ({"catgories": {}}, "Extra inputs are not permitted"),
    ],
)
def test_rules_that_cannot_be_are_refused(config: dict, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RulesConfig.model_validate(config)


def test_a_context_with_a_name_that_means_nothing_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field `categry`"):
        msgspec.convert({"categry": "film"}, Ask)


# What is among the candidates


def candidates(e: Engine, h: Histories, m: int, places: int, **known) -> list[set[int]]:
    fused = e.encode(h, e.profiles(h))
    shown = e.shown(h, None, known.get("asked"))
    terms = e.rules.terms(shown, places, known.get("asked"))
    found = e.candidates(h, fused, search_of(e), OnlineScores.empty(e.catalog), m, None, None, shown, terms)
    for row, may in zip(found, shown.every(), strict=True):
        assert may[row[row >= 0]].all()
    return [set(row[row >= 0].tolist()) for row in found]


def shelves(count: int, rare: int = 5) -> Catalog:
    """Items in rows of their numbers; the last `rare` are of the category "rare", the first half of one group each
    hundred, every tenth costs 1 and the others nothing known.
    """
    return Catalog.build(
        {
            f"i{k:06}": Item(
                f"i{k:06}",
                f"{k}",
                categories=["rare" if k >= count - rare else "plain"],
                price=1.0 if k % 10 == 0 else None,
                item_group_id=f"g{k // 100}" if k < count // 2 else None,
            )
            for k in range(count)
        }
    )


LARGE = 20_000
SHELVES, VECTORS = shelves(LARGE), text_vectors(LARGE)


def engine(**config) -> Engine:
    return Engine(SHELVES, VECTORS, rules=RulesConfig.model_validate(config))


def users(n: int) -> Histories:
    log = HistoryLog()
    for u in range(n):
        log.add(u, 1000, 2, item_hash(f"i{u:06}"), 2.0)
    return log.histories(range(n))


def test_lists_hold_what_may_be_shown_however_few_of_many_that_are() -> None:
    three = engine(items={"allow": ["i000007", "i001111", "i019000"]})
    assert candidates(three, users(2), 10, 10) == [{7, 1111, 19000}] * 2
    category = engine(categories={"allow": ["rare"]})
    assert candidates(category, users(2), 10, 10) == [set(range(LARGE - 5, LARGE))] * 2
    free, wish = engine(), asked(Ask(category="rare"), None, Ask(only=("i000002", "i000005")), Ask(category="nothing"))
    one, all_, few, none = candidates(free, users(4), 10, 10, asked=wish)
    # who asks for what is nowhere gets nothing; the third has clicked i000002
    assert (one, len(all_) >= 10, few, none) == (set(range(LARGE - 5, LARGE)), True, {5}, set())


def test_the_few_that_are_compared_are_the_nearest_of_them() -> None:
    e, h = engine(price={"max": 1}), users(3)
    fused = e.encode(h, e.profiles(h))
    shown = e.shown(h)
    near = nearest(search_of(e), e._comparing(fused), fused.vectors.numpy(), shown, 300, 10)
    scores = np.where(shown.every(), fused.vectors.numpy() @ e.item_vectors.T, -np.inf)
    np.testing.assert_array_equal(near, np.argsort(-scores, axis=1, kind="stable")[:, :300])


def test_where_an_index_cannot_reach_what_is_left_all_is_compared() -> None:
    """Everything that an index can return at once has been met: what is asked for lies beyond."""
    e, h = engine(), users(1)
    fused = e.encode(h, e.profiles(h))
    order = np.argsort(-(fused.vectors.numpy() @ e.item_vectors.T)[0], kind="stable")
    hidden = np.sort(order[: MAX_FETCH + 500])
    fetched = []

    def search(vectors: np.ndarray, k: int):
        fetched.append(k)
        return search_of(e)(vectors, k)

    shown = Shown(np.ones(LARGE, bool), PerUser(1, LARGE, hidden, np.ones(len(hidden), np.float32)))
    near = nearest(search, e._comparing(fused), fused.vectors.numpy(), shown, 20, 10)
    assert fetched == [25, 100, 400, 1600, MAX_FETCH]
    assert near[0].tolist() == order[MAX_FETCH + 500 :][:20].tolist()
    masks = np.zeros((1, LARGE), bool)
    masks[0, order[MAX_FETCH + 600 :]] = True  # not few, but far
    narrowed = Shown(
        np.ones(LARGE, bool),
        PerUser.summed(1, LARGE, *np.zeros((3, 0), np.int64)),
        Narrowed(masks, np.zeros(1, np.int32)),
    )
    near = nearest(search, e._comparing(fused), fused.vectors.numpy(), narrowed, 20, 10)
    assert near[0].tolist() == order[MAX_FETCH + 600 :][:20].tolist()


def test_there_are_as_many_groups_among_the_candidates_as_a_list_has_places() -> None:
    """Variants of one article are each other's neighbours: a hundred of them are one item of a list."""
    vectors = np.repeat(text_vectors(LARGE // 100), 100, axis=0) + text_vectors(LARGE, seed=1) / 100
    e = Engine(SHELVES, vectors.astype(np.float32), rules=RulesConfig(one_of_group=True))
    found = candidates(e, users(2), 20, 10)
    for rows in found:
        groups = {int(SHELVES.group[row]) if SHELVES.group[row] >= 0 else -row for row in rows}
        assert len(groups) >= 10


def test_candidates_hold_what_quotas_pins_and_boosts_ask_for() -> None:
    rare, last = set(range(LARGE - 5, LARGE)), LARGE - 1
    assert rare <= candidates(engine(least={"rare": 2}), users(1), 10, 10)[0]
    assert last in candidates(engine(pinned={f"i{last:06}": 1}), users(1), 10, 10)[0]
    assert rare <= candidates(engine(boosts={"categories": {"rare": 2.0}}), users(1), 10, 10)[0]
    assert not rare & candidates(engine(boosts={"categories": {"rare": -2.0}}), users(1), 10, 10)[0]
    # two plain ones at most: the other places are for what is left, and nothing else is
    assert rare <= candidates(engine(most={"plain": 2}), users(1), 10, 10)[0]


def test_what_should_be_among_the_candidates_follows_from_the_terms() -> None:
    found = rules(least={"book": 2}, most={"film": 1, "old": 1}, boosts={"items": {"h": 1.0}})
    terms = found.terms(found.shown(NOBODY), 5)
    assert terms is not None
    assert [(names(group.has(slice(None))), least.tolist()) for group, least in wanted(terms)] == [
        ("def", [2]),
        ("defgh", [4]),
        ("acdegh", [4]),
        ("degh", [3]),
        ("h", [5]),
    ]


def test_no_list_is_empty_while_there_is_an_item_for_it() -> None:
    """Of each kind of rule one that leaves a single item of 20,000, which the index would not find."""
    single = f"i{LARGE // 2 + 1:06}"
    h = users(3)
    for e, wish in (
        (engine(items={"allow": [single]}), None),
        (engine(), asked(*[Ask(only=(single,))] * 3)),
        (engine(items={"allow": [single, "i000000"]}), asked(*[Ask(exclude=("i000000",))] * 3)),
    ):
        assert candidates(e, h, 10, 10, asked=wish) == [{LARGE // 2 + 1}] * 3


def test_an_exact_index_and_the_rules_agree_on_everything_that_may_be_shown() -> None:
    e = Engine(CATALOG, text_vectors(N), rules=RulesConfig.model_validate({"price": {"min": 1}}))
    index = ExactIndex(e.dim)
    index.add(np.arange(N), e.item_vectors)
    assert candidates(e, met([]), N, N) == [{row for row, i in enumerate(CATALOG.ids) if i in "abceg"}]
