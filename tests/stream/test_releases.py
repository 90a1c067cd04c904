"""What stood before, and what is meant by a name."""

from __future__ import annotations

import pytest

from stream.errors import ModelError
from stream.lists.release import Release, Releases


def version(number: int, follows: int = 0, alias: str = "default") -> Release:
    return Release("ours", number, f"/m/{number}", "0" * 64, alias=alias, follows=follows)


STOOD = [version(4, 1), version(3, 2), version(2, 1), version(1)]


def test_going_back_twice_goes_back_twice_and_never_to_what_was_gone_back_from() -> None:
    def before(standing: Release) -> int:
        return Releases({"default": standing}, STOOD).before("default").version

    assert before(version(3, 2)) == 2 and before(version(2, 1)) == 1
    assert before(version(4, 1)) == 1  # announced after 3 and 2 were gone back from


@pytest.mark.parametrize("standing", [{}, {"default": version(1)}, {"other": version(3, 2)}])
def test_where_nothing_stood_before_it_is_asked_which(standing: dict[str, Release]) -> None:
    with pytest.raises(ModelError, match="--to N"):
        Releases(standing, STOOD).before("default")


def test_a_version_is_meant_by_its_number_or_its_name() -> None:
    releases = Releases({}, STOOD)
    assert releases.find("3") is releases.find("ours@3") is STOOD[1]
    with pytest.raises(ModelError, match="eddyline release list"):
        releases.find("ours")
