"""What the brokers have forgotten comes from Parquet, joined to what they still have at the very offset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from stream.kafka.clients import admin
from stream.kafka.placing import partition_of
from tests.pipeline.harness import PARTITIONS, Deployment, Sent, check_windows, run, some_events, until
from tests.pipeline.test_ranges import BACKFILL_S, SLOW, T0, ended, lived_through, started, verified

SMALL = SLOW + "from stream import past\npast.CHUNK = 40\n"


def archive(deployment: Deployment, folder: Path, ends: dict[TopicPartition, int]) -> None:
    """Write what lies before these offsets into a file a topic, and half of each into another one as well."""
    folder.mkdir()
    for action, topic in deployment.settings.input.topics.items():
        rows = []
        for r in deployment.records(topic):
            event = json.loads(r.value)
            if r.offset < ends[TopicPartition(topic, r.partition)]:
                rows.append((event["user"], event["item"], action, event["ts"], topic, r.partition, r.offset))
        names = ["user", "item", "action", "ts", "topic", "partition", "offset"]
        frame = pl.DataFrame(rows, schema=names, orient="row")
        frame.write_parquet(folder / f"{action}.parquet")
        frame.gather_every(2).write_parquet(folder / f"{action}-again.parquet")


def forget(deployment: Deployment, before: dict[TopicPartition, int]) -> None:
    """Have the broker delete what lies before these offsets."""

    async def delete() -> None:
        async with admin(deployment.settings.kafka) as client:
            await client.delete_records({tp: RecordsToDelete(before_offset=at) for tp, at in before.items()})

    run(delete())


def without(
    deployment: Deployment, events: Sequence[Sent], gone: Mapping[TopicPartition, tuple[int, int]]
) -> list[Sent]:
    """The events but for those of some offsets, from one up to the other, of each partition."""
    kept, seen = [], dict.fromkeys(gone, 0)
    for event in events:
        topic = deployment.settings.input.topics[event.action]
        at = TopicPartition(topic, partition_of(event.user, PARTITIONS))
        first, after = gone[at]
        if not first <= seen[at] < after:
            kept.append(event)
        seen[at] += 1
    return kept


def test_what_brokers_forgot_is_read_from_an_archive_and_joined_at_the_offset(
    deployment: Deployment, tmp_path: Path
) -> None:
    events = some_events(3000, users=40)
    lived_through(deployment, events)
    ends = deployment.ends()
    archive(deployment, tmp_path / "past", {tp: 2 * end // 3 for tp, end in ends.items()})
    forget(deployment, {tp: end // 2 for tp, end in ends.items()})  # a sixth of all is in both

    second = deployment.with_state("v2")
    flags = ("--archive", str(tmp_path / "past"))
    small = {"EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "4096"}
    killed = started(second, *flags, prelude=SMALL, **small)
    until(lambda: sum(at or 0 for at in second.committed().values()) > 300, BACKFILL_S, "it reads the archive")
    assert any((at or 0) < ends[tp] // 2 for tp, at in second.committed().items())
    killed.kill()
    for worker in [started(second, *flags, prelude=SMALL, **small) for _ in range(2)]:
        ended(worker)
    assert second.committed() == ends
    found = verified(second, "v2", deployment.settings.state.name)
    assert found["same"] and found["users"]["equal"] == 40
    assert found["trends"]["different"] == 0 and found["trends"]["counts"] > 1000


def test_a_range_may_lie_in_an_archive_as_a_whole(deployment: Deployment, tmp_path: Path) -> None:
    events = some_events(600, users=20)
    deployment.send(events)
    ends = deployment.ends()
    archive(deployment, tmp_path / "past", ends)
    forget(deployment, {tp: end for tp, end in ends.items() if end})
    second = deployment.with_state("v2")
    flags = ("--archive", str(tmp_path / "past"), "--since", f"{T0 + 100_000}", "--until", f"{T0 + 400_000}")
    ended(started(second, *flags))
    check_windows(second, events[100:400])


def test_an_archive_that_ends_too_early_is_refused_with_the_offsets_that_are_missing(
    deployment: Deployment, tmp_path: Path
) -> None:
    events = some_events(600, users=20)
    deployment.send(events)
    ends = deployment.ends()
    archive(deployment, tmp_path / "past", {tp: end // 3 for tp, end in ends.items()})
    forget(deployment, {tp: end // 2 for tp, end in ends.items() if end // 2})
    second = deployment.with_state("v2")
    ran = second.cli("backfill", "--as", "v2", "--archive", str(tmp_path / "past"))
    assert ran.code == 5
    tp = min(tp for tp, end in ends.items() if end // 3 < end // 2)
    assert "offsets are missing, neither in an archive nor on the brokers" in ran.output and "--allow-gap" in ran.output
    assert f"{tp.topic}/{tp.partition}: {ends[tp] // 3} to {ends[tp] // 2 - 1}" in ran.output

    ended(started(second, "--archive", str(tmp_path / "past"), "--allow-gap"))
    check_windows(second, without(second, events, {tp: (end // 3, end // 2) for tp, end in ends.items()}))


def test_what_is_deleted_before_it_was_read_is_told_and_a_backfill_goes_on_only_if_it_may(
    deployment: Deployment,
) -> None:
    """Kafka would begin behind it without a word."""
    events = some_events(1200, users=20)
    lived_through(deployment, events[:300])
    read = deployment.committed()
    deployment.send(events[300:])
    ends = deployment.ends()
    second = deployment.with_state("v2")
    slower = SMALL.replace("0.05", "2")  # of a dozen batches one or two are read before it is killed
    killed = started(second, prelude=slower, EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES="4096")
    until(lambda: sum(at or 0 for at in second.committed().values()) > 30, BACKFILL_S, "it reads")
    killed.kill()
    assert sum(at or 0 for at in second.committed().values()) < sum(ends.values()), "it was killed in the middle"
    first = {tp: ((read.get(tp) or 0) + end) // 2 for tp, end in ends.items()}
    forget(deployment, {tp: at for tp, at in first.items() if at})

    worker = deployment.worker(command=("worker", "--role", "ingest")).ready()
    deployment.settled()
    missed = sum(at - (read.get(tp) or 0) for tp, at in first.items() if read.get(tp))
    assert missed and worker.status()["gone"] == missed
    assert f"{missed} offsets were deleted by their topics' retention before they were read" in worker.log.read_text()
    assert worker.stop() == 0
    check_windows(deployment, without(deployment, events, {tp: (read.get(tp) or 0, at) for tp, at in first.items()}))

    forget(deployment, {tp: end for tp, end in ends.items() if end})  # the last of the range as well
    ran = second.cli("backfill", "--as", "v2")
    assert ran.code == 5, ran.output
    assert "offsets are missing" in ran.output and "--allow-gap" in ran.output
    ended(started(second, "--allow-gap"))
    assert second.committed() == ends
