"""Rows of topics that the brokers have forgotten: which there are, which are missing, and each read once, in order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from faust.types import TP

from model.dataset import DatasetError
from stream import past
from stream.past import Past, Unread, survey

ACTIONS = {"clicks": "click", "views": "view"}
CLICKS = TP("clicks", 0)


def write(path: Path, offsets: Iterable[int], topic: str = "clicks", partition: int = 0, **columns: Any) -> None:
    """A row at each offset, of user and item of that number, at ten times its offset."""
    at = list(offsets)
    frame = pl.DataFrame(
        {
            "user": [f"u{o}" for o in at],
            "item": [f"i{o}" for o in at],
            "action": [ACTIONS[topic]] * len(at),
            "ts": [10 * o + 10 for o in at],
            "topic": [topic] * len(at),
            "partition": [partition] * len(at),
            "offset": at,
        }
    )
    for name, value in columns.items():
        frame = frame.drop(name) if value is None else frame.with_columns(pl.lit(value).alias(name))
    frame.write_parquet(path)


def read(found: Past, tp: TP, committed: int, join: int) -> list[int]:
    """The offsets that are handed on, chunk by chunk."""
    unread = Unread(found, {tp: join})
    assert unread.begin({tp: committed}) == ({tp: join} if committed < join else {})
    out: list[int] = []
    while unread.of([tp]):
        chunk = unread.chunk(tp)
        if chunk is not None:
            assert chunk.users == [f"u{o}" for o in chunk.offsets] and chunk.items == [f"i{o}" for o in chunk.offsets]
            np.testing.assert_array_equal(chunk.times, 10 * chunk.offsets + 10)
            out += chunk.offsets.tolist()
        unread.took(tp, chunk)
    return out


def test_rows_of_several_files_are_read_in_the_order_of_offsets_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "CHUNK", 3)
    write(tmp_path / "c.parquet", [8, 9, 10])
    write(tmp_path / "a.parquet", [0, 2, 4, 6])
    write(tmp_path / "b.parquet", [1, 2, 3, 5])  # lies in and out of the one before
    write(tmp_path / "d.parquet", [0, 1], topic="views")
    write(tmp_path / "e.parquet", [0, 1], partition=1)
    found = survey(tmp_path, ACTIONS)
    assert read(found, CLICKS, 0, 100) == [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]
    assert read(found, CLICKS, 3, 10) == [3, 4, 5, 6, 8, 9]
    assert read(found, CLICKS, 10, 10) == []
    assert read(found, TP("clicks", 7), 0, 5) == []


def test_what_lies_in_no_file_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(3, 6))
    write(tmp_path / "b.parquet", range(8, 10))
    found = survey(tmp_path, ACTIONS)
    assert found.missing(CLICKS, 3, 10) == [(6, 7)]
    assert found.missing(CLICKS, 0, 12) == [(0, 2), (6, 7), (10, 11)]
    assert found.missing(CLICKS, 3, 5) == []
    assert found.missing(CLICKS, 9, 9) == []
    assert found.missing(TP("views", 0), 2, 4) == [(2, 3)]
    assert (found.first(CLICKS, 99), found.first(TP("views", 0), 99)) == (3, 99)
    assert (found.end(CLICKS), found.end(CLICKS, 9), found.end(CLICKS, 8)) == (10, 9, 6)
    assert (found.at(CLICKS, 50), found.at(CLICKS, 61), found.at(CLICKS, 1000)) == (4, 8, None)


def test_rows_are_taken_again_where_partitions_come_back(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", range(10))
    unread = Unread(survey(tmp_path, ACTIONS), {CLICKS: 10})
    unread.begin({CLICKS: 0})
    chunk = unread.chunk(CLICKS)
    assert chunk is not None and len(chunk.offsets) == 10
    unread.begin({CLICKS: 4})  # committed up to there, and assigned anew before it was handed on
    chunk = unread.chunk(CLICKS)
    assert chunk is not None and chunk.offsets.tolist() == list(range(4, 10))


def test_times_may_be_dates(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [0], ts=datetime(2026, 11, 1, tzinfo=UTC))
    rows = survey(tmp_path, ACTIONS).rows(CLICKS, 0, 1)
    assert rows["ts"].to_list() == [1_793_491_200_000]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"offset": None}, "lacks the column.s. offset"),
        ({"user": ""}, "clicks/0 at offset 4 is no event"),
        ({"action": "buy"}, "its action is not click"),
        ({"ts": 0}, "before 1970"),
        ({"item": pl.Series([None], dtype=pl.String)[0]}, "lacks the column.s. item|is no event"),
    ],
)
def test_what_is_no_event_is_refused_with_its_place(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    write(tmp_path / "a.parquet", [4, 5], **columns)
    with pytest.raises(DatasetError, match=words) as raised:
        survey(tmp_path, ACTIONS)
    assert "a.parquet" in str(raised.value)


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no Parquet files"):
        survey(tmp_path, ACTIONS)
