"""A data set as a folder: events and what is known of items and users, read into columns, and refused with the remedy.

Not the public data sets, which are read elsewhere (`datasets.py`) into the same, and not a splitter: events come out in
time order (ties in the file's order) and that is all.

A folder holds `events.csv`, `events.csv.gz` or `events.parquet` with the columns
`user,item,action,ts[,value,session]` (ts in milliseconds) and, as far as there is anything to say,

    items.csv[.gz]    item[,title,text,categories,price,in_stock,item_group_id], categories separated by `|`
    vectors.parquet   item,vector: the items' own vectors (images, sounds), lists of numbers of one length
    users.csv[.gz]    user[,interests,...]: what users say they like, item ids or categories separated by `|`; every
                      other column is an attribute
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.catalog import Item
from model.dataset import Dataset, DatasetError, Events
from model.history import ACTION_CODE
from model.people import Person

SECONDS = 300_000_000, 10_000_000_000
"""1979 to 2286, in seconds; as milliseconds these are days of January to April 1970, which no data set is of."""
LATEST_MS = 100_000_000_000_000


def read_folder(folder: Path) -> Dataset:
    """A data set from its folder (see the module's first lines). Items without a description get their id as
    title.
    """
    path = events_file(folder)
    events = _events(table(path), path)
    items_path = _one_of(folder, ("items.csv", "items.csv.gz"))
    items = _items(table(items_path), items_path) if items_path else {}
    for missing in sorted(set(events.item.tolist()) - items.keys()):
        items[missing] = Item(missing, missing)
    if vectors := _one_of(folder, ("vectors.parquet",)):
        _bring_vectors(table(vectors), vectors, items)
    users = _one_of(folder, ("users.csv", "users.csv.gz"))
    people = people_of(table(users, words=True), users) if users else {}
    licence = folder / "LICENCE.txt"
    name = folder.resolve().name
    said = (
        licence.read_text() if licence.is_file() else f"{name}: no LICENCE.txt; ask its owner what it may be used for"
    )
    bare = sum(item.title == item.item for item in items.values())
    notes = (f"{bare} of {len(items)} items have no title and are called by their id.",) if bare else ()
    return Dataset(name, said, events, items, notes, people)


def events_file(folder: Path) -> Path:
    """The file of a folder's events. Raises DatasetError where there is none."""
    path = _one_of(folder, ("events.parquet", "events.csv", "events.csv.gz"))
    if path is None:
        raise DatasetError(f"{folder}: has no events.csv, events.csv.gz or events.parquet")
    return path


def _one_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_file()), None)


def table(path: Path, words: bool = False) -> pl.DataFrame:
    """A table; words: all of it as it is written, without telling numbers from words."""
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        if words:
            return pl.read_csv(path, infer_schema=False)
        return pl.read_csv(path, schema_overrides={"user": pl.String, "item": pl.String, "title": pl.String})
    except pl.exceptions.NoDataError as e:
        raise DatasetError(f"{path}: is empty and cannot be read; its first line must name the columns") from e
    except (pl.exceptions.PolarsError, OSError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}); write it again as UTF-8 CSV with a header") from e


def _events(frame: pl.DataFrame, path: Path) -> Events:
    _require(frame, path, "user", "item", "action", "ts")
    if not len(frame):
        raise DatasetError(f"{path}: has a header and no events; write a row for each")
    names = frame["action"].cast(pl.String).unique().drop_nulls().to_list()
    unknown = sorted(set(names) - ACTION_CODE.keys())
    if unknown:
        raise DatasetError(f"{path}: unknown action {unknown[0]!r}; use one of {', '.join(ACTION_CODE)}")
    if not frame["ts"].dtype.is_integer():
        raise DatasetError(
            f"{path}: `ts` must be whole milliseconds since 1970, found {frame['ts'].dtype}, as {frame['ts'][0]!r}; "
            "write 2026-11-25 12:00 UTC as 1795608000000"
        )
    empty = frame.select("user", "item", "action", "ts").null_count().row(0)
    if any(empty):
        raise DatasetError(f"{path}: {sum(empty)} empty value(s) in user, item, action or ts; remove these rows")
    times = frame["ts"].cast(pl.Int64).to_numpy()
    refuse_other_units(times, path)
    return columns(
        frame["user"].cast(pl.String),
        frame["item"].cast(pl.String),
        frame["action"].cast(pl.String).replace_strict(dict(ACTION_CODE), return_dtype=pl.UInt8).to_numpy(),
        times,
        frame["value"].cast(pl.Float32).fill_null(float("nan")).to_numpy() if "value" in frame.columns else None,
    )


