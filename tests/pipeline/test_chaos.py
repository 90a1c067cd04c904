"""The fault harness in its short form, and that it finds what it is there to find. `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.report import Result
from tests.chaos.run import Chaos, Plan

COMMITS_BEFORE_IT_FLUSHES = """
from stream.kafka.transport import BatchConsumer
async def force_commit(self, topics=None, start_new_transaction=True):
    offsets = self._keeper.committable()
    ours = {tp: offset for tp, offset in offsets.items() if self._should_commit(tp, offset)}
    done = await self._commit_offsets(ours) if ours else False
    import asyncio
    self.flushed = getattr(self, "flushed", 0) + 1
    if self.flushed % 20 == 0:
        await self._keeper.flush()
    return done
BatchConsumer.force_commit = force_commit
"""


def survived(plan: Plan, folder: Path, cache: Path) -> Result:
    told: list[str] = []
    chaos = Chaos(plan, folder, cache, told.append)
    try:
        return chaos.run()
    finally:
        chaos.close()


def test_state_lists_and_letters_are_those_of_the_events_after_kills_freezes_and_a_broker_that_is_killed(
    tmp_path: Path, cache: Path
) -> None:
    """Of seed 30: three workers frozen and two killed, one added, a flood, and the broker killed, in two rounds."""
    only = ("worker killed", "worker frozen", "worker added", "broker killed", "flood")
    plan = Plan(seed=30, rate=150, users=200, faults=4, only=only, rounds=2, compact_every=0)
    result = survived(plan, tmp_path, cache)
    assert not result.wrong, result.told
    assert result.rounds == 2 and result.worker_faults >= 3 and result.faults["broker killed"] == 1
    assert result.events > 20_000 and result.lists > 500 and result.dead_letters > 0


def test_a_worker_that_commits_before_it_flushes_is_found(tmp_path: Path, cache: Path) -> None:
    only = ("worker killed",)
    plan = Plan(seed=5, rate=150, users=200, faults=3, only=only, rounds=2, defect=COMMITS_BEFORE_IT_FLUSHES)
    assert survived(plan, tmp_path, cache).wrong["offsets_wrong"] > 0
