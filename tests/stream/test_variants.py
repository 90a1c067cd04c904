"""Who gets which variant, and how a micro-batch is dealt out among them and put together again."""

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import chisquare

from stream.answers.progress import Waiting
from stream.lists.interests import Interests
from stream.lists.lineup import Lineup, together
from stream.lists.variants import Split, VariantConfig, places, shares
from tests.model.worlds import met

USERS = [f"u{n}" for n in range(20_000)]


def split(experiment: str = "1", **of: float) -> Split:
    return Split.of(experiment, shares({name: VariantConfig(share=share) for name, share in of.items()}))


def test_shares_come_out() -> None:
    drawn = np.bincount(split(a=0.5, b=0.3, c=0.2).numbers(USERS), minlength=3)
    assert chisquare(drawn, np.array([0.5, 0.3, 0.2]) * len(USERS)).pvalue > 0.001


def test_the_same_user_always_gets_the_same_variant_whoever_else_is_in_the_batch() -> None:
    of, longer = split(a=0.5, b=0.5), "someone with a name much longer than anybody else's: ünïcødé ☃"
    alone = [int(of.numbers([user])[0]) for user in [*USERS[:300], longer]]
    assert of.numbers([*USERS[:300], longer]).tolist() == alone
    assert split(b=0.5, a=0.5).names == of.names, "the order in which they are written says nothing"
    assert of.numbers([]).tolist() == []


def test_a_place_is_the_same_in_every_release() -> None:
    known = [0.782174, 0.187886, 0.742133]
    np.testing.assert_allclose(places(["u1", "u2", "ü☃"], "1"), known, atol=1e-5)


def test_of_two_neighbours_only_those_who_must_change_sides() -> None:
    before, after = split(a=0.5, b=0.5).numbers(USERS), split(a=0.6, b=0.4).numbers(USERS)
    moved = before != after
    assert set(after[moved].tolist()) == {0}, "nobody goes from the one that grows"
    assert moved.mean() == pytest.approx(0.1, abs=0.01)
    third = split(a=0.5, b=0.3, c=0.2).numbers(USERS)
    np.testing.assert_array_equal(third == 0, before == 0)


def test_two_experiments_are_split_independently() -> None:
    one, other = split("spring", a=0.5, b=0.5).numbers(USERS), split("autumn", a=0.5, b=0.5).numbers(USERS)
    assert chisquare(np.bincount(2 * one + other, minlength=4)).pvalue > 0.001


def test_who_has_no_share_has_what_is_left() -> None:
    free = {"a": VariantConfig(), "b": VariantConfig(share=0.2), "c": VariantConfig(), "d": VariantConfig(shadow=True)}
    assert shares(free) == pytest.approx({"a": 0.4, "b": 0.2, "c": 0.4})
    assert shares({}) == {}


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ({"a": {"share": 0.5}, "b": {"share": 0.3}}, r"sum to 0\.8.* take out one of them, as that of b"),
        ({"a": {"share": 0.7}, "b": {"share": 0.6}}, r"sum to 1\.3: they may sum to 1"),
        ({"a": {"share": 1.0}, "b": {}}, "no users are left for b: lower a share, or set shadow = true"),
        ({"a": {"shadow": True}}, r"all are shadows.*\[variants.a\]"),
        ({"a": {}, "b": {"shadow": True, "share": 0.5}}, "b is a shadow, .*take its share out"),
        ({"shadow": {}}, "give the variant another name"),
    ],
)
def test_shares_that_cannot_be_say_what_to_write(variants: dict[str, dict[str, Any]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        shares({name: VariantConfig(**of) for name, of in variants.items()})


def batch(n: int) -> Interests:
    h = met(*([k] for k in range(n)))
    return Interests(
        [Waiting(0, f"u{k}", k, None) for k in range(n)], h, list(range(n)), [{"click": k} for k in range(n)]
    )


def test_every_user_is_in_one_part_and_shadows_have_all() -> None:
    of, served = split(a=0.6, b=0.4), [cast(Any, name) for name in ("A", "B", "S")]
    lineup = Lineup(of, (served[0], served[1]), {"s": served[2]}, {})
    interests = batch(50)
    parts = lineup.parts(interests, None)
    assert [(p.variant, p.served, p.shadow) for p in parts] == [("a", "A", False), ("b", "B", False), ("s", "S", True)]
    numbers = of.numbers([w.user for w in interests.users])
    for number, part in enumerate(parts[:2]):
        assert part.at is not None and part.at.tolist() == np.flatnonzero(numbers == number).tolist()
        assert [w.user for w in part.interests.users] == [f"u{k}" for k in part.at.tolist()]
        assert part.interests.counts == part.at.tolist() == [of["click"] for of in part.interests.applied]
        np.testing.assert_array_equal(part.interests.histories.items, interests.histories.items[part.at])
    assert parts[2].interests is interests
    made = [[w.user for w in part.interests.users] for part in parts[:2]]
    assert together(parts[:2], made) == [w.user for w in interests.users]


def test_a_variant_whose_users_are_not_there_makes_no_lists() -> None:
    lineup = Lineup(Split("1", ("a", "b"), np.array([1.0])), (cast(Any, "A"), cast(Any, "B")), {}, {})
    (part,) = lineup.parts(batch(5), None)
    assert part.variant == "a" and together([part], [list("vwxyz")]) == list("vwxyz")


def test_without_variants_nothing_is_copied() -> None:
    interests = batch(3)
    lineup = Lineup(Split.of("1", {"a": 1.0}), (cast(Any, "A"),), {}, {})
    (part,) = lineup.parts(interests, None)
    assert part.interests is interests and part.at is None
