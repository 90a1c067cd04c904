"""A state is of its topics: topics made anew, cut short or widened stop the worker, which names the remedy."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewPartitions

from stream.kafka.clients import admin
from tests.pipeline.harness import Deployment, Worker, check_state, check_windows, run, some_events

REFUSED = 5
START = 1_700_100_000_000


def refused(worker: Worker) -> str:
    assert worker.process.wait(60) == REFUSED, worker.log.read_text()[-2000:]
    told = worker.log.read_text()
    assert "eddyline backfill --as NAME" in told and "Traceback" not in told
    return told


def lived(deployment: Deployment) -> None:
    """A state of 200 events."""
    worker = deployment.worker().ready()
    deployment.send(some_events(200, users=10))
    deployment.settled()
    assert worker.stop() == 0


def test_a_topic_that_was_made_anew_is_refused_and_a_backfill_goes_on(deployment: Deployment) -> None:
    lived(deployment)
    s = deployment.settings
    topic = s.input.topics["click"]

    async def delete() -> None:
        async with admin(s.kafka) as client:
            await client.delete_topics([topic])

    run(delete())
    deployment.create(items=[])
    new = some_events(200, users=10, seed=1, start=START)
    deployment.send(new)
    assert f"topic {topic} was deleted and made again" in refused(deployment.worker())

    second = deployment.with_state("anew")
    assert second.worker(command=("backfill", "--as", "anew")).process.wait(90) == 0
    clicks = {e for e in some_events(200, users=10) if e.action == "click"}
    check_windows(second, [e for e in some_events(200, users=10) if e not in clicks] + new)


def test_a_topic_that_ends_before_what_was_read_of_it_is_refused(deployment: Deployment) -> None:
    lived(deployment)
    s = deployment.settings
    tp = TopicPartition(s.input.topics["view"], 1)
    end = deployment.ends()[tp]

    async def commit() -> None:
        consumer = AIOKafkaConsumer(**s.kafka.consumer(), group_id=s.group)
        await consumer.start()
        consumer.assign([tp])
        await consumer.commit({tp: end + 50})
        await consumer.stop()

    run(commit())
    assert f"{tp.topic}, partition 1, ends at offset {end}, and state {s.state.name} has read up to {end + 50}" in (
        refused(deployment.worker())
    )


def test_more_partitions_are_refused(deployment: Deployment) -> None:
    lived(deployment)
    s = deployment.settings

    async def widen() -> None:
        async with admin(s.kafka) as client:
            mine = [t for t in await client.list_topics() if t.startswith(s.topics.prefix)]
            single = {s.topics.catalog, s.topics.release, s.topics.origin(s.state.name)}
            await client.create_partitions({t: NewPartitions(8) for t in mine if t not in single})

    run(widen())
    assert "kept over 4 partitions, and the input topics have 8" in refused(deployment.worker())


def test_a_restart_on_the_same_topics_goes_on(deployment: Deployment) -> None:
    lived(deployment)
    more = some_events(200, users=10, seed=2, start=START)
    deployment.worker().ready()
    deployment.send(more)
    deployment.settled()
    check_state(deployment, some_events(200, users=10) + more)
