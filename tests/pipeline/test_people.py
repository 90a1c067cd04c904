"""Users who are described: published by the command, followed by workers, forgotten by a tombstone."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream.kafka.placing import partition_of
from tests.pipeline.harness import ITEMS, PARTITIONS, Deployment, until
from tests.pipeline.test_errors import CONFIG, check_told

USERS = "user,side,interests\nada,left,i3|river\nben,right,\ncid,left,i5\n"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A small data set of one's own: a folder, with users."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text("item,title\n" + "".join(f"{i.item},{i.title}\n" for i in ITEMS))
    rows = "".join(f"u{n % 5},i{n % 20},click,{1_700_000_000_000 + 1000 * n}\n" for n in range(60))
    (folder / "events.csv").write_text("user,item,action,ts\n" + rows)
    (folder / "users.csv").write_text(USERS)
    return folder


def test_users_are_published_where_their_events_are(deployment: Deployment, shop: Path) -> None:
    topic = deployment.settings.topics.users
    check_told(deployment.cli("users", "publish", str(shop)), 0, f"3 users published to {topic}")
    found = {record.key.decode(): record for record in deployment.records(topic)}
    assert found.keys() == {"ada", "ben", "cid"}
    assert msgspec.json.decode(found["ada"].value) == {
        "user": "ada",
        "attributes": {"side": "left"},
        "interests": ["i3", "river"],
    }
    assert all(record.partition == partition_of(user, PARTITIONS) for user, record in found.items())


def test_a_data_set_without_users_is_told_what_to_write(deployment: Deployment, shop: Path) -> None:
    (shop / "users.csv").unlink()
    check_told(deployment.cli("users", "publish", str(shop)), CONFIG, "describes no users", "write users.csv")


def test_a_worker_forgets_who_has_a_tombstone_and_another_never_knew_them(deployment: Deployment, shop: Path) -> None:
    topic = deployment.settings.topics.users
    assert deployment.cli("users", "publish", str(shop)).code == 0
    worker = deployment.worker().ready()
    assert worker.status()["described"] == 3
    gone = partition_of("ada", PARTITIONS)
    deployment.send_raw_to(topic, gone, [(b"ada", None), (b"nobody", None)])
    until(lambda: worker.status()["described"] == 2, 30, "the tombstone is read")
    (shop / "users.csv").write_text("user,side\nada,right\n")
    assert deployment.cli("users", "publish", str(shop)).code == 0
    until(lambda: worker.status()["described"] == 3, 30, "who comes back is known again")
    deployment.send_raw_to(topic, gone, [(b"ada", None)])
    until(lambda: worker.status()["described"] == 2, 30, "the tombstone is read")
    assert worker.stop() == 0
    later = deployment.worker().ready()
    assert later.status()["described"] == 2
    assert later.stop() == 0
