"""What was in the input topics before what the brokers still have: Parquet files whose rows say where they were.

A row is an event with its topic, partition and offset: `user,item,action,ts[,value],topic,partition,offset` (`ts` in
milliseconds, or a datetime). The rows of a partition are read in the order of their offsets, each once however files
overlap, a file or those that overlap at a time. A worker's transport asks for them before it fetches
(`stream.kafka.transport`); what becomes of them is what becomes of any event.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl
from faust.types import TP

from model.dataset import DatasetError
from model.history import ACTION_CODE
from stream.events import Chunk

CHUNK = 20_000
"""Rows that are handed on together: about as many as a fetch brings."""
NEEDED = ("user", "item", "action", "ts", "topic", "partition", "offset")


class Piece(NamedTuple):
    """Offsets `first` to `last` of a partition, and the files in which they are."""

    first: int
    last: int
    files: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Past:
    """The rows of a folder, by partition. No more is kept of them than where they are."""

    pieces: Mapping[TP, tuple[Piece, ...]]

    def first(self, tp: TP, default: int) -> int:
        """The earliest offset there is of a partition."""
        return self.pieces[tp][0].first if tp in self.pieces else default

    def end(self, tp: TP, before: int | None = None) -> int | None:
        """The offset after the last row, of those below `before`; None where there is none."""
        below = [p for p in self.pieces.get(tp, ()) if before is None or p.first < before]
        if not below:
            return None
        if before is None or below[-1].last < before:
            return below[-1].last + 1
        found = _of(tp, below[-1].files).filter(pl.col("offset") < before).select(pl.col("offset").max()).collect()
        return int(found.item()) + 1

    def at(self, tp: TP, ms: int) -> int | None:
        """The earliest offset of a row of that time or later."""
        files = {file for piece in self.pieces.get(tp, ()) for file in piece.files}
        if not files:
            return None
        found = _of(tp, sorted(files)).filter(pl.col("ts") >= ms).select(pl.col("offset").min()).collect().item()
        return None if found is None else int(found)

    def missing(self, tp: TP, begin: int, end: int) -> list[tuple[int, int]]:
        """The stretches from `begin` up to `end` (without it) that lie in no piece: first and last offset of each."""
        out: list[tuple[int, int]] = []
        for piece in self.pieces.get(tp, ()):
            if begin < min(piece.first, end):
                out.append((begin, min(piece.first, end) - 1))
            begin = max(begin, piece.last + 1)
        return [*out, (begin, end - 1)] if begin < end else out

    def rows(self, tp: TP, first: int, before: int) -> pl.DataFrame:
        """The rows of the first piece that has any with first <= offset < before, in order; empty where none has."""
        for piece in self.pieces.get(tp, ()):
            if piece.last < first or piece.first >= before:
                continue
            found = _of(tp, piece.files).filter(pl.col("offset").is_between(first, before, closed="left")).collect()
            if len(found):
                return found.unique("offset", keep="first", maintain_order=True).sort("offset")
        return pl.DataFrame()


@dataclass(slots=True)
class Unread:
    """What is still to be read of the past, by partitions that are ours; their brokers' part begins at `joins`."""

    past: Past
    joins: Mapping[TP, int]
    _at: dict[TP, int] = field(default_factory=dict)
    _held: dict[TP, pl.DataFrame] = field(default_factory=dict)

    def begin(self, committed: Mapping[TP, int]) -> dict[TP, int]:
        """Partitions became ours, and were read up to these offsets: where fetching is to begin in those of which
        there is a past.
        """
        self._held.clear()
        self._at = {tp: at for tp, at in committed.items() if at < self.joins.get(tp, 0)}
        return {tp: self.joins[tp] for tp in self._at}

    def of(self, tps: Collection[TP]) -> list[TP]:
        """Which of these are not to be fetched yet."""
        return [tp for tp in tps if tp in self._at]

    def chunk(self, tp: TP) -> Chunk | None:
        """The next rows; None, from then on, where there are no more. To be called on any thread."""
        held = self._held.get(tp)
        if held is None or not len(held):
            held = self._held[tp] = self.past.rows(tp, self._at[tp], self.joins[tp])
        if not len(held):
            return None
        part = held.head(CHUNK)
        return Chunk(part["user"].to_list(), part["item"].to_list(), part["ts"].to_numpy(), part["offset"].to_numpy())

    def took(self, tp: TP, chunk: Chunk | None) -> None:
        """These were handed on."""
        if chunk is None:
            self._at.pop(tp, None)
            self._held.pop(tp, None)
        elif tp in self._at:
            self._at[tp] = int(chunk.offsets[-1]) + 1
            self._held[tp] = self._held[tp].slice(len(chunk.offsets))


