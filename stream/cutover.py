"""Cut-over: one state version falls silent, and another answers from exactly there on; and back.

    1. wait    until the one that is to answer has read as far as the one that does
    2. ask     write the turn (`stream.answers.control`): who answers is to fall silent
    3. cut     wait until every partition of it has noted that it is silent, and from which offset on (`stream.kafka.
               debts`); where none of its workers is left, note it for them
    4. give    write the turn as given, with those offsets: the other one answers from there

Each step is a record or a note, and running the command again looks at what is there and goes on, or goes back. What
workers do about it is in `stream.answers.turns` and `stream.answers.debts`. Two commands at once cannot both write:
the later one fences the earlier by a transactional id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import CommitFailedError, InvalidProducerEpoch, ProducerFenced
from aiokafka.structs import OffsetAndMetadata
from faust.types import TP

from stream.answers.control import TURN, Turn, turn_heard
from stream.answers.turns import taken
from stream.errors import StateError
from stream.kafka.clients import admin, consumer, producer
from stream.kafka.debts import Note, has_members, note, noted, offsets_of
from stream.kafka.follow import newest_by_key
from stream.kafka.topics import topic_partitions
from stream.settings import Settings

log = logging.getLogger(__name__)

POLL_S = 0.05
"""How often it is asked what partitions have noted: a part of the time in which nobody is answered."""
LEFT_S = 2.0
"""How long a group must have had no member before its partitions are noted silent for it: a worker may be starting."""
NEAR_S = 10.0
"""Who has read in so many seconds what the other had read at their beginning is as far as it."""

TELL_S = 2.0
"""How often it is told what is waited for."""

Tell = Callable[[str], None]


class Step(Enum):
    """What is to be done, as the last turn that was written leaves it."""

    ASK = "ask"
    GO_ON = "go on"
    GO_BACK = "go back"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Group:
    """One state version's group: what it has committed and noted, and whether it has members."""

    name: str
    offsets: Mapping[TP, int] = field(default_factory=dict)
    notes: Mapping[TP, Note] = field(default_factory=dict)
    members: bool = False

    def heeds(self, turn: int, count: int) -> bool:
        """Whether every one of `count` partitions has taken note of a turn."""
        gone_along = taken(self.notes)
        return all(gone_along.get(p, 0) >= turn for p in range(count))


@dataclass(frozen=True, slots=True)
class Plan:
    """What there is, and what follows from it.

    before, speaker: who answers, and who is to; behind: how many offsets of events the latter has read less.
    """

    before: Group
    speaker: Group
    turn: Turn | None
    step: Step
    behind: int

    @property
    def highest(self) -> int:
        """The greatest number of a turn that partitions have noted."""
        return max([0, *(said.turn for group in (self.before, self.speaker) for said in group.notes.values())])


# Decisions


def next_step(turn: Turn | None, before: str, speaker: str) -> Step:
    """What is to be done so that `speaker` answers where `before` did.

    Raises:
        StateError: it is not `before` that answers, or a cut-over of others is under way.
    """
    if turn is None:
        return Step.ASK
    if turn.given:
        if turn.speaker == speaker:
            return Step.NOTHING
        if turn.speaker == before:
            return Step.ASK
        raise StateError(
            f"state {turn.speaker} is the one that answers, and not {before}",
            f"cut over from it: eddyline cut-over --from {turn.speaker} --to {speaker}",
        )
    if turn.speaker == speaker and turn.before == before:
        return Step.GO_ON
    if turn.before == speaker and turn.speaker == before:
        return Step.GO_BACK
    raise StateError(
        f"a cut-over from {turn.before} to {turn.speaker} is under way",
        f"run it again to finish it: eddyline cut-over --from {turn.before} --to {turn.speaker} --execute, "
        "or with --rollback, which goes back",
    )


