"""Times as someone types them."""

from __future__ import annotations

import pytest
import typer

from stream.console.common import when

NOW = 1_795_000_000_000


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-01", 1_793_491_200_000),
        ("2026-11-01T00:00", 1_793_491_200_000),
        ("2026-11-01T00:00Z", 1_793_491_200_000),
        ("2026-11-01T02:00+02:00", 1_793_491_200_000),
        ("2026-11-01T00:00:00.001", 1_793_491_200_001),
        ("1793491200000", 1_793_491_200_000),
        ("0", 0),
        ("7d", NOW - 7 * 86_400_000),
        ("36h", NOW - 36 * 3_600_000),
        ("90m", NOW - 90 * 60_000),
        ("1.5s", NOW - 1500),
        (" 7d ", NOW - 7 * 86_400_000),
    ],
)
def test_a_time_is_a_date_milliseconds_or_so_long_ago(text: str, ms: int) -> None:
    assert when(text, NOW) == ms


def test_no_time_is_none() -> None:
    assert when(None, NOW) is None


@pytest.mark.parametrize("text", ["20261101", "1793491200", "yesterday", "-7d", "7w", "", "d", "1e3"])
def test_what_may_be_something_else_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="2026-11-01") as raised:
        when(text, NOW, "--until")
    assert raised.value.param_hint == "--until"
