"""A backfill reads a range and only that: by time, offsets or duration, shared by workers, killed, gone on with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from aiokafka import TopicPartition

from stream import messages
from stream.kafka.clients import consumer
from stream.windows.packing import digest
from tests.pipeline.harness import Deployment, Sent, Worker, check_windows, run, some_events, until

T0 = 1_700_000_000_000
BACKFILL_S = 120.0
SLOW = (
    "from stream.windows import window\nimport time\nreal = window.apply\n"
    "def apply(*a):\n    time.sleep(0.05)\n    return real(*a)\nwindow.apply = apply\n"
)


def started(deployment: Deployment, *flags: str, prelude: str = "", **environ: str) -> Worker:
    command = ("backfill", "--as", deployment.settings.state.name, *flags)
    return deployment.worker(prelude, command, False, **environ)


def ended(worker: Worker) -> str:
    assert worker.process.wait(BACKFILL_S) == 0, worker.log.read_text()[-3000:]
    told = worker.log.read_text()
    assert "Traceback" not in told
    return told


def verified(deployment: Deployment, name: str, against: str, *flags: str, code: int = 0) -> dict:
    ran = deployment.cli("verify", "--as", name, "--against", against, "--json", *flags)
    assert ran.code == code, ran.output
    return json.loads(ran.output[ran.output.index("{") :])


def lived_through(deployment: Deployment, events: Sequence[Sent]) -> None:
    """Events that v1 has served as they came, in two parts; lists take too long here, and say nothing."""
    worker = deployment.worker(command=("worker", "--role", "ingest")).ready()
    for part in (events[: len(events) // 2], events[len(events) // 2 :]):
        deployment.send(part)
        deployment.settled()
    assert worker.stop() == 0


def offsets_at(deployment: Deployment, ms: int) -> dict[TopicPartition, int]:
    """The first offset of each input partition at that time or later; its end where there is none."""

    async def ask() -> dict[TopicPartition, int]:
        ends = deployment_ends
        async with consumer(deployment.settings.kafka) as client:
            found = await client.offsets_for_times(dict.fromkeys(ends, ms))
        return {tp: at.offset if (at := found[tp]) else ends[tp] for tp in ends}

    deployment_ends = deployment.ends()
    return run(ask())


def test_a_range_of_time_is_read_up_to_the_very_offset_and_a_worker_goes_on_from_there(deployment: Deployment) -> None:
    events = some_events(900, users=20)
    deployment.send(events)
    second = deployment.with_state("v2")
    told = ended(started(second, "--since", f"{T0 + 300_000}", "--until", "2023-11-14T22:23:20+00:00", "--json"))
    check_windows(second, events[300:600])  # an event a second, and T0 is 22:13:20
    stops = offsets_at(deployment, T0 + 600_000)
    assert second.committed() == stops
    assert second.lists() == []

    said = json.loads(told[told.index('{\n  "state"') :])
    assert said["complete"] and said["events"] == 300
    begins = offsets_at(deployment, T0 + 300_000)
    for tp, stop in stops.items():
        assert said["offsets"][tp.topic][str(tp.partition)] == [begins[tp], stop]
    assert re.search(r"backfill v2: [\d,]+ of [\d,]+ offsets, .*; by partition 0: ", told)

    worker = second.worker().ready()
    second.settled()
    check_windows(second, events[300:])
    answers = second.lists()
    assert {event.user for event in answers} == {e.user for e in events[600:]}
    assert all(event.source.ts >= T0 + 600_000 for event in answers)
    assert worker.stop() == 0


def test_a_range_of_offsets_is_read_where_it_is_given(deployment: Deployment, tmp_path: Path) -> None:
    events = some_events(400, users=20)
    deployment.send(events)
    begins, stops = offsets_at(deployment, T0 + 100_000), offsets_at(deployment, T0 + 300_000)
    for name, found in (("begin", begins), ("stop", stops)):
        topics: dict[str, dict[str, int]] = {}
        for tp, at in found.items():
            topics.setdefault(tp.topic, {})[str(tp.partition)] = at
        (tmp_path / name).write_text(json.dumps(topics))
    second = deployment.with_state("v2")
    ended(started(second, "--from-offsets", str(tmp_path / "begin"), "--until-offsets", str(tmp_path / "stop")))
    check_windows(second, events[100:300])
    assert second.committed() == stops

    topic = deployment.settings.input.topics["view"]
    (tmp_path / "wrong").write_text(json.dumps({topic: {"0": 10_000}}))
    ran = second.cli("backfill", "--as", "v3", "--from-offsets", str(tmp_path / "wrong"))
    assert ran.code == 3 and f"offset 10000 of {topic}/0 is not there: there are 0 to " in ran.output


def test_three_workers_share_a_backfill_and_each_ends_when_all_of_it_is_read(deployment: Deployment) -> None:
    events = some_events(6000, users=60)
    lived_through(deployment, events)
    second = deployment.with_state("v2")
    small = {"EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "4096"}
    workers = [started(second, prelude=SLOW, **small) for _ in range(3)]
    until(lambda: all(w.status().get("partitions") for w in workers), BACKFILL_S, "all have partitions")
    shared = [set(w.status()["partitions"]) for w in workers]
    assert sorted(p for ours in shared for p in ours) == [0, 1, 2, 3]
    for worker in workers:
        ended(worker)
    assert second.committed() == second.ends()
    found = verified(second, "v2", deployment.settings.state.name)
    assert found["same"] and found["users"]["equal"] == 60
    assert found["trends"]["counts"] > 1000 and found["trends"]["different"] == 0
    assert digest(second.windows()) == digest(deployment.windows())


def test_a_backfill_that_is_killed_twice_and_shared_in_the_end_is_the_same_state(deployment: Deployment) -> None:
    events = some_events(5000, users=40)
    lived_through(deployment, events)
    second = deployment.with_state("v2")
    small = {"EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "4096"}
    until_ms = ("--until", f"{T0 + 4_000_000}")
    for _ in range(2):
        before = sum(at or 0 for at in second.committed().values())
        killed = started(second, *until_ms, prelude=SLOW, **small)
        until(lambda b=before: sum(at or 0 for at in second.committed().values()) > b + 300, BACKFILL_S, "it reads")
        killed.kill()
    # A range that has begun is gone on with, whatever is asked for now.
    for worker in [started(second, prelude=SLOW, **small) for _ in range(2)]:
        assert "going on where it stopped" in ended(worker)
    assert second.committed() == offsets_at(deployment, T0 + 4_000_000)
    check_windows(second, events[:4000])

    ended(started(second))  # it is done, so a new one goes on to what is there by now
    found = verified(second, "v2", deployment.settings.state.name)
    assert found["same"] and found["users"]["equal"] == 40 and found["trends"]["different"] == 0


def test_history_s_lists_go_to_a_side_topic_where_that_is_asked_for(deployment: Deployment) -> None:
    events = some_events(200, users=10)
    deployment.send(events)
    second = deployment.with_state("v2")
    side = second.settings.topics.named("history")
    assert second.cli("pause").code == 0  # of the deployment's own lists
    ended(started(second, "--into", side))
    assert second.lists() == []
    found = [messages.decode(record.value) for record in second.records(side)]
    assert {event.user for event in found} == {e.user for e in events}
    assert {event.source.state for event in found} == {"v2"}
    check_windows(second, events)
    assert second.committed() == second.ends()
    ran = second.cli("backfill", "--as", "v3", "--into", second.settings.topics.recommendations)
    assert ran.code == 3 and "is the deployment's own" in ran.output


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (("--since", "7d", "--from-offsets", "x.json"), "--since and --from-offsets say different things"),
        (("--into", "x", "--serve"), "--into and --serve say different things"),
        (("--until", "soon"), "--until"),
    ],
)
def test_what_contradicts_itself_is_refused(deployment: Deployment, wrong: tuple[str, ...], words: str) -> None:
    ran = deployment.cli("backfill", "--as", "v2", *wrong)
    assert ran.code == 2 and words in " ".join(ran.output.replace("│", " ").split())