def less(goal: Mapping[TP, int], at: Mapping[TP, int], topics: Set[str]) -> int:
    """How many offsets `at` is behind `goal`, in those of `topics` that it has read at all."""
    topics = topics & {tp.topic for tp in at}
    return sum(max(0, offset - at.get(tp, 0)) for tp, offset in goal.items() if tp.topic in topics)


def asked(turn: Turn | None, highest: int, before: str, speaker: str, now_ms: int) -> Turn:
    """The turn by which `before` is to fall silent; highest: the greatest number that is written anywhere."""
    began, floor = (turn.began, turn.floor) if turn is not None else (0, {})
    return Turn(1 + max(highest, turn.number if turn else 0), speaker, before, False, began, floor, now_ms)


def given(turn: Turn, cut: Mapping[str, list[int]], now_ms: int) -> Turn:
    """A turn that was asked for, given: `speaker` answers from the cut on."""
    return Turn(turn.number, turn.speaker, turn.before, True, turn.number, cut, now_ms)


def taken_back(turn: Turn, now_ms: int) -> Turn:
    """Instead of a turn that was asked for: who answered goes on, each partition from where it had fallen silent."""
    return Turn(turn.number + 1, turn.before, turn.speaker, True, turn.began, turn.floor, now_ms)


def first_unanswered(turn: Turn, tp: TP, offset: int, said: Note, answered_since: int) -> int:
    """From which offset on a silent partition has answered nothing, by what it has committed and noted.

    answered_since: the last turn that it has taken note of. Where that is from before it was to answer, nothing from
    its floor on is answered, and whatever it had noted in a silence before was another's.
    """
    floor = turn.floor_of(*tp)
    if answered_since < turn.began:
        return floor
    return max(floor, offset if said.first is None else said.first)


def cut_of(turn: Turn, before: Group, others: Mapping[TP, int]) -> dict[str, list[int]]:
    """The cut: topic -> offset by partition, from which `before` has answered nothing.

    others: topic partitions that only the other one reads, and where these begin to be answered.
    """
    at = {**others, **_unanswered(turn, before)}
    cut: dict[str, list[int]] = {}
    for topic in sorted({tp.topic for tp in at}):
        count = 1 + max(tp.partition for tp in at if tp.topic == topic)
        cut[topic] = [at.get(TP(topic, p), turn.floor_of(topic, p)) for p in range(count)]
    return cut


def _unanswered(turn: Turn, group: Group) -> dict[TP, int]:
    gone_along = taken(group.notes)
    return {
        tp: first_unanswered(turn, tp, offset, group.notes.get(tp, Note()), gone_along.get(tp.partition, 0))
        for tp, offset in group.offsets.items()
    }


# What there is, and what is written


