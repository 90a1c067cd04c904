"""What was said and what came of it, read back: lists, shadow lists and feedback, from files or from their topics.

Not what they tell (`model.evaluation.variants`, `model.evaluation.offpolicy`). Files are as the topics are: JSON lines,
or parquet with a column for each field. What cannot be read is counted, not refused: whoever writes feedback may err,
and a log goes on for weeks.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from model.evaluation.variants import OUTCOMES, UNKNOWN, UNNAMED, Logged
from stream.errors import LogError
from stream.kafka.clients import KafkaConfig, consumer
from stream.kafka.topics import TopicsConfig, topic_partitions
from stream.messages import Drawn, Feedback

TOPICS = "topics"
"""In place of a folder: read the topics themselves."""
LISTS, SHADOWS, FEEDBACK = "recommendations", "shadow", "feedback"
JSON_LINES = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".json.gz")
PARQUET = ".parquet"

T = TypeVar("T")


class Item(msgspec.Struct, frozen=True):
    """Of a list's item, what an evaluation reads."""

    item: str
    propensity: float = 1.0


class Said(msgspec.Struct, frozen=True):
    """Of a list (`stream.messages.Recommendation`), what an evaluation reads."""

    id: str
    user: str
    variant: str
    items: list[Item]
    drawn: Drawn | None = None


class Log(NamedTuple):
    """What was read, and how many records could not be."""

    lists: list[Said]
    shadows: list[Said]
    feedback: list[Feedback]
    unreadable: int


async def of(data: str, kafka: KafkaConfig, topics: TopicsConfig) -> Log:
    """From a folder, or from `TOPICS`; see `of_files` and `of_topics`."""
    return await of_topics(kafka, topics) if data == TOPICS else of_files(Path(data))


def of_files(folder: Path) -> Log:
    """From `recommendations`, `feedback` and, if it is there, `shadow` in a folder: files whose names begin so, or all
    files of folders of these names.

    Raises:
        LogError: there is no list, or nothing can be read.
    """
    lists, wrong = _of_files(folder, LISTS, Said)
    shadows, more = _of_files(folder, SHADOWS, Said)
    feedback, yet = _of_files(folder, FEEDBACK, Feedback)
    if not lists:
        endings = ", ".join((*JSON_LINES[:3], PARQUET))
        raise LogError(
            f"{folder} has no lists" + (f": {wrong} records of {LISTS} cannot be read" if wrong else ""),
            f"put the records of the topic there as {LISTS} ({endings}), and of the others as {FEEDBACK} and {SHADOWS}",
        )
    return Log(lists, shadows, feedback, wrong + more + yet)


async def of_topics(kafka: KafkaConfig, topics: TopicsConfig) -> Log:
    """From the topics themselves, up to their ends of now.

    Raises:
        TopicError: one is missing.
        LogError: there is no list.
    """
    lists, wrong = _decoded(await _values(kafka, topics.recommendations), Said)
    shadows, more = _decoded(await _values(kafka, topics.shadow), Said)
    feedback, yet = _decoded(await _values(kafka, topics.feedback), Feedback)
    if not lists:
        raise LogError(f"{topics.recommendations} has no lists", "run a worker: eddyline worker")
    return Log(lists, shadows, feedback, wrong + more + yet)


def columns(log: Log) -> tuple[Logged, int]:
    """The log as columns, and how many records said again what another had said. Of a list that was made twice the last
    counts, as in the topic when it is compacted.
    """
    lists = {said.id: said for said in log.lists}
    row = {id_: n for n, id_ in enumerate(lists)}
    beside = {(said.id, said.variant): said for said in log.shadows if said.id in row}
    came = list(dict.fromkeys(log.feedback))
    variants, variant = _numbers([said.variant for said in lists.values()])
    shadows, shadow = _numbers([name for _, name in beside])
    items: dict[str, int] = {}
    logged = Logged(
        variants,
        _numbers([said.user for said in lists.values()])[1],
        variant,
        _listed(list(lists.values()), items),
        np.array([UNNAMED if f.recommendation is None else row.get(f.recommendation, UNKNOWN) for f in came], np.int64),
        np.array([OUTCOMES.index(f.outcome) for f in came], np.int64),
        np.array([f.value or 0.0 for f in came], np.float64),
        shadows,
        shadow,
        np.array([row[id_] for id_, _ in beside], np.int64),
        _listed(list(beside.values()), items),
    )
    return logged, len(log.lists) - len(lists) + len(log.feedback) - len(came)


def _numbers(names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Distinct names in their order, and the number of each."""
    known, number = np.unique(np.array(names, object).astype(str), return_inverse=True)
    return tuple(known.tolist()), number.astype(np.int64)


def _listed(lists: Sequence[Said], items: dict[str, int]) -> NDArray[np.int32]:
    """Items by number, i32[L,n], -1 behind the last; unknown ones are added to `items`."""
    out = np.full((len(lists), max((len(said.items) for said in lists), default=0)), -1, np.int32)
    for n, said in enumerate(lists):
        out[n, : len(said.items)] = [items.setdefault(i.item, len(items)) for i in said.items]
    return out


def _of_files(folder: Path, name: str, kind: type[T]) -> tuple[list[T], int]:
    found: list[T] = []
    wrong = 0
    beside = [p for p in folder.glob(f"{name}*") if p.is_file()]
    for path in sorted([*beside, *(p for p in (folder / name).rglob("*") if p.is_file())]):
        if path.suffix == PARQUET:
            read, bad = _decoded(_rows(path), kind)
        elif path.name.endswith(JSON_LINES):
            read, bad = _decoded(_lines(path), kind)
        else:
            continue
        found += read
        wrong += bad
    return found, wrong


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        yield from (line for line in file if line.strip())


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        yield from pl.read_parquet(path).iter_rows(named=True)
    except pl.exceptions.PolarsError as error:
        raise LogError(f"{path} cannot be read: {error}", "write it again as parquet, or as JSON lines") from error


def _decoded(records: Iterable[bytes | dict[str, Any]], kind: type[T]) -> tuple[list[T], int]:
    """Records of this kind, and how many are none."""
    decode, found, wrong = msgspec.json.Decoder(kind).decode, [], 0
    for record in records:
        try:
            found.append(msgspec.convert(record, kind) if isinstance(record, dict) else decode(record))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            wrong += 1
    return found, wrong


async def _values(kafka: KafkaConfig, topic: str) -> list[bytes]:
    """Every record's value, up to the topic's end of now; tombstones are none."""
    tps = await topic_partitions(kafka, [topic])
    found: list[bytes] = []
    async with consumer(kafka) as client:
        client.assign(tps)
        await client.seek_to_beginning(*tps)
        left = await client.end_offsets(tps)
        while left := {tp: end for tp, end in left.items() if await client.position(tp) < end}:
            for records in (await client.getmany(*left, timeout_ms=200)).values():
                found += [record.value for record in records if record.value is not None]
    return found
