"""A replay on a real broker: each event once, in order, whatever ends it in between; from files and from topics."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from stream.kafka import topics
from stream.kafka.batches import Out, send
from stream.kafka.clients import admin, producer
from stream.kafka.placing import partition_of
from stream.replay.ledger import Position, ledger
from stream.replay.retention import retention_ms
from tests.pipeline import topics_io
from tests.pipeline.forks import Fork
from tests.pipeline.harness import Deployment, Ran, Sent, check_windows, run, until
from tests.pipeline.topics_io import PARTITIONS

START = 1_700_000_000_000
SMALL = "import model.archive; model.archive.PIECE = 400\nimport stream.replay.topics as t; t.CHUNK = 400\n"
"""Transactions of 400 records, so that there are some to be killed in."""
DIES_BEFORE_A_COMMIT = """
import asyncio, os, signal, stream.replay.ledger as l
real, calls = l.send_all, []
async def dies(client, records):
    sent = await real(client, records)
    calls.append(1)
    if len(calls) == 3:
        await asyncio.gather(*sent)
        os.kill(os.getpid(), signal.SIGKILL)
    return sent
l.send_all = dies
"""
"""The third transaction's records are acknowledged, and it is not committed."""
DIES_AT_A_COMMIT = """
import os, signal
from aiokafka.producer.sender import EndTxnHandler
real, calls = EndTxnHandler.handle_response, []
def dies(self, response):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, response)
EndTxnHandler.handle_response = dies
"""
"""The third transaction is committed, and whoever committed it never hears of it."""


@pytest.fixture
def other(broker: str, cache: Path, tmp_path: Path, empty: Deployment) -> Iterator[Deployment]:
    """A second deployment beside `deployment`."""
    name = empty.settings.topics.prefix[:30].rstrip(".-") + "-other"
    yield Deployment(broker, name, tmp_path, cache)


def events_file(folder: Path, n: int, seed: int = 0, name: str = "events.csv") -> Path:
    """n events of 50 users in time order, several a second."""
    rng = np.random.default_rng(seed)
    actions = ("view", "click", "buy")
    lines = (
        f"u{user},i{item},{actions[action]},{START + 250 * i // 1000 * 1000},{value / 100}"
        for i, (user, item, action, value) in enumerate(rng.integers((50, 20, 3, 10_000), size=(n, 4)).tolist())
    )
    path = folder / name
    path.write_text("user,item,action,ts,value\n" + "".join(f"{line}\n" for line in lines))
    return path


def replay(deployment: Deployment, *arguments: str, prelude: str = SMALL) -> Ran:
    """`eddyline replay` until it ends."""
    fork, log = begun(deployment, *arguments, prelude=prelude)
    code = fork.wait(120)
    return Ran(code, log.read_text())


def begun(deployment: Deployment, *arguments: str, prelude: str = SMALL) -> tuple[Fork, Path]:
    log = deployment.folder / f"replay-{len(list(deployment.folder.glob('replay-*')))}.log"
    return Fork(["replay", *arguments], {**os.environ, **deployment.environ}, log, prelude), log


def contents(deployment: Deployment) -> dict[tuple[str, int], list[tuple]]:
    """Each partition of the input topics, record by record; topics by their actions."""
    found: dict[tuple[str, int], list[tuple]] = defaultdict(list)
    for action, topic in deployment.settings.input.topics.items():
        for r in deployment.records(topic):
            found[action, r.partition].append((r.key, r.value, r.timestamp, r.headers))
    return found


def position(deployment: Deployment) -> dict[str, Any]:
    return json.loads(deployment.records(deployment.settings.topics.replays)[-1].value)


