"""An archive of events, read piece by piece in time order: a file (CSV, Parquet, JSON lines) or a data set by name.

Not a data set to train on, which is in memory as a whole (`datafolder.py`), and not a converter: a file is looked
through once, so that whatever cannot be read is told before anything is done with it, and then read again. Where its
events are in time order no more than a piece is in memory; else all of it is, as columns.

A file has what the events of a folder have, `user,item,action,ts[,value,session]`; `ts` of Parquet may be a datetime.
A line of JSON is an event with its `action` in it, and may have a `context`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import numpy as np
import polars as pl

from model.datafolder import events_file, refuse_other_units
from model.dataset import DatasetError, Events
from model.datasets import NAMES, load
from model.history import ACTION_CODE

PIECE = 10_000
"""Events read at a time, or somewhat more where a file has larger pieces of its own."""
SCHEMA = {
    "user": pl.String,
    "item": pl.String,
    "action": pl.UInt8,
    "ts": pl.Int64,
    "value": pl.Float64,
    "session": pl.String,
    "context": pl.String,
}
"""The columns of a piece: `ts` in ms, `context` as JSON; the last three may be null."""
NEEDED = ("user", "item", "action", "ts")
JSON_LINES = (".jsonl", ".ndjson")
ENDINGS = (".csv", ".csv.gz", ".parquet", *JSON_LINES, *(f"{ending}.gz" for ending in JSON_LINES))


class Survey(NamedTuple):
    """What a first reading found: events, lines left out, first and last time in ms, the codes of all actions, and
    whether times never go back."""

    events: int
    bad: int
    first: int
    last: int
    actions: frozenset[int]
    in_order: bool


class Piece(NamedTuple):
    """Events (`SCHEMA`), and how many lines beside them were left out."""

    frame: pl.DataFrame
    bad: int = 0


@dataclass(frozen=True, eq=False)
class Archive:
    """Events in time order, ties in the file's order.

    `content`: a hash by which the same events are known again; `notes`: what a reader must be told.
    """

    survey: Survey
    content: str
    read: Callable[[], Iterator[pl.DataFrame]]
    notes: Sequence[str] = ()

    def between(self, since: int | None, until: int | None) -> Iterator[pl.DataFrame]:
        """The events with since <= ts < until, in pieces that are not empty."""
        for frame in self.read():
            if since is not None and since > self.survey.first:
                frame = frame.filter(pl.col("ts") >= since)
            if until is not None and until <= self.survey.last:
                frame = frame.filter(pl.col("ts") < until)
            if len(frame):
                yield frame

    def extent(self, since: int | None, until: int | None) -> tuple[int, int, int]:
        """How many events there are in the range, and their first and last time; 0, 0, 0 where there is none."""
        s = self.survey
        if (since is None or since <= s.first) and (until is None or until > s.last):
            return s.events, s.first, s.last
        n = first = last = 0
        for frame in self.between(since, until):
            first = first if n else int(frame["ts"][0])
            n, last = n + len(frame), int(frame["ts"][-1])
        return n, first, last


def find(name_or_path: str, cache: Path, skip_bad: bool = False) -> Archive:
    """An archive by the name of a data set, from a folder's events, or from a file. skip_bad: lines that are no event
    are counted and left out.

    Raises:
        DatasetError: there is none, or it cannot be read; file and line are named.
    """
    if name_or_path in NAMES:
        found = load(name_or_path, cache)
        return of_events(found.events, (found.licence, *found.notes))
    path = Path(name_or_path)
    if path.is_dir():
        return of_file(events_file(path), skip_bad)
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file or folder, and no data set of that name; known names: {', '.join(NAMES)}"
        )
    if not path.name.endswith(ENDINGS):
        raise DatasetError(f"{path}: is of no kind that is known; name it by what it is: {', '.join(ENDINGS)}")
    return of_file(path, skip_bad)


def of_events(events: Events, notes: Sequence[str] = ()) -> Archive:
    """Events that are in memory, as an archive."""
    n = len(events)
    value = events.value.astype(str).astype(float)  # 0.99, not the number nearest to it in 32 bits
    frame = pl.DataFrame(
        {
            "user": pl.Series(events.user.tolist(), dtype=pl.String),
            "item": pl.Series(events.item.tolist(), dtype=pl.String),
            "action": events.action,
            "ts": events.ts,
            "value": pl.Series(value).fill_nan(None),
            "session": pl.Series([None] * n, dtype=pl.String),
            "context": pl.Series([None] * n, dtype=pl.String),
        },
        schema=SCHEMA,
    )
    content = hashlib.sha256(events.ts.tobytes() + events.action.tobytes())
    content.update("\n".join([*map(str, events.user), *map(str, events.item)]).encode())
    survey = _surveyed([Piece(frame)])
    return Archive(survey, content.hexdigest(), lambda: frame.iter_slices(PIECE), notes)


def of_file(path: Path, skip_bad: bool = False) -> Archive:
    """A file as an archive, after looking through it.

    Raises:
        DatasetError: it has no event, or a line is none and is not to be skipped.
    """
    survey = _surveyed(_pieces(path, skip_bad))
    if not survey.events:
        raise DatasetError(f"{path}: has no events" + (f": all {survey.bad} lines are bad" if survey.bad else ""))
    refuse_other_units(np.array([survey.first, survey.last]), path)
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    if survey.in_order:
        return Archive(survey, content, lambda: (piece.frame for piece in _pieces(path, skip_bad)))
    whole = pl.concat([piece.frame for piece in _pieces(path, skip_bad)]).sort("ts", maintain_order=True)
    note = f"{path} is not in time order: all of its {survey.events} events are sorted in memory"
    return Archive(survey, content, lambda: whole.iter_slices(PIECE), (note,))


def _surveyed(pieces: Iterator[Piece] | list[Piece]) -> Survey:
    n = bad = first = last = 0
    newest, actions, in_order = -1, set(), True
    for frame, left_out in pieces:
        bad += left_out
        if not len(frame):
            continue
        ts = frame["ts"].to_numpy()
        in_order = in_order and ts[0] >= newest and not (ts[1:] < ts[:-1]).any()
        newest = int(ts[-1])
        first = min(first, int(ts.min())) if n else int(ts.min())
        last, n = max(last, int(ts.max())), n + len(frame)
        actions.update(frame["action"].unique().to_list())
    return Survey(n, bad, first, last, frozenset(actions), bool(in_order))


# Files


def _pieces(path: Path, skip_bad: bool) -> Iterator[Piece]:
    """The events of a file in its own order."""
    if path.name.removesuffix(".gz").endswith(JSON_LINES):
        yield from _json_lines(path, skip_bad)
        return
    row = 0
    try:
        for frame in _frames(path, skip_bad):
            yield _checked(frame, path, row, skip_bad)
            row += len(frame)
    except pl.exceptions.NoDataError as e:
        raise DatasetError(f"{path}: is empty and cannot be read; its first line must name the columns") from e
    except (pl.exceptions.PolarsError, OSError) as e:
        _refuse_long_line(path)
        raise DatasetError(
            f"{path}: cannot be read ({e}); write it again as {_WHOLE[path.suffix == '.parquet']}"
        ) from e


_WHOLE = {False: "UTF-8 CSV with a header", True: "Parquet"}


def _frames(path: Path, skip_bad: bool) -> Iterator[pl.DataFrame]:
    if path.suffix == ".parquet":
        frame = pl.scan_parquet(path)
    else:
        frame = pl.scan_csv(path, infer_schema=False, truncate_ragged_lines=skip_bad)
    _require(frame.collect_schema().names(), path)
    return frame.collect_batches(chunk_size=PIECE, maintain_order=True)


def _require(columns: Sequence[str], path: Path) -> None:
    if missing := [name for name in NEEDED if name not in columns]:
        raise DatasetError(
            f"{path}: lacks the column(s) {', '.join(missing)}; its first line names {', '.join(columns)}. "
            "Name columns so, with commas between them; where all events are of one kind, write that action in each row"
        )


def _checked(raw: pl.DataFrame, path: Path, row: int, skip_bad: bool) -> Piece:
    """Rows as events; `row` is the number of the first one in its file."""
    frame = raw.select(_column(raw, name) for name in SCHEMA)
    good = pl.all_horizontal(
        pl.col("user") != "", pl.col("item") != "", pl.col("action").is_not_null(), pl.col("ts") >= 0
    ).fill_null(False)
    if "value" in raw.columns:
        given = raw.select(pl.col("value").is_not_null()).to_series()
        good = good & (pl.col("value").is_not_null() | ~given)
    kept = frame.select(good).to_series()
    if kept.all():
        return Piece(frame)
    said = raw.select(pl.any_horizontal(pl.all().is_not_null())).to_series()  # a blank line is no line
    bad = (said & ~kept).arg_true()
    if len(bad) and not skip_bad:
        at = int(bad[0])
        _refuse(path, _line(path, row + at), _reason(raw.row(at, named=True)))
    return Piece(frame.filter(kept), len(bad))


def _column(raw: pl.DataFrame, name: str) -> pl.Expr:
    if name not in raw.columns:
        return pl.lit(None, SCHEMA[name]).alias(name)
    column, kind = pl.col(name), raw[name].dtype
    if name == "action":
        return column.cast(pl.String).replace_strict(dict(ACTION_CODE), default=None, return_dtype=pl.UInt8)
    if name == "ts" and isinstance(kind, pl.Datetime):
        return column.dt.epoch("ms")
    if name == "ts" and kind.is_float():
        return pl.when(column == column.round()).then(column).otherwise(None).cast(pl.Int64)
    if name == "value":
        column = column.cast(pl.Float64, strict=False)
        return pl.when(column.is_finite()).then(column).otherwise(None).alias(name)
    return column.cast(SCHEMA[name], strict=False)


def _reason(row: dict[str, Any]) -> str:
    """Why a row is no event, from what stands in it."""
    for name in NEEDED:
        if row[name] in (None, ""):
            return f"no {name}"
    if str(row["action"]) not in ACTION_CODE:
        return f"unknown action {row['action']!r}; use one of {', '.join(ACTION_CODE)}"
    try:
        if int(str(row["ts"])) >= 0:
            return f"value {row.get('value')!r} is no number; write it as 12.50"
    except ValueError:
        pass
    return f"ts {row['ts']!r} is not in whole milliseconds since 1970; write 2026-11-25 12:00 UTC as 1795608000000"


def _refuse(path: Path, line: int, reason: str) -> NoReturn:
    raise DatasetError(f"{path}:{line}: {reason} (such lines can be counted and left out: --skip-bad)")


def _line(path: Path, row: int) -> int:
    """The line of a row: a field may go over several."""
    if path.suffix == ".parquet":
        return row + 1
    with _text(path) as file:
        reader = csv.reader(file)
        for _ in islice(reader, row + 2):
            pass
        return reader.line_num


def _refuse_long_line(path: Path) -> None:
    """Names the line of more fields than the first, which polars does not."""
    if path.suffix == ".parquet":
        return
    try:
        with _text(path) as file:
            reader = csv.reader(file)
            width = len(next(reader))
            for fields in reader:
                if len(fields) > width:
                    _refuse(path, reader.line_num, f"{len(fields)} fields, and the first line names {width}")
    except DatasetError:
        raise
    except (OSError, EOFError, ValueError, csv.Error, StopIteration):
        return


def _text(path: Path) -> Any:
    return (gzip.open if path.suffix == ".gz" else open)(path, "rt", newline="", encoding="utf-8-sig")


class _Line(msgspec.Struct, gc=False):
    """A line of JSON."""

    user: str | int
    item: str | int
    action: str
    ts: int
    value: float | None = None
    session: str | int | None = None
    context: msgspec.Raw = msgspec.Raw(b"null")


def _json_lines(path: Path, skip_bad: bool) -> Iterator[Piece]:
    decode = msgspec.json.Decoder(_Line).decode
    number = 0
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            while lines := list(islice(file, PIECE)):
                rows: list[tuple] = []
                bad = 0
                for number, line in enumerate(lines, number + 1):  # noqa: B020, the next piece counts on
                    if not line.strip():
                        continue
                    try:
                        rows.append(_row(decode(line)))
                    except (msgspec.MsgspecError, ValueError) as error:
                        if not skip_bad:
                            _refuse(path, number, str(error))
                        bad += 1
                yield Piece(pl.DataFrame(rows, SCHEMA, orient="row"), bad)
    except (OSError, EOFError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}); copy it again") from e


def _row(line: _Line) -> tuple:
    """A line in the order of `SCHEMA`."""
    user, item = str(line.user), str(line.item)
    if not user or not item:
        raise ValueError("no user" if not user else "no item")
    if line.action not in ACTION_CODE:
        raise ValueError(f"unknown action {line.action!r}; use one of {', '.join(ACTION_CODE)}")
    if line.ts < 0:
        raise ValueError(f"ts {line.ts} is before 1970")
    session = None if line.session is None else str(line.session)
    context = bytes(line.context).decode()
    if context != "null" and not context.startswith("{"):
        raise ValueError("context is no object")
    return user, item, ACTION_CODE[line.action], line.ts, line.value, session, None if context == "null" else context
