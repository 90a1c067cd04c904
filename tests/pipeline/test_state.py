"""State on a real Kafka: whatever happens to workers, it is that of the events, and everyone touched is answered."""

from __future__ import annotations

import re
import signal
import time

from stream.errors import BrokerError
from stream.kafka.changelog import Changelog
from tests.pipeline import topics_io
from tests.pipeline.harness import (
    Deployment,
    Sent,
    check_answered,
    check_state,
    check_windows,
    run,
    some_events,
    until,
)


def middle_of_the_stream(deployment: Deployment, events: list[Sent], act) -> None:
    """Send half, act while it is being worked on, send the rest."""
    half = len(events) // 2
    deployment.send(events[:half])
    act()
    deployment.send(events[half:])


def test_windows_equal_those_of_the_events(deployment: Deployment) -> None:
    events = some_events(3000, users=60)
    worker = deployment.worker(started=True).ready()
    deployment.send(events)
    deployment.settled()
    check_state(deployment, events)
    assert worker.stop() == 0


def test_a_first_batch_of_one_record_at_offset_0_is_committed(deployment: Deployment) -> None:
    worker = deployment.worker().ready()
    events = some_events(1, users=1)
    deployment.send(events)
    deployment.settled()
    later = some_events(200, users=5, seed=1, start=1_700_100_000_000)
    deployment.send(later)
    deployment.settled()
    check_state(deployment, events + later)
    assert worker.stop() == 0


def test_a_stop_in_mid_stream_loses_and_repeats_nothing(deployment: Deployment) -> None:
    events = some_events(4000, users=50)
    worker = deployment.worker().ready()

    def stop() -> None:
        assert worker.stop() == 0

    middle_of_the_stream(deployment, events, stop)
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_a_kill_in_mid_stream_loses_and_repeats_nothing(deployment: Deployment) -> None:
    events = some_events(4000, users=50)
    worker = deployment.worker().ready()
    middle_of_the_stream(deployment, events, worker.kill)
    second = deployment.worker().ready()
    until(lambda: second.status().get("events", 0) > 0, 30, "the second worker has begun")
    second.kill()
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_events_that_rows_skip_when_they_are_read_again_still_get_their_users_answered(deployment: Deployment) -> None:
    """The crash is between flush and list: everything is in the rows, and nobody has been told."""
    mute = (
        "import asyncio\n"
        "from stream.lists.recommend import Recommender\n"
        "Recommender.run = lambda self: asyncio.Event().wait()\n"
    )
    events = some_events(600, users=40)
    first = deployment.worker(prelude=mute).ready()
    deployment.send(events)
    until(lambda: len(deployment.windows()) == len({e.user for e in events}), 60, "all rows are flushed")
    until(lambda: first.status()["events"] == len(events), 60, "all events are applied")
    time.sleep(2 * deployment.settings.state.commit_interval_s)
    first.kill()
    assert not any(deployment.committed().values()) and deployment.lists() == []
    check_windows(deployment, events)
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_a_worker_frozen_past_its_session_cannot_write_over_its_successor(deployment: Deployment) -> None:
    events = some_events(3000, users=40)
    third = len(events) // 3
    frozen = deployment.worker().ready()
    deployment.send(events[:third])
    until(lambda: frozen.status().get("events", 0) > 0, 30, "the first worker has begun")
    frozen.signal(signal.SIGSTOP)
    successor = deployment.worker().ready()
    deployment.send(events[third : 2 * third])
    deployment.settled()
    frozen.signal(signal.SIGCONT)
    deployment.send(events[2 * third :])
    deployment.settled()
    check_state(deployment, events)
    until(
        lambda: sorted(p for w in (frozen, successor) for p in w.status().get("partitions", [])) == [0, 1, 2, 3],
        30,
        "each partition has one owner",
    )