def test_a_replay_that_is_killed_twice_equals_one_that_was_not(deployment: Deployment, other: Deployment) -> None:
    data = events_file(deployment.folder, 4000)
    whole = replay(other.create([]), str(data))
    assert whole.code == 0 and "4000 events published" in whole.output
    assert replay(deployment, str(data), prelude=SMALL + DIES_BEFORE_A_COMMIT).code == -signal.SIGKILL
    ran = replay(deployment, str(data), prelude=SMALL + DIES_AT_A_COMMIT)
    assert ran.code == -signal.SIGKILL and "goes on after 800 records" in ran.output
    ran = replay(deployment, str(data), "--json")
    assert ran.code == 0 and "goes on after 2000 records" in ran.output, ran.output
    told = json.loads(ran.output[ran.output.index("{") :])
    assert (told["published"], told["in_all"], told["finished"]) == (2000, 4000, True)
    expected = contents(other)
    assert contents(deployment) == expected
    ts = [record[2] for records in expected.values() for record in records]
    assert sorted(ts) == [START + 250 * i // 1000 * 1000 for i in range(4000)]
    for (_, partition), records in expected.items():
        assert records == sorted(records, key=lambda record: record[2])
        assert all(partition_of(key.decode(), PARTITIONS) == partition for key, *_ in records)


def test_what_was_published_is_not_published_again_unless_that_is_asked_for(deployment: Deployment) -> None:
    data = str(events_file(deployment.folder, 1000))
    assert replay(deployment, data).code == 0
    ran = replay(deployment, data)
    assert ran.code == 0 and "had published all 1000 before; --restart" in ran.output
    assert sum(map(len, contents(deployment).values())) == 1000
    assert replay(deployment, data, "--restart").code == 0
    assert sum(map(len, contents(deployment).values())) == 2000


def test_a_source_or_a_topic_that_is_not_what_it_was_is_refused(deployment: Deployment) -> None:
    data = events_file(deployment.folder, 1000)
    assert replay(deployment, str(data), "--name", "mine").code == 0
    assert (
        "was begun otherwise: until is 7d and was None"
        in replay(deployment, str(data), "--name", "mine", "--until", "7d").output
    )
    before = data.read_text()
    events_file(deployment.folder, 1200)
    ran = replay(deployment, str(data), "--name", "mine")
    assert ran.code == 6 and "has changed since 1000 records of mine were published" in ran.output
    moved = data.with_name("moved.csv")
    moved.write_text(before)
    assert "mine had published all 1000 before" in replay(deployment, str(moved), "--name", "mine").output
    click = deployment.settings.input.topics["click"]
    run(made_anew(deployment, click))
    ran = replay(deployment, str(moved), "--name", "mine")
    assert ran.code == 6 and f"{click} is not the topic" in ran.output and "made anew" in ran.output


def test_a_topic_that_will_not_keep_history_is_told_of(deployment: Deployment) -> None:
    view = deployment.settings.input.topics["view"]
    kafka, week = deployment.settings.kafka, 604_800_000
    run(topics_io.configure(deployment.settings, view, {"retention.ms": str(week)}))
    inputs = deployment.settings.input.names
    until(lambda: run(retention_ms(kafka, inputs)) == {view: week}, 30, "one topic keeps a week, the others all")
    ran = replay(deployment, str(events_file(deployment.folder, 100)))
    assert ran.code == 0 and f"{view} (retention.ms={week}); raise retention.ms" in ran.output


async def made_anew(deployment: Deployment, topic: str) -> None:
    kafka = deployment.settings.kafka
    async with admin(kafka) as client:
        await client.delete_topics([topic])
        while topic in await client.list_topics():
            await asyncio.sleep(0.1)
    await topics.create(kafka, [topics.TopicSpec(topic, PARTITIONS)])


def test_a_range_ends_before_its_end_and_goes_on_as_it_began(deployment: Deployment) -> None:
    """Durations count from now; a replay that goes on keeps what they meant when it began."""
    data = str(events_file(deployment.folder, 4000))
    since, end = START + 100_000, START + 600_000
    arguments = (data, "--since", str(since), "--until", "2023-11-14T22:23:20")
    assert replay(deployment, *arguments, prelude=SMALL + DIES_AT_A_COMMIT).code == -signal.SIGKILL
    assert replay(deployment, *arguments).code == 0
    ts = sorted(record[2] for records in contents(deployment).values() for record in records)
    assert (ts[0], ts[-1], len(ts)) == (since, end - 1000, 2000)
    ran = replay(deployment, data, "--since", "7d")
    assert ran.code == 6 and "no events from" in ran.output and "2023-11-14T22:13:20" in ran.output


def test_bad_lines_are_told_before_anything_is_published_or_counted_and_left_out(deployment: Deployment) -> None:
    data = events_file(deployment.folder, 1000)
    with data.open("a") as file:
        file.write("u1,i1,stare,1800000000000,\n")
    ran = replay(deployment, str(data))
    assert ran.code == 6 and "events.csv:1002: unknown action 'stare'" in ran.output
    assert not contents(deployment)
    ran = replay(deployment, str(data), "--skip-bad")
    assert ran.code == 0 and "1 lines are no event" in ran.output and "1000 events published" in ran.output


def test_ctrl_c_finishes_what_is_under_way_and_says_how_to_go_on(deployment: Deployment) -> None:
    """A thousand seconds of history, in the rhythm of life."""
    data = str(events_file(deployment.folder, 4000))
    fork, log = begun(deployment, data, "--speed", "1x")
    until(lambda: contents(deployment), 60, "the first events are there")
    fork.send_signal(signal.SIGINT)
    assert fork.wait(30) == 130
    assert "the same command goes on from there" in log.read_text()
    done = position(deployment)["published"]
    assert 0 < done < 4000 and sum(map(len, contents(deployment).values())) == done
    assert replay(deployment, data).code == 0
    assert sum(map(len, contents(deployment).values())) == 4000


def test_a_second_replay_of_the_name_takes_over_from_the_first(deployment: Deployment) -> None:
    data = str(events_file(deployment.folder, 4000))
    first, log = begun(deployment, data, "--speed", "1x")
    until(lambda: contents(deployment), 60, "the first events are there")
    assert replay(deployment, data).code == 0
    assert first.wait(30) == 6 and "another replay called" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert sum(map(len, contents(deployment).values())) == 4000


def test_what_was_replayed_is_read_to_its_end(deployment: Deployment) -> None:
    """The logs end with the markers of transactions: nobody may wait for a record there."""
    data = events_file(deployment.folder, 1000)
    assert replay(deployment, str(data)).code == 0
    ran = deployment.cli("backfill", "--as", "v2")
    assert ran.code == 0 and "has caught up" in ran.output
    rows = [line.split(",") for line in data.read_text().splitlines()[1:]]
    check_windows(
        deployment.with_state("v2"), [Sent(user, item, action, int(ts)) for user, item, action, ts, _ in rows]
    )


# Topics


def old_records(n: int) -> list[tuple[int, Out]]:
    """Records of any kind, each partition nearly in time order."""
    rng = np.random.default_rng(4)
    out: list[tuple[int, Out]] = []
    for i, (user, late) in enumerate(rng.integers((40, 3000), size=(n, 2)).tolist()):
        key = None if i % 97 == 0 else f"u{user}".encode()
        value = None if i % 89 == 0 else f"any bytes {i}".encode()
        headers = [("n", str(i).encode()), ("n", b""), ("content-type", b"\xff")][: i % 4]
        out.append((i % PARTITIONS, Out(key, value, headers, START + 1000 * i - late)))
    return out


async def fill(deployment: Deployment, topic: str, records: list[tuple[int, Out]], partitions: int) -> None:
    kafka = deployment.settings.kafka
    await topics.create(kafka, [topics.TopicSpec(topic, partitions, {"retention.ms": "-1"})])
    async with producer(kafka) as client:
        for partition in range(partitions):
            await asyncio.gather(*await send(client, topic, partition, [out for p, out in records if p == partition]))


def test_a_range_of_a_topic_is_published_as_it_is_and_goes_on_where_it_was_killed(deployment: Deployment) -> None:
    old, records = deployment.settings.topics.named("old"), old_records(3000)
    run(fill(deployment, old, records, PARTITIONS))
    since, end = START + 500_000, START + 2_900_000
    arguments = (f"topic:{old}=click", "--since", str(since), "--until", str(end))
    assert replay(deployment, *arguments, prelude=SMALL + DIES_BEFORE_A_COMMIT).code == -signal.SIGKILL
    assert replay(deployment, *arguments, prelude=SMALL + DIES_AT_A_COMMIT).code == -signal.SIGKILL
    ran = replay(deployment, *arguments)
    assert ran.code == 0 and "goes on after 2000 records" in ran.output and "400 events published" in ran.output
    found = contents(deployment)
    for partition in range(PARTITIONS):
        expected = [out for p, out in records if p == partition and since <= (out.timestamp or 0) < end]
        got = found["click", partition]
        assert [(key, value, ts, list(headers)) for key, value, ts, headers in got] == [
            (out.key, out.value, out.timestamp, out.headers or []) for out in expected
        ]


def test_topics_are_merged_by_time_and_go_on_with_what_came_since(deployment: Deployment, other: Deployment) -> None:
    """Into topics of one partition, so that the order of all is seen; what is new is published by the same command."""
    named = deployment.settings.topics.named
    views = [(i % 3, Out(f"u{i}".encode(), b"view", [], START + 2000 * i)) for i in range(900)]
    clicks = [(i % 2, Out(f"u{i}".encode(), b"click", [], START + 2000 * i + 1000)) for i in range(900)]
    run(fill(deployment, named("a"), views, 3))
    run(fill(deployment, named("b"), clicks, 2))
    single = named("single")
    run(topics.create(deployment.settings.kafka, [topics.TopicSpec(single, 1)]))
    deployment.environ["EDDYLINE_INPUT__TOPICS__CLICK"] = single
    source = f"topic:{named('a')}=click,{named('b')}=click"
    assert replay(deployment, source).code == 0
    found = [(r.timestamp, r.key) for r in deployment.records(single)]
    assert found == [(START + 1000 * i, f"u{i // 2}".encode()) for i in range(1800)]
    run(fill(deployment, named("a"), [(0, Out(b"u9", b"view", [], START + 2_000_000))], 3))
    ran = replay(deployment, source)
    assert ran.code == 0 and "1 events published" in ran.output
    assert len(deployment.records(single)) == 1801


def test_a_topic_is_not_published_into_itself_and_a_missing_one_is_named(deployment: Deployment) -> None:
    click = deployment.settings.input.topics["click"]
    ran = replay(deployment, f"topic:{click}")
    assert ran.code == 3 and "into itself" in ran.output and "--from-bootstrap-servers" in ran.output
    ran = replay(deployment, "topic:nowhere=click")
    assert ran.code == 4 and "topics are missing: nowhere" in ran.output
    ran = replay(deployment, f"topic:{deployment.settings.topics.control}=click")
    assert ran.code == 6 and "no events from the first until the last" in ran.output
    ran = replay(deployment, f"topic:{deployment.settings.topics.catalog}=click", "--until", "2020-01-01")
    assert ran.code == 6 and "no events from the first until 2020-01-01T00:00:00" in ran.output


def test_records_that_are_gone_before_they_came_next_are_told_and_not_passed_over(deployment: Deployment) -> None:
    old, kafka = deployment.settings.topics.named("old"), deployment.settings.kafka
    run(fill(deployment, old, old_records(1600), PARTITIONS))
    source = f"topic:{old}=buy"
    assert replay(deployment, source, prelude=SMALL + DIES_AT_A_COMMIT).code == -signal.SIGKILL

    async def delete() -> None:
        async with admin(kafka) as client:
            await client.delete_records({TopicPartition(old, 2): RecordsToDelete(390)})

    run(delete())
    ran = replay(deployment, source)
    assert ran.code == 6 and f"records of {old}/2 that were to come next are gone" in ran.output
    assert sum(map(len, contents(deployment).values())) == 1200
    assert replay(deployment, source, "--restart").code == 0
    assert sum(map(len, contents(deployment).values())) == 1200 + 1600 - 390


def test_topics_of_another_cluster_are_reached_by_its_address(deployment: Deployment, broker: str) -> None:
    """Here by another address of the same one, which is noticed where a topic would go into itself."""
    elsewhere = ("--from-bootstrap-servers", broker.replace("127.0.0.1", "localhost"))
    old = deployment.settings.topics.named("old")
    run(fill(deployment, old, old_records(40), PARTITIONS))
    assert "into itself" in replay(deployment, "topic:*", *elsewhere).output
    ran = replay(deployment, f"topic:{old}=view", *elsewhere)
    assert ran.code == 0 and "40 events published" in ran.output


def test_a_transaction_of_another_replay_hides_no_position(deployment: Deployment) -> None:
    """Readers of committed records see nothing behind an open transaction: an older position would be taken for the
    newest, and what it does not count be published twice."""
    s = deployment.settings
    topic = s.topics.replays

    def at(n: int) -> Position:
        return Position(asked={}, content={}, targets={}, since=None, until=None, published=n)

    async def scene() -> tuple[bool, Position | None]:
        async with ledger(s.kafka, topic, "mine") as book:
            await book.write([], at(1))
            async with producer(s.kafka, transactional_id=f"{topic}-other") as other:
                await other.begin_transaction()
                await other.send_and_wait(topic, b"{}", key=b"other", partition=0)
                await book.write([], at(2))
                reading = asyncio.ensure_future(book.read())
                done, _ = await asyncio.wait([reading], timeout=2)
                await other.commit_transaction()
                return bool(done), await reading

    early, found = run(scene())
    assert not early and found is not None and found.published == 2
