"""What was announced is at hand when it has arrived whole; until then what was there stays, and it is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from stream.errors import ModelError
from stream.lists import arrivals
from stream.lists.arrivals import Arrivals
from stream.lists.depot import Depot
from stream.lists.release import Release


class Place(Depot):
    """Where some releases cannot be had for a while: `fail` says how often each."""

    def __init__(self, **fail: int) -> None:
        super().__init__(Path("/nowhere"))
        self.fail = fail
        self.asked: list[str] = []

    def at(self, release: Release) -> Path:
        self.asked.append(release.model)
        if self.fail.get(release.model, 0):
            self.fail[release.model] -= 1
            raise ModelError(f"{release.model} is away", "wait")
        return Path(release.location)


def release(model: str, version: int = 1) -> Release:
    return Release(model, version, "/m", "0" * 64)


def lived(place: Place, act: Callable[[Arrivals], None], until: Callable[[Arrivals], bool]) -> tuple[Arrivals, int]:
    """Arrivals after `act` and until so much is true, and how often others were told of a change."""
    changes = 0

    async def run() -> Arrivals:
        def changed() -> None:
            nonlocal changes
            changes += 1

        one = Arrivals(place, changed)
        running = asyncio.ensure_future(one.run())
        act(one)
        while not until(one):
            await asyncio.sleep(0.001)
        running.cancel()
        one.close()
        return one

    return asyncio.run(asyncio.wait_for(run(), 30)), changes


def test_what_arrives_is_at_hand_and_told_of() -> None:
    found, changes = lived(Place(), lambda one: one.announced("default", release("a")), lambda one: bool(one.at_hand))
    assert found.at_hand["default"].model == "a" and changes == 1 and found.refused == {}


def test_what_cannot_be_had_is_refused_with_the_reason_and_had_when_it_can_be(monkeypatch) -> None:
    monkeypatch.setattr(arrivals, "FIRST_S", 0.002)
    refused: list[dict[str, str]] = []

    def until(one: Arrivals) -> bool:
        refused.append(one.refused)
        return "default" in one.at_hand

    place = Place(a=3)
    found, changes = lived(place, lambda one: one.announced("default", release("a", 7)), until)
    assert {"default": "a@7: a is away -> wait"} in refused and found.refused == {}
    assert place.asked == ["a"] * 4 and changes == 1


def test_it_is_tried_later_and_later_up_to_a_minute() -> None:
    now = 100.0
    one = Arrivals(Place(), lambda: None, lambda: now)
    one.announced("default", release("a"))
    wanted = one._wanted["default"]
    waits = []
    for _ in range(9):
        one._failed(wanted, "away")
        waits.append(wanted.due - now)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    one.close()


def test_what_stood_stays_at_hand_until_another_arrives_or_it_is_taken_back(monkeypatch) -> None:
    def act(one: Arrivals) -> None:
        one.at_hand["default"] = release("old")
        one.announced("default", release("gone", 2))

    found, changes = lived(Place(gone=99), act, lambda one: one.settled.is_set())
    assert found.at_hand["default"].model == "old" and changes == 0 and "gone@2" in found.refused["default"]
    found, changes = lived(Place(), lambda one: (act(one), one.announced("default", None)), lambda one: True)  # type: ignore[arg-type,return-value]
    assert found.at_hand == {} and changes == 1


def test_it_is_settled_when_each_was_tried_whatever_came_of_it() -> None:
    def act(one: Arrivals) -> None:
        assert one.settled.is_set()
        one.announced("default", release("a"))
        one.announced("other", release("gone"))
        assert not one.settled.is_set()

    found, _ = lived(Place(gone=99), act, lambda one: one.settled.is_set())
    assert found.at_hand.keys() == {"default"} and found.refused.keys() == {"other"}