def test_a_claim_by_a_worker_that_owns_nothing_any_more_leaves_no_partition_unserved(deployment: Deployment) -> None:
    """It was frozen while it claimed, and went on when its partitions had long been given to another."""
    events = some_events(1200, users=40)
    worker = deployment.worker().ready()
    deployment.send(events[:600])
    deployment.settled()
    run(stale_claim(deployment, partition=0))
    deployment.send(events[600:])
    deployment.settled()
    check_state(deployment, events)
    assert "partition 0 has a new owner" in worker.log.read_text(), "nothing was fenced"
    until(lambda: worker.status()["partitions"] == [0, 1, 2, 3], 30, "the partition is served again")


async def stale_claim(deployment: Deployment, partition: int) -> None:
    settings = deployment.settings
    changelog = Changelog(settings.kafka, settings.topics.named(settings.state.name))
    await changelog.own([partition])
    await changelog.close()


def test_a_worker_joins_when_it_can_answer_and_not_before(deployment: Deployment) -> None:
    """Or the users of its partitions would wait until a catalogue is encoded and indexed."""
    built = deployment.folder / "built"
    slow = (
        "import asyncio, pathlib\n"
        "from stream.lists.serving import Serving\n"
        "real = Serving._rebuild\n"
        "async def rebuild(self):\n"
        f"    while not pathlib.Path({str(built)!r}).exists():\n"
        "        await asyncio.sleep(0.05)\n"
        "    await real(self)\n"
        "Serving._rebuild = rebuild\n"
    )
    events = some_events(1200, users=40)
    first = deployment.worker().ready()
    second, third = deployment.worker(prelude=slow), deployment.worker(prelude=slow)
    for cold in (second, third):
        until(lambda worker=cold: worker.status().get("ready") is False, 60, "it has begun")
    deployment.send(events[:600])
    deployment.settled()
    check_state(deployment, events[:600])
    assert (first.status()["partitions"], second.status()["partitions"]) == ([0, 1, 2, 3], [])
    assert third.stop() == 0, "told to stop before it had joined"
    built.touch()
    until(lambda: len(second.status().get("partitions", [])) == 2, 60, "the partitions are shared")
    deployment.send(events[600:])
    deployment.settled()
    check_state(deployment, events)


def test_two_workers_share_partitions_and_hand_them_over(deployment: Deployment) -> None:
    events = some_events(6000, users=80)
    first = deployment.worker().ready()
    deployment.send(events[:2000])
    second = deployment.worker().ready()
    until(lambda: len(second.status().get("partitions", [])) == 2, 30, "the partitions are shared")
    deployment.send(events[2000:4000])
    deployment.settled()
    check_state(deployment, events[:4000])
    everyone = len({event.user for event in events[:4000]})
    assert first.status()["users"] + second.status()["users"] == everyone, "rows that were handed over are dropped"
    assert first.stop() == 0
    deployment.send(events[4000:])
    deployment.settled()
    check_state(deployment, events)
    assert second.status()["partitions"] == [0, 1, 2, 3]


def test_a_fetch_that_is_under_way_when_partitions_come_takes_nothing_from_their_restore(
    deployment: Deployment,
) -> None:
    """It must not run on after the changelogs were sought to their beginnings: its records are dropped."""
    lingering = (
        "import asyncio\n"
        "from stream.kafka.transport import BatchConsumer\n"
        "real = BatchConsumer._getmany\n"
        "async def getmany(self, *args, **kwargs):\n"
        "    async def late():\n"
        "        await asyncio.sleep(0.15)\n"
        "        return await real(self, *args, **kwargs)\n"
        "    return await late()\n"
        "BatchConsumer._getmany = getmany\n"
    )
    events = some_events(3000, users=60)
    for start in range(0, len(events), 1000):
        worker = deployment.worker(prelude=lingering).ready()
        if start:
            assert deployment.workers[-2].stop() == 0
        until(lambda w=worker: len(w.status().get("partitions", [])) == 4, 30, "all partitions are handed over")
        deployment.send(events[start : start + 1000])
    deployment.settled()
    check_state(deployment, events)


