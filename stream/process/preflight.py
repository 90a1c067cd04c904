"""What is made sure of before a worker starts: an index that can be had, topics that fit together, and a state
that is theirs.

Nothing here looks into the state or the events; shapes are `stream.kafka.topics`', origins `stream.process.origin`'s.
"""

from __future__ import annotations

from importlib.util import find_spec

from index.config import NEEDS_MORE
from stream.errors import ConfigError, StateError
from stream.kafka.clients import consumer, producer
from stream.kafka.debts import offsets
from stream.kafka.follow import newest_by_key
from stream.kafka.identity import identity
from stream.kafka.topics import check_inputs
from stream.process.origin import KEY, Origin, rebuild
from stream.settings import Settings


async def ready_to_start(settings: Settings) -> int:
    """`check`, and that the state was kept over these very topics; one that begins now is bound to them.

    Raises:
        ConfigError, BrokerUnavailable, TopicError, StateError: with the remedy.
    """
    check_index(settings)
    count = await check(settings)
    if settings.role == "recommend":  # it keeps no state
        return count
    await _refuse_lost_records(settings)
    now = Origin.of(await identity(settings.kafka, settings.input.names), count)
    topic = settings.topics.origin(settings.state.name)
    record = (await newest_by_key(settings.kafka, topic)).get(KEY)
    stored = record.value if record is not None else None
    origin = now.after(Origin.unpack(stored), settings.state.name) if stored else now
    if origin.pack() != stored:
        async with producer(settings.kafka) as client:
            await client.send_and_wait(topic, origin.pack(), KEY, partition=0)
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
        settings.input.names,
        alike,
        [topics.catalog, topics.users, topics.release, topics.control, topics.origin(state)],
    )


def check_index(settings: Settings) -> None:
    """Raises ConfigError where there is no FAISS, or not what the kind of index that is set needs."""
    if settings.role == "ingest":
        return
    if find_spec("faiss") is None:
        raise ConfigError("FAISS is not installed", "pip install 'eddyline[cpu]', or [gpu] or [cuvs] in its place")
    if settings.index.kind not in NEEDS_MORE:
        return
    from index.choose import check as check_kind  # FAISS and torch are behind it

    try:
        check_kind(settings.index)
    except RuntimeError as error:
        remedy = "do so, or set index.kind to 'auto', which takes what can be had"
        raise ConfigError(f"index.kind is {settings.index.kind!r}: {error}", remedy) from error


async def _refuse_lost_records(settings: Settings) -> None:
    """Topics that end before what was read of them: Kafka would start over, and rows skip what they get."""
    found = await offsets(settings.kafka, settings.group)
    committed = {tp: at.offset for tp, at in found.items() if tp.topic in set(settings.input.names)}
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
