"""What a restore meets in changelogs: rows of users who left, logs that end in nothing."""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from stream.kafka.clients import admin
from stream.kafka.placing import partition_of
from stream.messages import InteractionReason
from tests.pipeline.harness import Deployment, Sent, check_windows, run, some_events, until
from tests.pipeline.topics_io import PARTITIONS

DAY = 86_400_000
START = 1_700_000_000_000


def test_users_idle_for_long_leave_and_count_once_when_events_are_read_again(deployment: Deployment) -> None:
    """Killed as they leave, and once more after: who has left begins anew, and nobody's events count twice."""
    patient = {"EDDYLINE_STATE__HISTORY_TTL_MS": str(DAY), "EDDYLINE_STATE__ALLOWED_LATENESS_MS": "60000"}
    old = some_events(1500, users=200)
    new = some_events(1500, users=40, seed=1, start=START + 30 * DAY)
    staying = {event.user for event in new}
    worker = deployment.worker(**patient).ready()
    deployment.send(old)
    deployment.settled()
    deployment.send(new)
    until(lambda: worker.status().get("users_left", {}).get("idle", 0) > 0, 60, "users begin to leave")
    worker.kill()
    second = deployment.worker(**patient).ready()
    until(lambda: second.status().get("users", 0) == len(staying), 60, "all who are idle have left")
    deployment.settled()
    second.kill()
    third = deployment.worker(**patient).ready()
    assert third.status()["users"] == len(staying)
    deployment.settled()
    back = [Sent(f"u{n}", "i1", "click", START + 31 * DAY - DAY // 2 + n) for n in range(100, 110)]
    deployment.send(back)
    deployment.settled()
    check_windows(deployment, new + back)
    assert third.stop() == 0


def test_beyond_a_cap_those_idle_longest_leave_and_an_old_interaction_is_of_no_window(deployment: Deployment) -> None:
    """Both by event time, and after a restart as before."""
    cap = 10
    limits = {"EDDYLINE_STATE__MAX_USERS": str(cap), "EDDYLINE_STATE__WINDOW_TTL_MS": str(DAY // 24)}
    events = [Sent(f"u{n}", "i1", "click", START + 1000 * n) for n in range(200)]
    events.append(Sent("u199", "i7", "click", START + DAY))
    kept = {user for p in range(PARTITIONS) for user in members(events, p)[-cap:]}
    worker = deployment.worker(**limits).ready()
    deployment.send(events)
    deployment.settled()
    until(lambda: worker.status()["users"] == len(kept), 60, "all beyond the cap have left")
    assert worker.status()["users_left"] == {"idle": 0, "beyond_cap": 200 - len(kept)}
    until(lambda: 0 < worker.status()["profiles_kept"] <= len(kept), 60, "their profiles went with them")
    (newest,) = (one for one in deployment.lists() if one.user == "u199" and one.source.ts == START + DAY)
    reasons = [reason for item in newest.items for reason in item.reasons]
    assert {reason.item for reason in reasons if isinstance(reason, InteractionReason)} == {"i7"}
    worker.kill()
    deployment.settled()
    check_windows(deployment, [event for event in events if event.user in kept])
    worker = deployment.worker(**limits).ready()
    assert worker.status()["users"] == len(kept)
    assert worker.stop() == 0


def members(events: list[Sent], partition: int) -> list[str]:
    """The users of a partition, those idle longest first."""
    last = {event.user: event.ts for event in events if partition_of(event.user, PARTITIONS) == partition}
    return sorted(last, key=last.__getitem__)


def test_changelogs_that_are_emptied_or_were_never_written_are_restored(deployment: Deployment) -> None:
    """Nothing is there to be delivered, though the log's end is far: a restore must not wait for it."""
    s = deployment.settings
    topics = [s.topics.windows(s.state.name), s.topics.trends(s.state.name)]
    worker = deployment.worker().ready()
    assert worker.stop() == 0
    worker = deployment.worker().ready()  # never written
    deployment.send(some_events(300, users=20))
    deployment.settled()
    assert worker.stop() == 0

    async def empty() -> None:
        async with admin(s.kafka) as client:
            config = {"cleanup.policy": "delete"}  # or the broker refuses to delete records
            await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, t, config) for t in topics])
            every = [TopicPartition(topic, p) for topic in topics for p in range(PARTITIONS)]
            await client.delete_records({tp: RecordsToDelete(before_offset=-1) for tp in every})

    run(empty())
    assert all(deployment.records(topic) == [] for topic in topics)
    worker = deployment.worker().ready()
    assert worker.status()["users"] == 0
    assert worker.stop() == 0


def test_a_changelog_that_ends_in_tombstones_restores_to_what_is_left(deployment: Deployment) -> None:
    """Users who left are deleted by their tombstones, whatever compaction has made of the rows before them."""
    s = deployment.settings
    events = some_events(300, users=20)
    worker = deployment.worker().ready()
    deployment.send(events)
    deployment.settled()
    assert worker.stop() == 0
    windows = s.topics.windows(s.state.name)
    last = {(record.partition, record.key) for record in deployment.records(windows)}
    gone = {key for _, key in last if key != b"u3"}
    for partition in range(PARTITIONS):
        mine = [(key, None) for where, key in sorted(last) if where == partition and key in gone]
        deployment.send_raw_to(windows, partition, mine)
    worker = deployment.worker().ready()
    assert worker.status()["users"] == 1
    more = some_events(300, users=20, seed=1, start=START + DAY)
    deployment.send(more)
    deployment.settled()
    check_windows(deployment, [e for e in events if e.user == "u3"] + more)
    assert worker.stop() == 0
