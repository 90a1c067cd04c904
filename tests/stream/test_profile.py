"""When a profile is due: by new interactions or by event time, and never by the wall clock."""

from __future__ import annotations

import numpy as np
import pytest

from stream.lists.profile import Profile, ProfileConfig, Profiles, ProfilesOf, is_due

DAY = 86_400_000
CONFIG = ProfileConfig(refresh_events=16, refresh_ms=DAY, keep=3, batch=2)


def profile(interactions: int = 10, newest_ms: int = 0, made: float = 0.0) -> Profile:
    return Profile(np.zeros((1, 4), np.float32), interactions, newest_ms, made)


@pytest.mark.parametrize(
    ("interactions", "newest_ms", "due"),
    [(10, 0, False), (25, 0, False), (26, 0, True), (10, DAY - 1, False), (10, DAY, True), (40, 3 * DAY, True)],
)
def test_a_profile_is_due_after_so_many_interactions_or_so_much_event_time(
    interactions: int, newest_ms: int, due: bool
) -> None:
    assert is_due(CONFIG, profile(), interactions, newest_ms) is due


def test_no_event_time_makes_a_profile_due_where_that_is_switched_off() -> None:
    config = ProfileConfig(refresh_events=16, refresh_ms=0)
    assert not is_due(config, profile(), 10, 1000 * DAY)
    assert is_due(config, profile(), 26, 0)


def test_when_it_was_made_does_not_matter() -> None:
    assert not is_due(CONFIG, profile(made=-1e9), 10, 0)


def test_nobody_is_due_who_has_done_nothing() -> None:
    profiles = Profiles(CONFIG)
    assert profiles.get((0, "a"), 0, 0) is None
    assert profiles.due == 0


def test_a_user_without_a_profile_is_due() -> None:
    profiles = Profiles(CONFIG)
    assert profiles.get((0, "a"), 1, 0) is None
    assert profiles.take_due() == [(0, "a")] and profiles.due == 0


def test_an_aged_profile_is_used_until_it_is_replaced() -> None:
    profiles, old, new = Profiles(CONFIG), profile(10), profile(30)
    profiles.put((0, "a"), old)
    assert profiles.get((0, "a"), 12, 0) is old and profiles.due == 0
    assert profiles.get((0, "a"), 30, 0) is old and profiles.due == 1
    profiles.put((0, "a"), new)
    assert profiles.get((0, "a"), 31, 0) is new


def test_the_longest_due_go_first_each_once_in_batches() -> None:
    profiles = Profiles(CONFIG)
    for user in "abacb":
        profiles.get((0, user), 1, 0)
    assert profiles.due == 3
    assert profiles.take_due() == [(0, "a"), (0, "b")]
    assert profiles.take_due() == [(0, "c")]
    assert profiles.take_due() == []


def test_the_least_recently_used_profile_goes_first() -> None:
    profiles = Profiles(CONFIG)  # keeps 3
    for user in "abc":
        profiles.put((0, user), profile())
    profiles.get((0, "a"), 10, 0)
    profiles.put((0, "d"), profile())
    kept = [user for user in "abcd" if profiles.get((0, user), 10, 0) is not None]
    assert kept == ["a", "c", "d"]


def test_a_partition_that_left_takes_its_profiles_with_it() -> None:
    profiles = Profiles(CONFIG)
    for partition in (0, 1):
        profiles.put((partition, "a"), profile())
        profiles.get((partition, "b"), 1, 0)
    profiles.forget([0])
    assert profiles.take_due() == [(1, "b")]
    assert profiles.get((0, "a"), 10, 0) is None
    assert profiles.get((1, "a"), 10, 0) is not None


def test_a_user_who_left_takes_the_profile_along_and_one_under_way_too() -> None:
    profiles = Profiles(CONFIG)
    for partition in (0, 1):
        profiles.put((partition, "a"), profile())
        profiles.get((partition, "b"), 1, 0)
    assert profiles.take_due() == [(0, "b"), (1, "b")]
    profiles.left(0, ["a", "b", "c"])
    profiles.put((0, "b"), profile())
    profiles.put((1, "b"), profile())
    assert [profiles.get((p, user), 10, 0) is not None for p in (0, 1) for user in "ab"] == [False, False, True, True]
    assert len(profiles) == 2 and profiles.take_due() == [(0, "a"), (0, "b")]
    profiles.put((0, "b"), profile())  # who came back
    assert len(profiles) == 3


def test_another_encoder_makes_every_profile_due() -> None:
    of_models, old = ProfilesOf(CONFIG), profile()
    of_models.of("old").put((0, "a"), old)
    assert of_models.of("new").get((0, "a"), 10, 0) is None and of_models.of("new").due == 1
    assert of_models.of("old").get((0, "a"), 10, 0) is old and len(of_models) == 1
    of_models.keep(["new"])
    assert not len(of_models) and of_models.of("old").get((0, "a"), 10, 0) is None


def test_who_left_is_forgotten_by_every_model() -> None:
    of_models = ProfilesOf(CONFIG)
    for model in ("one", "other"):
        for key in ((0, "a"), (0, "b"), (1, "a")):
            of_models.of(model).put(key, profile())
    of_models.left(0, (user for user in "a"))
    assert len(of_models) == 4
    of_models.forget(partition for partition in (1,))
    assert len(of_models) == 2 and of_models.of("one").get((0, "b"), 10, 0) is not None
