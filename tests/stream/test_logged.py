"""`eddyline evaluate --protocol variants` on folders of logs, through the command itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from stream.console.cli import app
from stream.errors import LogError
from stream.logged import columns, of_files
from stream.messages import Interest, Recommendation, RecommendedItem, Source, encode

SOURCE = Source("v1", "click", 0, 0, 0, {"click": 0})
INTEREST = Interest(1.0, 0.0, 1, None)


def said(n: int, user: str, variant: str, *items: str) -> bytes:
    """A list, as a worker writes it."""
    listed = [RecommendedItem(item, rank, 0.1, 1.0, []) for rank, item in enumerate(items, 1)]
    return encode(Recommendation(f"list{n}", user, n, listed, INTEREST, "m@1", 1, variant, SOURCE))


def came(n: int | None, outcome: str, **more: Any) -> bytes:
    named = {"recommendation": f"list{n}"} if n is not None else {}
    return json.dumps({"user": "u", "item": "i1", "outcome": outcome, "ts": 5, **named, **more}).encode()


LISTS = [said(0, "u0", "a", "i1", "i2"), said(1, "u1", "b", "i2", "i3"), said(2, "u2", "b", "i2")]
SHADOWS = [said(0, "u0", "s", "i2", "i1"), said(2, "u2", "s", "i9"), said(7, "u9", "s", "i9")]
FEEDBACK = [came(0, "shown"), came(1, "shown"), came(1, "clicked"), came(1, "bought", value=7.5), came(None, "clicked")]


def jsonl(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = b"\n".join(records) + b"\n"
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def parquet(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([json.loads(record) for record in records], infer_schema_length=None).write_parquet(path)


def lines(folder: Path) -> None:
    jsonl(folder / "recommendations.jsonl", LISTS)
    jsonl(folder / "shadow.ndjson.gz", SHADOWS)
    jsonl(folder / "feedback-2026-11.json", FEEDBACK)
    (folder / "notes.txt").write_text("others' files are left alone")


def tables(folder: Path) -> None:
    parquet(folder / "recommendations" / "part=0" / "0.parquet", LISTS[:2])
    parquet(folder / "recommendations" / "part=1" / "0.parquet", LISTS[2:])
    parquet(folder / "shadow.parquet", SHADOWS)
    parquet(folder / "feedback" / "0.parquet", FEEDBACK)


def evaluated(folder: Path, *more: str) -> str:
    done = CliRunner().invoke(app, ["evaluate", str(folder), "--protocol", "variants", *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("write", [lines, tables])
def test_logs_are_read_as_they_are_in_the_topics(tmp_path: Path, write: Any) -> None:
    write(tmp_path)
    told = json.loads(evaluated(tmp_path, "--json"))
    assert (told["protocol"], told["unnamed"], told["unknown"], told["unreadable"]) == ("variants", 1, 0, 0)
    b = told["variants"]["b"]
    assert (b["users"], b["lists"], b["shown"], b["clicked"], b["bought"]) == (2, 2, 1, 1, 1)
    assert b["value per user"][0] == pytest.approx(3.75) and b["over"]["ctr"] == [1, 1, 1]
    assert [(s["shadow"], s["emitted"], s["overlap"][0]) for s in told["shadows"]] == [("s", "a", 1.0), ("s", "b", 0.0)]


def test_a_table_for_people_says_what_is_counted_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines(tmp_path)
    jsonl(tmp_path / "feedback-2026-12.jsonl", [came(8, "clicked"), b"{", came(1, "licked"), FEEDBACK[0]])
    shown = evaluated(tmp_path)
    for words in (
        "above a",
        "shadow lists beside what was emitted",
        "1 outcomes name no list",
        "1 outcomes name a list that is not in the log",
        "1 records said again",
        "2 records could not be read",
        "set [variants] as workers have them",
    ):
        assert words in shown
    (tmp_path / "eddyline.toml").write_text("[variants.a]\n[variants.b]\nshare = 0.5\n")
    monkeypatch.setenv("EDDYLINE_CONFIG", str(tmp_path / "eddyline.toml"))
    assert "users are split as the shares say (chi-squared, p = 0.56)" in evaluated(tmp_path)  # 1 and 2 of 3
    jsonl(tmp_path / "recommendations.jsonl", [said(n, f"u{n}", "b", "i1") for n in range(40)])
    assert "sample ratio mismatch" in evaluated(tmp_path)


def test_of_a_list_that_was_made_twice_the_last_counts(tmp_path: Path) -> None:
    jsonl(tmp_path / "recommendations.jsonl", [*LISTS, said(0, "u0", "b", "i5")])
    logged, repeated = columns(of_files(tmp_path))
    assert repeated == 1 and logged.variants == ("b",) and len(logged) == 3


def test_a_folder_without_lists_says_what_should_be_there(tmp_path: Path) -> None:
    for name in ("nowhere", "."):
        with pytest.raises(
            LogError, match=r"(?s)has no lists\n.*put the records of the topic there as recommendations"
        ):
            of_files(tmp_path / name)
    jsonl(tmp_path / "recommendations.jsonl", [b"{}", b"[]"])
    with pytest.raises(LogError, match="2 records of recommendations cannot be read"):
        of_files(tmp_path)
    (tmp_path / "recommendations.parquet").write_bytes(b"no parquet")
    with pytest.raises(LogError, match=r"(?s)recommendations.parquet cannot be read.*write it again"):
        of_files(tmp_path)
