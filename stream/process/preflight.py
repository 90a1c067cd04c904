"""What is made sure of before a worker starts: topics that fit together, and a state that is theirs.

Nothing here looks into the state or the events; shapes are `stream.kafka.topics`', origins `stream.process.origin`'s.
"""

from __future__ import annotations

from stream.errors import StateError
from stream.kafka.clients import consumer, producer
from stream.kafka.debts import offsets
from stream.kafka.follow import newest
from stream.kafka.identity import identity
from stream.kafka.topics import check_inputs
from stream.process.origin import Origin, rebuild
from stream.settings import Settings


async def ready_to_start(settings: Settings) -> int:
    """`check`, and that the state was kept over these very topics; one that begins now is bound to them.

    Raises:
        BrokerUnavailable, TopicError, StateError: with the remedy.
    """
    count = await check(settings)
    if settings.role == "recommend":  # it keeps no state
        return count
    await _refuse_lost_records(settings)
    now = Origin.of(await identity(settings.kafka, settings.input.topics.values()), count)
    topic = settings.topics.origin(settings.state.name)
    record = await newest(settings.kafka, topic)
    stored = record.value if record is not None else None
    origin = now.after(Origin.unpack(stored), settings.state.name) if stored else now
    if origin.pack() != stored:
        async with producer(settings.kafka) as client:
            await client.send_and_wait(topic, origin.pack(), b"origin", partition=0)
    return count


async def check(settings: Settings) -> int:
    """The partition count of this deployment, whose topics are there and fit together. Changes nothing.

    Raises:
        BrokerUnavailable, TopicError: with the remedy.
    """
    topics, state = settings.topics, settings.state.name
    alike = [
        topics.windows(state),
        topics.trends(state),
        topics.recommendations,
        topics.requests,
        topics.dead_letters,
        *([topics.shadow] if settings.shadowed else []),
        *([topics.feedback] if settings.reacts else []),
        *([topics.interests(state)] if settings.role != "all" else []),
    ]
    return await check_inputs(
        settings.kafka,
        settings.input.topics.values(),
        alike,
        [topics.catalog, topics.users, topics.release, topics.control, topics.origin(state)],
    )


async def _refuse_lost_records(settings: Settings) -> None:
    """Topics that end before what was read of them: Kafka would start over, and rows skip what they get."""
    found = await offsets(settings.kafka, settings.group)
    committed = {tp: at.offset for tp, at in found.items() if tp.topic in set(settings.input.topics.values())}
    if not committed:
        return
    async with consumer(settings.kafka) as client:
        ends = await client.end_offsets(committed)
    for tp, end in ends.items():
        if committed[tp] > end:
            state = settings.state.name
            raise StateError(
                f"{tp.topic}, partition {tp.partition}, ends at offset {end}, and state {state} has read up to "
                f"{committed[tp]}: records were lost, or the topic was put back from a copy",
                rebuild(state),
            )