def test_what_is_fetched_while_partitions_are_sought_is_not_emptied_out_of_a_queue(deployment: Deployment) -> None:
    """Faust empties its queues when it resumes: a batch in them would be gone, and read on behind."""
    slow = (
        "import asyncio\n"
        "from aiokafka import AIOKafkaConsumer\n"
        "from stream.ingest import Ingest\n"
        "from faust.types import TP\n"
        "seek = AIOKafkaConsumer.seek_to_committed\n"
        "async def sought(self, *partitions):\n"
        "    done = await seek(self, *partitions)\n"
        "    await asyncio.sleep(1.0)\n"
        "    return done\n"
        "async def agent(self, stream):\n"
        "    async for event in stream.events():\n"
        "        self.batch(TP(*event.message.tp), event.message.value)\n"
        "        await asyncio.sleep(0.3)\n"
        "AIOKafkaConsumer.seek_to_committed, Ingest.agent = sought, agent\n"
    )
    events = some_events(4000, users=60)
    first = deployment.worker().ready()
    deployment.send(events[:500])
    deployment.settled()
    assert first.stop() == 0
    deployment.send(events[500:])
    deployment.worker(slow).ready()
    deployment.settled()
    check_state(deployment, events)


def test_late_and_repeated_events_and_topics_out_of_step_leave_the_window_a_set(deployment: Deployment) -> None:
    start = 1_700_000_000_000
    events = [Sent("a", f"i{n % 7}", "click", start + 1000 * (n % 5)) for n in range(40)]
    events += some_events(2000, users=20, mixed=True)
    deployment.worker().ready()
    deployment.send(events)
    deployment.settled()
    check_windows(deployment, events)
    check_answered(deployment)


def test_an_agent_that_raises_stops_the_process_and_skips_nothing(deployment: Deployment) -> None:
    raising = (
        "from stream.windows import window\n"
        "real = window.apply\n"
        "def apply(columns, partition, topic, events, *more):\n"
        "    done = real(columns, partition, topic, events, *more)\n"
        "    if 'u3' in events.users: raise RuntimeError('a defect')\n"
        "    return done\n"
        "window.apply = apply\n"
    )
    events = some_events(500, users=10)
    broken = deployment.worker(prelude=raising).ready()
    deployment.send(events)
    assert broken.process.wait(60) != 0
    assert "a defect" in broken.log.read_text()
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_a_flush_that_fails_stops_the_process_and_commits_nothing_more(deployment: Deployment) -> None:
    failing = (
        "from stream.kafka.changelog import Changelog\n"
        "real, calls = Changelog.write, []\n"
        "async def write(self, partition, records):\n"
        "    calls.append(partition)\n"
        "    if len(calls) == 6: raise RuntimeError('the disk of the broker is full')\n"
        "    await real(self, partition, records)\n"
        "Changelog.write = write\n"
    )
    events = some_events(3000, users=40)
    broken = deployment.worker(prelude=failing).ready()
    for start in range(0, len(events), 500):
        deployment.send(events[start : start + 500])
        time.sleep(0.4)
    assert broken.process.wait(60) != 0
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_a_broker_that_fails_a_transaction_ends_the_worker_which_says_what_to_do(deployment: Deployment) -> None:
    """A limit that no row fits stands for all that may befall a broker in the middle of a transaction."""
    s, events = deployment.settings, some_events(600, users=40)
    windows = s.topics.windows(s.state.name)
    worker = deployment.worker().ready()
    deployment.send(events[:300])
    deployment.settled()
    run(topics_io.configure(s, windows, {"cleanup.policy": "compact", "max.message.bytes": "100"}))
    deployment.send(events[300:])
    assert worker.process.wait(60) == BrokerError.exit_code
    _, told = worker.log.read_text().split("stopped by a failure: ")
    assert re.match(rf"the broker .* while writing partition \d of {re.escape(windows)}, .*: MessageSizeTooLarge", told)
    assert "-> start the worker again" in told
    run(topics_io.configure(s, windows, {"cleanup.policy": "compact"}))
    deployment.worker().ready()
    deployment.settled()
    check_state(deployment, events)


def test_commits_go_on_when_the_stream_pauses(deployment: Deployment) -> None:
    deployment.worker().ready()
    for seed in range(3):
        deployment.send(some_events(20, users=4, seed=seed, start=1_700_000_000_000 + seed * 10**7))
        deployment.settled(30)
        time.sleep(0.5)
