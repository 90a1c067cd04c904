"""Archives of events: the same events from every kind of file, in time order, and each bad line by its number."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from model import archive
from model.archive import Archive, find, of_events, of_file
from model.dataset import DatasetError, Events

HEADER = "user,item,action,ts,value,session\n"
LINES = ["007,i1,view,1000,,s1", "u2,010,click,2000,0.99,", "u1,i3,purchase,2000,1,s2", '"u,4",i1,buy,3000,12.5,']
ROWS = [
    ("007", "i1", 1, 1000, None, "s1", None),
    ("u2", "010", 2, 2000, 0.99, None, None),
    ("u1", "i3", 3, 2000, 1.0, "s2", None),
    ("u,4", "i1", 3, 3000, 12.5, None, None),
]
KEPT = ("user", "item", "action", "ts", "value", "session")


def rows(found: Archive, since: int | None = None, until: int | None = None) -> list[tuple]:
    return [row for frame in found.between(since, until) for row in frame.rows()]


def write(folder: Path, name: str, lines: list[str] = LINES) -> Path:
    """The events as a file of the kind that its name says."""
    path = folder / name
    text = HEADER + "".join(f"{line}\n" for line in lines)
    if name.endswith(".csv"):
        path.write_text(text)
    elif name.endswith(".csv.gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".parquet"):
        (folder / "x.csv").write_text(text)
        types = {"user": pl.String, "item": pl.String, "session": pl.String}
        pl.read_csv(folder / "x.csv", schema_overrides=types).write_parquet(path)
    else:
        named = pl.read_csv(text.encode(), infer_schema=False).rows(named=True)
        events = [
            {
                **{k: v for k, v in row.items() if v is not None},
                "ts": int(row["ts"]),
                **({"value": float(row["value"])} if row["value"] else {}),
            }
            for row in named
        ]
        packed = "".join(json.dumps(event) + "\n" for event in events).encode()
        path.write_bytes(gzip.compress(packed) if name.endswith(".gz") else packed)
    return path


@pytest.mark.parametrize("name", ["e.csv", "e.csv.gz", "e.parquet", "e.jsonl", "e.ndjson.gz"])
def test_every_kind_of_file_says_the_same(tmp_path: Path, name: str) -> None:
    found = of_file(write(tmp_path, name))
    assert rows(found) == ROWS
    assert found.survey == (4, 0, 1000, 3000, {1, 2, 3}, True) and found.notes == ()


@pytest.mark.parametrize("name", ["e.csv", "e.parquet", "e.jsonl"])
def test_what_is_not_in_time_order_is_sorted_ties_in_the_order_of_the_file_and_that_is_said(
    tmp_path: Path, name: str
) -> None:
    found = of_file(write(tmp_path, name, [LINES[3], LINES[1], LINES[2], LINES[0]]))
    assert rows(found) == ROWS
    assert not found.survey.in_order and "not in time order" in found.notes[0]


def test_order_is_looked_for_across_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "PIECE", 2)
    found = of_file(write(tmp_path, "e.jsonl", [LINES[1], LINES[3], LINES[0], LINES[2]]))
    assert rows(found) == ROWS and not found.survey.in_order
    assert [len(frame) for frame in of_file(write(tmp_path, "f.csv")).read()] == [2, 2]


def test_a_range_begins_at_its_first_time_and_ends_before_its_last(tmp_path: Path) -> None:
    found = of_file(write(tmp_path, "e.csv"))
    assert rows(found, 2000, 3000) == ROWS[1:3] and found.extent(2000, 3000) == (2, 2000, 2000)
    assert rows(found, None, 2000) == ROWS[:1] and found.extent(None, 2000) == (1, 1000, 1000)
    assert rows(found, 3000) == ROWS[3:] and found.extent(3000, None) == (1, 3000, 3000)
    assert rows(found, 3001) == [] and found.extent(3001, None) == (0, 0, 0)
    assert found.extent(None, None) == found.extent(1000, 3001) == (4, 1000, 3000)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (",i1,view,1000,,", "no user"),
        ("u1,,view,1000,,", "no item"),
        ("u1,i1,stare,1000,,", "unknown action 'stare'"),
        ("u1,i1,view,noon,,", "'noon' is not in whole milliseconds"),
        ("u1,i1,view,1.5,,", "'1.5' is not in whole milliseconds"),
        ("u1,i1,view,-1,,", "'-1' is not in whole milliseconds"),
        ("u1,i1,view,2026-11-25,,", "write 2026-11-25 12:00 UTC as 1795608000000"),
        ("u1,i1,view,1000,dear,", "'dear' is no number"),
        ("u1,i1,view", "no ts"),
        ("u1,i1,view,1000,,s,more", "7 fields, and the first line names 6"),
    ],
)
def test_a_bad_line_is_named_with_the_reason_and_may_be_left_out(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path, "e.csv", [*LINES[:2], line, *LINES[2:]])
    with pytest.raises(DatasetError, match=rf"e\.csv:4: .*{reason}"):
        of_file(path)
    if "more" not in line:  # what is too much in a line is cut off it
        found = of_file(path, skip_bad=True)
        assert rows(found) == ROWS and found.survey.bad == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"user": "u"', "truncated"),
        ('{"user": "u", "item": "i", "action": "view"}', "missing required field `ts`"),
        ('{"user": "u", "item": "i", "action": "view", "ts": "noon"}', r"\$\.ts"),
        ('{"user": "", "item": "i", "action": "view", "ts": 5}', "no user"),
        ('{"user": "u", "item": "i", "action": "stare", "ts": 5}', "unknown action 'stare'"),
        ('{"user": "u", "item": "i", "action": "view", "ts": -5}', "before 1970"),
    ],
)
def test_a_bad_line_of_json_is_named_too(tmp_path: Path, line: str, reason: str) -> None:
    path = write(tmp_path, "e.jsonl")
    good = path.read_text().splitlines()
    path.write_text("\n".join([*good[:2], "", line, *good[2:]]) + "\n")
    with pytest.raises(DatasetError, match=rf"e\.jsonl:4: .*{reason}"):
        of_file(path)
    found = of_file(path, skip_bad=True)
    assert rows(found) == ROWS and found.survey.bad == 1


def test_a_field_of_several_lines_does_not_move_the_numbers(tmp_path: Path) -> None:
    path = write(tmp_path, "e.csv", ['"a\nb",i,view,1,,', "", "u,i,stare,2,,"])
    with pytest.raises(DatasetError, match=r"e\.csv:5: unknown action"):
        of_file(path)


def test_json_keeps_its_context_and_parquet_its_datetimes(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"user": 7, "item": 8, "action": "view", "ts": 5, "context": {"page":"a"}}\n')
    assert rows(of_file(tmp_path / "e.jsonl")) == [("7", "8", 1, 5, None, None, '{"page":"a"}')]
    at = datetime(2026, 11, 25, 12, tzinfo=UTC)
    pl.DataFrame({"user": [7], "item": [8], "action": ["view"], "ts": [at]}).write_parquet(tmp_path / "e.parquet")
    assert rows(of_file(tmp_path / "e.parquet")) == [("7", "8", 1, 1_795_608_000_000, None, None, None)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.csv", b"", "is empty"),
        ("e.csv", HEADER.encode(), "has no events"),
        ("e.csv", b"user,item,ts\nu,i,1\n", "lacks the column.* action"),
        ("e.csv", b"user;item;action;ts\nu;i;view;1\n", "lacks the column"),
        ("e.csv", b"user,item,action,ts\nu\xff,i,view,1\n", "cannot be read.*UTF-8"),
        ("e.csv", b"user,item,action,ts\nu,i,view,874965758\n", "looks like seconds"),
        ("e.csv.gz", gzip.compress(HEADER.encode() + b"u,i,view,1,,\n", mtime=0)[:-9], "cannot be read"),
        ("e.jsonl", b"", "has no events"),
        ("e.jsonl.gz", b"no", "cannot be read"),
        ("e.parquet", b"PAR1", "cannot be read.*Parquet"),
        ("e.txt", b"x", "is of no kind"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, text: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(DatasetError, match=f"(?s){name}: .*{message}"):
        find(str(tmp_path / name), tmp_path)


def test_an_archive_is_found_by_name_folder_or_file(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    write(folder, "events.csv")
    assert rows(find(str(folder), tmp_path)) == rows(find(str(folder / "events.csv"), tmp_path)) == ROWS
    with pytest.raises(DatasetError, match="movielens-100k"):
        find(str(tmp_path / "movielens-1g"), tmp_path)


def test_content_is_known_by_what_is_in_it_not_by_where_it_lies(tmp_path: Path) -> None:
    one, two = write(tmp_path, "one.csv"), write(tmp_path, "two.csv")
    assert of_file(one).content == of_file(two).content
    two.write_text(two.read_text().replace("0.99", "0.98"))
    assert of_file(one).content != of_file(two).content


def test_events_in_memory_are_an_archive_and_keep_values_as_they_were_written() -> None:
    names, n = np.array(["a", "b"], object), 2
    events = Events(names, names, np.array([1, 3], np.uint8), np.array([5, 6]), np.array([0.99, np.nan], np.float32))
    found = of_events(events, ("a licence",))
    assert rows(found) == [("a", "a", 1, 5, 0.99, None, None), ("b", "b", 3, 6, None, None, None)]
    assert found.survey == (n, 0, 5, 6, {1, 3}, True) and found.notes == ("a licence",)
