"""Where a command takes its data from: a data set by name or folder, or the input topics themselves."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from stream.console.common import err, progress, run, settings, when

if TYPE_CHECKING:
    from model.catalog import Catalog
    from model.dataset import Dataset
    from model.parallel import Group
    from stream.kafka.reading import OnRecords
    from stream.topicdata import TopicData

TOPICS = "topics"

Data = Annotated[
    str,
    typer.Argument(metavar="DATA", help="movielens-100k, complete-journey, a folder, or `topics`: the input topics."),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Events from this time on: 30d (so long ago), 2026-11-01, or milliseconds."),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Events before this time, and what was known of items and users by then."),
]


class Wanted(NamedTuple):
    """Which events: of `data`, since <= time < until (ms, None = all); kafka: where, if not as the settings say."""

    data: str
    since: int | None = None
    until: int | None = None
    kafka: str | None = None

    @staticmethod
    def of(data: str, since: str | None, until: str | None, kafka: str | None = None) -> Wanted:
        """As someone types it. Raises ConfigError for a range that is empty, typer.BadParameter for what is no time."""
        from stream.errors import ConfigError

        now = time.time_ns() // 1_000_000
        first, end = when(since, now), when(until, now, "--until")
        if first is not None and end is not None and first >= end:
            raise ConfigError(f"--since {since} is not before --until {until}", "give the earlier time to --since")
        return Wanted(data, first, end, kafka)


def from_topics(wanted: Wanted, also: OnRecords | None = None, most: int | None = None) -> TopicData:
    """The range of the input topics, of `most` partitions each; `also` is handed every batch of it."""
    from stream.topicdata import read_topics

    with progress("reading the topics") as bar:
        return run(read_topics(settings(wanted.kafka), wanted.since, wanted.until, bar, also, most))


def catalogued(wanted: Wanted, group: Group | None = None) -> tuple[Dataset, Catalog]:
    """A data set and its catalogue; what must be said of it is said. Topics go on while they are read: where several
    processes need the same events, the first reads them for all.
    """
    from model.catalog import Catalog

    if wanted.data != TOPICS:
        found = _from_files(wanted)
    else:
        first = group is None or group.first
        read = from_topics(wanted).data if first else None
        found = read if group is None else group.agreed(read)
        assert found is not None
    for note in (found.licence, *found.notes):
        err.print(note, highlight=False, markup=False)
    return found, Catalog.build(found.items, 1)


def _from_files(wanted: Wanted) -> Dataset:
    from dataclasses import replace

    import numpy as np

    from model.dataset import DatasetError
    from model.datasets import load

    found = load(wanted.data, settings().cache)
    if wanted.since is None and wanted.until is None:
        return found
    ts, ever = found.events.ts, np.iinfo(np.int64)
    first, end = (
        (ever.min if wanted.since is None else wanted.since),
        (ever.max if wanted.until is None else wanted.until),
    )
    inside = (ts >= first) & (ts < end)
    if not inside.any():
        raise DatasetError(f"{wanted.data}: no event is in the range; its times are {ts[0]} to {ts[-1]}, milliseconds")
    return replace(found, events=found.events.take(np.flatnonzero(inside)))
