"""The range that a backfill reads, how it is written down, and how far it is."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from faust.types import TP
from rich.console import Console

from stream.backfill import PACE_S, Pace, Part
from stream.console.history import _line, _table
from stream.errors import ConfigError
from stream.ingest import Stop
from stream.ranges import Range, offsets_file
from stream.settings import load

A, B = TP("click", 0), TP("click", 1)
SPAN = Range({A: 5, B: 0}, {A: Stop(9, 12), B: Stop(7, 7)}, "history")


def test_a_range_is_read_as_it_was_written() -> None:
    assert Range.unpack(SPAN.pack()) == SPAN
    with pytest.raises(ValueError, match="version 9"):
        Range.unpack(b"\x93\x09\xc0\x90")


def test_a_range_is_done_when_every_partition_is_read_up_to_its_stop() -> None:
    assert not SPAN.done({})
    assert not SPAN.done({A: 12, B: 6})
    assert not SPAN.done({A: 11, B: 7})
    assert SPAN.done({A: 12, B: 7})
    assert SPAN.done({A: 40, B: 7, TP("buy", 0): 0})


def test_a_pace_is_of_the_last_seconds_and_there_is_none_before_anything_moved() -> None:
    pace = Pace()
    assert pace.moved(0.0, 0, 0) is None
    assert pace.moved(1.0, 0, 0) is None
    assert pace.moved(2.0, 0, 100) == 50.0
    assert pace.moved(2.0 + PACE_S, 0, 2100) == 200.0  # since the second of 2
    assert pace.moved(2.0, 1, 10) is None


def test_what_is_left_follows_from_the_pace() -> None:
    assert Part(0, 50, 100, 25.0, True).eta_s == 2.0
    assert Part(0, 50, 100, None, True).eta_s is None
    assert Part(0, 100, 100, None, True).eta_s == 0.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not json", "has no offsets"),
        ("[1]", "has no offsets"),
        ('{"click": 3}', "has no offsets"),
        ('{"click": {"a": 3}}', "has no offsets"),
        ('{"clack": {"0": 3}}', "names clack, of which no events are read"),
    ],
)
def test_a_file_that_has_no_offsets_of_inputs_is_refused_with_what_to_write(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(ConfigError, match=words) as raised:
        offsets_file(tmp_path / "f", load(environ={}))
    assert '{"click": {"0": 120' in raised.value.remedy


def test_offsets_are_read_by_topic_and_partition(tmp_path: Path) -> None:
    (tmp_path / "f").write_text('{"click": {"0": 3, "1": 4}}')
    assert offsets_file(tmp_path / "f", load(environ={})) == {A: 3, B: 4}


def test_progress_is_told_by_partition_and_the_slowest_says_when_it_is_over() -> None:
    parts = [Part(0, 100, 100, None, True), Part(1, 50, 100, 25.0, True), Part(2, 20, 100, 8.0, False)]
    line = _line("v2", parts)
    assert line.startswith("backfill v2: 170 of 300 offsets, 10 s left; by partition 0: 100%, 1: 50% (2 s left), ")
    assert line.endswith(", 2: 20% (10 s left)")
    console = Console(width=100, record=True, file=StringIO())
    console.print(_table("v2", parts))
    told = console.export_text()
    assert "2 (another worker)" in told and "10 s left" in told
    parts.append(Part(3, 0, 100, None, True))
    assert "time left not known yet; by partition" in _line("v2", parts)
