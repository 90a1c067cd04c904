"""One topic as a platform team has it: without keys, placed by Java's hash and by librdkafka's, growing under way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from zlib import crc32

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import NewPartitions

from stream.kafka.clients import admin
from stream.kafka.debts import offsets
from stream.kafka.placing import partition_of
from stream.kafka.topics import TopicSpec, create, partitions, topic_partitions
from stream.process.keys import look, settled
from stream.rekey import group
from stream.settings import load
from tests.pipeline import topics_io
from tests.pipeline.harness import PARTITIONS, Deployment, Sent, check_answered, check_windows, run, some_events, until

SHAPE = """
[input.topics]
view = "{name}.all"
click = "{name}.all"
buy = "{name}.all"

[input.shapes."{name}.all"]
user = "$.uid"
item = "$.sku"
ts = "$.at"
action = "$.type"
"""
T0 = 1_700_000_000_000


@pytest.fixture
def shop(empty: Deployment) -> Deployment:
    """A deployment that reads one topic of another's making; nothing of ours is there yet."""
    name = empty.settings.state.name
    file = empty.folder / "eddyline.toml"
    file.write_text(SHAPE.format(name=name))
    empty.environ = {k: v for k, v in empty.environ.items() if "INPUT__TOPICS" not in k}
    empty.environ["EDDYLINE_CONFIG"] = str(file)
    empty.environ["EDDYLINE_KAFKA__METADATA_MAX_AGE_MS"] = "1000"
    empty.settings = load(environ=empty.environ)
    run(create(empty.settings.kafka, [TopicSpec(f"{name}.all", PARTITIONS)]))
    return empty


def publish(shop: Deployment, events: Sequence[Sent], count: int) -> None:
    """A third without a key, wherever; a third placed by CRC32, a third by murmur2."""
    by: dict[int, list[tuple[bytes | None, bytes]]] = {}
    for n, e in enumerate(events):
        value = json.dumps({"uid": e.user, "sku": e.item, "at": e.ts, "type": e.action}).encode()
        user = int(e.user[1:])
        key = e.user.encode() if user % 3 else None
        at = {0: n % count, 1: crc32(e.user.encode()) % count, 2: partition_of(e.user, count)}[user % 3]
        by.setdefault(at, []).append((key, value))
    for at, records in by.items():
        run(topics_io.send_raw_to(shop.settings, f"{shop.settings.state.name}.all", at, topics_io.outs(records)))


def moved(shop: Deployment) -> None:
    """Wait until all is re-keyed, applied and answered. From here on the deployment's input is our own topic."""

    async def behind() -> int:
        written = load(environ=shop.environ)
        tps = await topic_partitions(written.kafka, written.input.names)
        committed = await offsets(written.kafka, group(written.topics))
        ends = await topics_io.ends(written, written.input.names)
        return sum(max(0, ends[tp] - (committed[tp].offset if tp in committed else 0)) for tp in tps)

    until(lambda: run(behind()) == 0, 60, "all is re-keyed")
    shop.settings = run(settled(load(environ=shop.environ)))[0]
    last: dict[int, int] = {}  # a log's end is behind a transaction's marker, which is never delivered
    for record in shop.records(shop.settings.topics.events):
        last[record.partition] = record.offset
    topic = shop.settings.topics.events

    def applied() -> bool:
        committed = shop.committed()
        return all((committed.get(TopicPartition(topic, p)) or 0) > offset for p, offset in last.items())

    until(applied, 60, "all is applied and answered")


async def _widen(shop: Deployment, count: int) -> None:
    async with admin(shop.settings.kafka) as client:
        await client.create_partitions({f"{shop.settings.state.name}.all": NewPartitions(count)})