def _require(frame: pl.DataFrame, path: Path, *names: str) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise DatasetError(
            f"{path}: lacks the column(s) {', '.join(missing)}; its first line names {', '.join(frame.columns)}. "
            "Name columns so, with commas between them; where all events are of one kind, write that action in each row"
        )


def refuse_other_units(times: NDArray[np.int64], path: Path) -> None:
    """Times that are all of a few weeks of 1970 are seconds of our days; those after the year 5000 are finer."""
    first, last = int(times.min()), int(times.max())
    if first >= SECONDS[0] and last <= SECONDS[1]:
        raise DatasetError(f"{path}: `ts` looks like seconds ({first}); write milliseconds: multiply by 1000")
    if last > LATEST_MS:
        raise DatasetError(
            f"{path}: `ts` {last} is finer than milliseconds; divide micro- by 1000, nanoseconds by 10^6"
        )


def columns(user: pl.Series, item: pl.Series, action: NDArray, ts: NDArray, value: NDArray | None) -> Events:
    """Events in time order, ties in the order given."""
    order = np.argsort(ts, kind="stable")
    value = np.full(len(ts), np.nan) if value is None else value
    users, items = (np.array(s.to_list(), object) for s in (user, item))
    return Events(
        users[order],
        items[order],
        action[order].astype(np.uint8),
        ts[order].astype(np.int64),
        value[order].astype(np.float32),
    )


def _items(frame: pl.DataFrame, path: Path) -> dict[str, Item]:
    _require(frame, path, "item")
    if frame["item"].null_count():
        raise DatasetError(f"{path}: {frame['item'].null_count()} row(s) without an item id; remove these rows")
    items = {}
    for row in frame.iter_rows(named=True):
        items[row["item"]] = Item(
            item=row["item"],
            title=row.get("title") or row["item"],
            text=row.get("text"),
            categories=_listed(row.get("categories")),
            price=_price(row.get("price"), row["item"], path),
            in_stock=str(row.get("in_stock", "true")).lower() not in ("false", "0", "no"),
            item_group_id=None if row.get("item_group_id") is None else str(row["item_group_id"]),
        )
    return items


def _listed(text: object) -> list[str]:
    """What stands between `|`."""
    return [part.strip() for part in str(text or "").split("|") if part.strip()]


def _price(value: object, item: str, path: Path) -> float | None:
    try:
        return None if value is None else float(str(value))
    except ValueError as e:
        raise DatasetError(f"{path}: the price of item {item}, {value!r}, is no number; write it as 12.50") from e


def _bring_vectors(frame: pl.DataFrame, path: Path, items: dict[str, Item]) -> None:
    """Gives items their own vectors; those of items that are not there are passed over."""
    _require(frame, path, "item", "vector")
    names = frame["item"].cast(pl.String).to_list()
    try:
        vectors = np.array(frame["vector"].to_list(), np.float32)
    except (ValueError, TypeError) as e:
        raise DatasetError(f"{path}: `vector` must be a list of numbers, of one length in all rows") from e
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise DatasetError(f"{path}: `vector` must be a list of finite numbers, of one length in all rows")
    for name, vector in zip(names, vectors.tolist(), strict=True):
        if name in items:
            items[name].vector = vector


def people_of(frame: pl.DataFrame, path: Path) -> dict[str, Person]:
    """Users with their attributes, every column that is neither `user` nor `interests`, and what they say they like."""
    _require(frame, path, "user")
    attributes = [name for name in frame.columns if name not in ("user", "interests")]
    return {
        row["user"]: Person(row["user"], {name: row[name] for name in attributes}, _listed(row.get("interests")))
        for row in frame.iter_rows(named=True)
        if row["user"]
    }