class Board:
    """What the two groups have committed and noted, and the turn that is written, by clients that stay open."""

    def __init__(self, settings: Settings, client: AIOKafkaAdminClient, count: int) -> None:
        self.settings = settings
        self.count = count
        self.inputs = set(settings.input.names)
        self._client = client
        self._timeout_s = settings.kafka.request_timeout_ms / 1000

    async def plan(self, before: str, speaker: str) -> Plan:
        """What there is, and what is to be done.

        Raises:
            StateError: see `next_step`; or one of the two has never read these topics, or nobody runs who would answer.
        """
        if before == speaker:
            raise StateError(f"state {before} cannot take over from itself", "name two state versions")
        found = await newest_by_key(self.settings.kafka, self.settings.topics.control)
        turn = turn_heard([found[TURN]] if TURN in found else [])
        step = next_step(turn, before, speaker)
        groups = await self.group(before), await self.group(speaker)
        plan = Plan(*groups, turn, step, less(groups[0].offsets, groups[1].offsets, self.inputs))
        for group in (plan.before, plan.speaker):
            if not group.offsets:
                raise StateError(
                    f"state {group.name} has never read {', '.join(sorted(self.inputs))}",
                    f"build it from history: eddyline backfill --as {group.name}",
                )
        if plan.step is Step.ASK and not plan.speaker.members:
            raise StateError(
                f"no worker of state {speaker} runs: nobody would answer",
                f"start one, and run this again: eddyline worker --state {speaker} --silent",
            )
        return plan

    async def group(self, state: str) -> Group:
        """The group of a state version, in the topics that are read."""
        read = {*self.inputs, self.settings.topics.requests}
        found = await self.offsets(self.named(state))
        at = {TP(*tp): said for tp, said in found.items() if tp.topic in read and said.offset >= 0}
        return Group(
            state,
            {tp: said.offset for tp, said in at.items()},
            {tp: noted(said.metadata) for tp, said in at.items()},
            await self.members(self.named(state)),
        )

    async def offsets(self, group: str) -> dict[TopicPartition, Any]:
        return await offsets_of(self._client, group, self._timeout_s)

    async def members(self, group: str) -> bool:
        return await has_members(self._client, group, self._timeout_s)

    def named(self, state: str, role: str = "all") -> str:
        """The name of a state version's group."""
        version = self.settings.state.model_copy(update={"name": state})
        return self.settings.model_copy(update={"state": version, "role": role}).group

    async def note_for(self, turn: Turn, group: Group) -> None:
        """Note that partitions are silent, for workers that are not there; refused where one has come."""
        unanswered, kafka = _unanswered(turn, group), self.settings.kafka
        tps = await topic_partitions(kafka, {tp.topic for tp in group.offsets})
        async with consumer(kafka, group_id=self.named(turn.before)) as client:
            client.assign(tps)
            earliest = await client.beginning_offsets(tps)
            said: dict[TopicPartition, OffsetAndMetadata] = {}
            for tp in tps:
                offset = group.offsets.get(TP(*tp), earliest[tp])
                first = unanswered.get(TP(*tp), turn.floor_of(*tp))
                said[tp] = OffsetAndMetadata(offset, note(Note(first, turn.number), offset))
            try:
                await client.commit(said)
            except CommitFailedError:
                log.info("a worker of state %s has come", turn.before)

    async def begin_elsewhere(self, turn: Turn, before: Group) -> dict[TP, int]:
        """Topic partitions that only the other one reads, and where they begin to be answered: where they end, or
        where the one before began.
        """
        speaker = await self.group(turn.speaker)
        only = [TopicPartition(*tp) for tp in speaker.offsets.keys() - before.offsets.keys()]
        if not only:
            return {}
        async with consumer(self.settings.kafka) as client:
            ends = await client.end_offsets(only)
        return {TP(*tp): turn.floor_of(*tp) if tp.topic in turn.floor else end for tp, end in ends.items()}

    async def left_at(self, topic: str, group: str) -> int:
        """How many messages of a topic a group has not committed; 0 where it has never read it."""
        at = {tp: said.offset for tp, said in (await self.offsets(group)).items() if tp.topic == topic}
        if not at:
            return 0
        async with consumer(self.settings.kafka) as client:
            ends = await client.end_offsets(await topic_partitions(self.settings.kafka, [topic]))
        return sum(max(0, end - at.get(tp, 0)) for tp, end in ends.items())


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Board]:
    """A board. Raises TopicError where a topic is missing."""
    inputs = await topic_partitions(settings.kafka, settings.input.names)
    await topic_partitions(settings.kafka, [settings.topics.control])
    async with admin(settings.kafka) as client:
        yield Board(settings, client, 1 + max(tp.partition for tp in inputs))


async def write(client: AIOKafkaProducer, topic: str, turn: Turn) -> None:
    """Write a turn. Raises StateError where another command has begun to write since."""
    try:
        async with client.transaction():
            await client.send_and_wait(topic, msgspec.json.encode(turn), key=TURN, partition=0)
    except (ProducerFenced, InvalidProducerEpoch) as error:
        raise StateError("another cut-over command has begun since", "let that one finish") from error


# The steps