def test_events_without_keys_or_of_other_hashes_are_each_in_one_window_whatever_is_killed(shop: Deployment) -> None:
    events = some_events(900, users=30, mixed=True)
    publish(shop, events[:300], PARTITIONS)
    created = shop.cli("topics", "create", "--execute")
    assert created.code == 0 and "are re-keyed into" in created.output and ".events" in created.output
    shop.create_items()
    killed = shop.worker().ready()
    until(lambda: killed.status().get("rekeyed", 0) > 0, 60, "re-keying is under way")
    publish(shop, events[300:450], PARTITIONS)
    killed.kill()
    run(_widen(shop, PARTITIONS + 2))
    publish(shop, events[450:600], PARTITIONS + 2)
    killed = shop.worker().ready()
    publish(shop, events[600:750], PARTITIONS + 2)
    killed.kill()
    shop.worker().ready()
    shop.worker().ready()
    publish(shop, events[750:], PARTITIONS + 2)
    moved(shop)
    check_windows(shop, events)
    check_answered(shop)
    assert len(shop.records(shop.settings.topics.events)) == len(events), "an event was copied twice"
    assert set(run(partitions(shop.settings.kafka, [shop.settings.topics.events])).values()) == {PARTITIONS}


def test_what_cannot_be_read_is_a_dead_letter_of_where_it_was(shop: Deployment) -> None:
    publish(shop, some_events(30, users=3), PARTITIONS)
    assert shop.cli("topics", "create", "--execute").code == 0
    shop.create_items()
    shop.worker().ready()
    topic = f"{shop.settings.state.name}.all"
    run(_widen(shop, PARTITIONS + 2))
    run(topics_io.send_raw_to(shop.settings, topic, PARTITIONS + 1, topics_io.outs([(b"k", b"no event")])))
    moved(shop)
    (letter,) = shop.records(shop.settings.topics.dead_letters)
    headers = dict(letter.headers)
    assert letter.value == b"no event" and headers["kafka_dlt-original-topic"] == topic.encode()
    assert int.from_bytes(headers["kafka_dlt-original-partition"], "big") == PARTITIONS + 1


def test_topics_whose_users_are_where_they_belong_are_read_as_they_are(deployment: Deployment) -> None:
    deployment.send(some_events(60, users=8))
    finding = run(look(deployment.settings))
    assert not finding.needed, finding.why


def test_a_state_stays_with_the_topics_that_it_was_begun_with(deployment: Deployment) -> None:
    worker = deployment.worker().ready()
    assert worker.stop() == 0
    name = deployment.settings.input.topics["view"]
    value = json.dumps({"user": "u1", "item": "i1", "ts": T0}).encode()
    wrong = (partition_of("u1", PARTITIONS) + 1) % PARTITIONS
    run(topics_io.send_raw_to(deployment.settings, name, wrong, topics_io.outs([(b"u1", value)])))
    assert not run(look(deployment.settings)).needed
    finding = run(look(deployment.with_state("v2").settings))
    assert finding.needed and f"1 records of {name} 1 are not where" in finding.why
    assert TopicPartition(name, wrong) in deployment.ends()


def test_a_backfill_reads_what_is_re_keyed_and_what_was_not_yet_is_first(shop: Deployment) -> None:
    events = some_events(400, users=20, mixed=True)
    publish(shop, events[:300], PARTITIONS)
    assert shop.cli("topics", "create", "--execute").code == 0
    first = shop.worker(command=("backfill", "--as", shop.settings.state.name))
    assert first.process.wait(90) == 0, first.log.read_text()[-3000:]
    publish(shop, events[300:], PARTITIONS)
    second = shop.with_state(f"{shop.settings.state.name}-2")
    again = second.worker(command=("backfill", "--as", second.settings.state.name))
    assert again.process.wait(90) == 0, again.log.read_text()[-3000:]
    second.settings = run(settled(second.settings))[0]
    check_windows(second, events)
    assert len(second.records(second.settings.topics.events)) == len(events)
    on = shop.worker(command=("backfill", "--as", shop.settings.state.name))  # to what is there by now
    assert on.process.wait(90) == 0, on.log.read_text()[-3000:]
    verified = second.cli("verify", "--as", second.settings.state.name, "--against", shop.settings.state.name)
    assert verified.code == 0, verified.output