def survey(folder: Path, actions: Mapping[str, str]) -> Past:
    """Look through the Parquet files of a folder. actions: topic -> action, of the input topics; rows of others are
    left out.

    Raises:
        DatasetError: there are none, one lacks a column, or has rows that are no events; the file is named.
    """
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise DatasetError(f"{folder}: has no Parquet files; write the columns {', '.join(NEEDED)} into some")
    found: dict[TP, list[Piece]] = {}
    for file in files:
        for tp, first, last in _look(file, actions):
            found.setdefault(tp, []).append(Piece(first, last, (file,)))
    return Past({tp: _joined(pieces) for tp, pieces in found.items()})


def _look(file: Path, actions: Mapping[str, str]) -> list[tuple[TP, int, int]]:
    """Partition, first and last offset of all that is in a file."""
    try:
        names = pl.read_parquet_schema(file)
        if lacking := [name for name in NEEDED if name not in names]:
            raise DatasetError(f"{file}: lacks the column(s) {', '.join(lacking)}; it has {', '.join(names)}")
        frame = _scan(file).filter(pl.col("topic").is_in(list(actions)))
        user, item = (pl.col(name) for name in ("user", "item"))
        wrong = pl.any_horizontal(
            *(pl.col(name).is_null() for name in NEEDED),
            user == "",
            item == "",
            user.str.contains("\0", literal=True) | item.str.contains("\0", literal=True),
            pl.col("ts") <= 0,
            pl.col("action").replace_strict(dict(ACTION_CODE), default=None, return_dtype=pl.UInt8)
            != pl.col("topic").replace_strict(
                {topic: ACTION_CODE[action] for topic, action in actions.items()}, return_dtype=pl.UInt8
            ),
        ).fill_null(True)
        offset = pl.col("offset")
        parts = (
            frame.group_by("topic", "partition")
            .agg(offset.min().alias("first"), offset.max().alias("last"), offset.filter(wrong).min().alias("wrong"))
            .collect()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DatasetError(f"{file}: cannot be read ({error}); write it again as Parquet") from error
    out: list[tuple[TP, int, int]] = []
    for topic, partition, first, last, bad in parts.iter_rows():
        if bad is not None:
            raise DatasetError(
                f"{file}: the row of {topic}/{partition} at offset {bad} is no event of that topic: it lacks a value, "
                f"its time lies before 1970, or its action is not {actions[topic]}; take it out"
            )
        out.append((TP(topic, int(partition)), int(first), int(last)))
    return out


def _scan(files: Path | Collection[Path]) -> pl.LazyFrame:
    frame = pl.scan_parquet(list(files) if not isinstance(files, Path) else files)
    ts = pl.col("ts")
    if frame.collect_schema()["ts"].is_temporal():
        ts = ts.dt.epoch("ms")
    return frame.select(
        *(pl.col(name).cast(pl.String) for name in ("user", "item", "action", "topic")),
        ts.cast(pl.Int64),
        pl.col("partition").cast(pl.Int64),
        pl.col("offset").cast(pl.Int64),
    )


def _of(tp: TP, files: Collection[Path]) -> pl.LazyFrame:
    return _scan(files).filter((pl.col("topic") == tp.topic) & (pl.col("partition") == tp.partition))


def _joined(pieces: list[Piece]) -> tuple[Piece, ...]:
    """In order of offsets; those that overlap become one."""
    out: list[Piece] = []
    for piece in sorted(pieces):
        if out and piece.first <= out[-1].last:
            before = out.pop()
            piece = Piece(before.first, max(before.last, piece.last), (*before.files, *piece.files))
        out.append(piece)
    return tuple(out)