async def cut_over(settings: Settings, before: str, speaker: str, tell: Tell) -> Turn | None:
    """Make `speaker` answer where `before` did, going on, or back, from wherever an earlier run was cut short.

    Returns the turn as it is given; None where there was nothing to do.

    Raises:
        StateError: as `Board.plan`; or another command has begun since.
    """
    topic, name = settings.topics.control, f"{settings.topics.prefix}cut-over"
    async with opened(settings) as board, producer(settings.kafka, transactional_id=name) as client:
        plan = await board.plan(before, speaker)
        turn = plan.turn
        if plan.step is Step.NOTHING:
            return None
        if plan.step is Step.GO_BACK and turn is not None:
            turn = taken_back(turn, _now())
            await write(client, topic, turn)
            tell(f"state {speaker} goes on: {before} had not begun (turn {turn.number})")
        else:
            if plan.step is Step.ASK or turn is None:
                await near(board, before, speaker, tell)
                turn = asked(turn, plan.highest, before, speaker, _now())
                await write(client, topic, turn)
                tell(f"state {before} is asked to fall silent (turn {turn.number})")
            group = await silent(board, turn, tell)
            await handed_over(board, turn.before, tell)
            turn = given(turn, cut_of(turn, group, await board.begin_elsewhere(turn, group)), _now())
            await write(client, topic, turn)
        await begun(board, turn, tell)
        return turn


async def near(board: Board, before: str, speaker: str, tell: Tell) -> None:
    """Wait until `speaker` is as far as `before`, by what they commit."""
    while True:
        goal = (await board.group(before)).offsets
        began = told = time.monotonic()
        while left := less(goal, (await board.group(speaker)).offsets, board.inputs):
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                tell(f"state {speaker} is {left} offsets behind, and is waited for")
            await asyncio.sleep(POLL_S)
        if time.monotonic() - began < NEAR_S:
            return


async def silent(board: Board, turn: Turn, tell: Tell) -> Group:
    """Wait until who answered is silent; returns what it has noted."""
    left_since: float | None = None
    began = told = time.monotonic()
    while not (group := await board.group(turn.before)).heeds(turn.number, board.count):
        now = time.monotonic()
        left_since = None if group.members else left_since or now
        if left_since is not None and now - left_since >= LEFT_S:
            tell(
                f"no worker of state {turn.before} is left: the cut is what it has committed. What it answered after "
                "that, if it was killed, is answered again"
            )
            await board.note_for(turn, group)
            left_since = None
        if now - told > TELL_S:
            told = now
            tell(f"state {turn.before} still answers what it has taken in ({now - began:.0f} s)")
        await asyncio.sleep(POLL_S)
    tell(f"state {turn.before} is silent, after {time.monotonic() - began:.2f} s")
    return group


async def handed_over(board: Board, state: str, tell: Tell) -> None:
    """Where roles are apart, wait until all who were handed over are answered, or the newer list would come first."""
    topic, group = board.settings.topics.interests(state), board.named(state, "recommend")
    told = time.monotonic()
    while left := await board.left_at(topic, group):
        if not await board.members(group):
            tell(f"no recommend worker of state {state} is left: {left} messages are answered when one runs again")
            return
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            tell(f"state {state} still answers {left} messages that were handed over")
        await asyncio.sleep(POLL_S)


async def begun(board: Board, turn: Turn, tell: Tell) -> None:
    """Wait, bounded, until who is to answer has begun."""
    began = time.monotonic()
    while not (group := await board.group(turn.speaker)).heeds(turn.number, board.count):
        if not group.members or time.monotonic() - began > NEAR_S:
            tell(
                f"it is state {turn.speaker}'s turn, and it has not begun: see that its workers run "
                f"(eddyline worker --state {turn.speaker}); they answer all from the cut on"
            )
            return
        await asyncio.sleep(POLL_S)
    tell(f"state {turn.speaker} answers")


def _now() -> int:
    return int(time.time() * 1000)
