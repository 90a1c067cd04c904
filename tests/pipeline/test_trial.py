"""`eddyline trial`: leave to read is enough, nothing is left behind, and what it says is what an evaluation says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

import stream.dev.broker as local
from model.history import ACTION_NAME
from stream.dev.broker import LocalBroker
from stream.dev.processes import free_port
from stream.dev.properties import server_properties
from stream.kafka.placing import partition_of
from stream.topicdata import read_topics
from tests.chaos import admin
from tests.pipeline.harness import ITEMS, PARTITIONS, Deployment, Ran, Sent, run

T0 = 1_700_000_000_000
SINCE = "2023-11-14"
READER, PASSWORD = "reader", "secret"
METHODS = ["popular", "item-knn", "counts", "fallback"]


def some_shop(users: int = 60, steps: int = 25) -> list[Sent]:
    """People who mostly go round a ring of items, in time order; some do two things in one millisecond."""
    rng = np.random.default_rng(5)
    at, out = rng.integers(0, len(ITEMS), users), []
    for n in range(users * steps):
        user = int(rng.integers(users))
        at[user] = (at[user] + 1) % len(ITEMS) if rng.random() < 0.8 else rng.integers(len(ITEMS))
        action = ("view", "click", "buy")[int(rng.integers(3))]
        out.append(Sent(f"u{user}", f"i{at[user]}", action, T0 + 20_000 * (n - n % 2)))
    return out


class Guarded:
    """A broker that lets only its own machine do everything; a reader comes in at a door of their own."""

    def __init__(self, folder: Path) -> None:
        self.door = free_port()
        self._local = LocalBroker(folder)

    def start(self) -> str:
        return self._local.start()

    def stop(self) -> None:
        self._local.stop()

    def properties(self, data: Path, host: str, port: int, controller_port: int) -> str:
        """As ever, with an authorizer, and a listener with passwords."""
        inside, controller, outside = f"{host}:{port}", f"{host}:{controller_port}", f"{host}:{self.door}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        more = {
            "listeners": f"PLAINTEXT://{inside},CONTROLLER://{controller},READERS://{outside}",
            "advertised.listeners": f"PLAINTEXT://{inside},READERS://{outside}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,READERS:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.readers.plain.sasl.jaas.config": f'{module} required user_{READER}="{PASSWORD}";',
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "allow.everyone.if.no.acl.found": "false",
        }
        return server_properties(data, host, port, controller_port) + "".join(f"{k}={v}\n" for k, v in more.items())

    @property
    def reader(self) -> dict[str, str]:
        """How the reader connects."""
        return {
            "EDDYLINE_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{self.door}",
            "EDDYLINE_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "EDDYLINE_KAFKA__SASL_PLAIN_USERNAME": READER,
            "EDDYLINE_KAFKA__SASL_PLAIN_PASSWORD": PASSWORD,
        }


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guarded, str]]:
    """The broker, and where those come in who may do everything."""
    broker = Guarded(tmp_path_factory.mktemp("guarded"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "server_properties", broker.properties)
        address = broker.start()
    yield broker, address
    broker.stop()


def allow(address: str, topic: str, operation: AclOperation) -> None:
    """Let the reader do this to a topic."""
    binding = AclBinding(
        ResourceType.TOPIC,
        topic,
        ResourcePatternType.LITERAL,
        f"User:{READER}",
        "*",
        operation,
        AclPermissionType.ALLOW,
    )
    client = admin.client(address)
    admin.results(client.create_acls([binding]).values())


def everything(address: str) -> dict[str, Any]:
    """All that a broker has: groups, topics with where their logs end, and nothing else would be written."""
    client: AdminClient = admin.client(address)
    topics = client.list_topics(timeout=10).topics
    places = [(name, p) for name, topic in topics.items() for p in topic.partitions]
    groups = client.list_consumer_groups().result()
    return {"groups": sorted(g.group_id for g in groups.valid), "ends": admin.ends(client, places)}


def exported(deployment: Deployment, folder: Path) -> Path:
    """The events as a folder, with what is known of items."""
    data = run(read_topics(deployment.settings)).data
    events = data.events
    folder.mkdir()
    names = [ACTION_NAME[code] for code in events.action.tolist()]
    columns = {"user": events.user.tolist(), "item": events.item.tolist(), "action": names, "ts": events.ts}
    pl.DataFrame(columns).write_csv(folder / "events.csv")
    lines = [f"{i.item},{i.title},{'|'.join(i.categories)}" for i in data.items.values()]
    (folder / "items.csv").write_text("\n".join(["item,title,categories", *lines]))
    return folder


def told(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.output
    return json.loads(ran.output.splitlines()[-1])


def test_leave_to_read_is_enough_and_nothing_is_left_behind(
    guarded: tuple[Guarded, str], cache: Path, tmp_path: Path
) -> None:
    broker, address = guarded
    deployment = Deployment(address, "shop", tmp_path, cache).create()
    deployment.send(some_shop())
    for topic in deployment.settings.input.names:
        allow(address, topic, AclOperation.READ)
    allow(address, deployment.settings.topics.catalog, AclOperation.READ)
    before = everything(address)

    said = told(deployment.cli("trial", "--since", SINCE, "--no-tune", "--json", **broker.reader))

    assert everything(address) == before
    assert before["groups"] == [] and not any(topic == "__consumer_offsets" for topic, _ in before["ends"])
    assert said["events"] == 1500 and said["partitions"] == 4
    assert list(said["methods"]) == METHODS
    assert said["methods"]["counts"]["hr@10"][0] > said["methods"]["popular"]["hr@10"][0]

    folder = exported(deployment, tmp_path / "same")
    asked = ["--models", ",".join(METHODS), "--rows", "temporal", "--no-tune", "--json"]
    of_folder = told(deployment.cli("evaluate", str(folder), *asked))["rows"]["temporal"]
    of_topics = told(deployment.cli("evaluate", "topics", *asked, **broker.reader))["rows"]["temporal"]
    assert said["questions"] == of_folder["questions"] == of_topics["questions"] > 30
    for method in METHODS:
        for metric, interval in said["methods"][method].items():
            assert interval == of_folder["methods"][method][metric] == of_topics["methods"][method][metric]

    assert refused(broker, deployment.settings.input.topics["click"]), "the reader may write: this test shows nothing"


def refused(broker: Guarded, topic: str) -> bool:
    """Whether the reader's record is not taken."""
    producer = Producer(
        {
            "bootstrap.servers": f"127.0.0.1:{broker.door}",
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": READER,
            "sasl.password": PASSWORD,
        }
    )
    found: list[KafkaError | None] = []
    producer.produce(topic, b"{}", on_delivery=lambda error, _: found.append(error))
    producer.flush(20)
    return bool(found) and found[0] is not None and found[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_topic_that_may_be_seen_and_not_read_is_told_with_what_to_allow(
    guarded: tuple[Guarded, str], cache: Path, tmp_path: Path
) -> None:
    broker, address = guarded
    deployment = Deployment(address, "unread", tmp_path, cache).create()
    deployment.send(some_shop(5, 4))
    ran = deployment.cli("trial", "--since", SINCE, **broker.reader)
    assert ran.code == 4 and "not to be seen by this user: unread.view" in ran.output
    for topic in deployment.settings.input.names:
        allow(address, topic, AclOperation.DESCRIBE)
    ran = deployment.cli("trial", "--since", SINCE, **broker.reader)
    assert ran.code == 4 and "may not be read" in ran.output and "--operation Read" in ran.output
    assert "Traceback" not in ran.output


def test_it_is_told_in_tables_with_how_each_figure_came(deployment: Deployment) -> None:
    deployment.send(some_shop(40, 20))
    small = {"EPOCHS": "1", "MODEL__SHORT_TERM": "cnn", "MODEL__DIM": "16", "MODEL__LAYERS": "1"}
    asked = {f"EDDYLINE_TRAIN__{name}": value for name, value in small.items()}
    ran = deployment.cli("trial", "--since", SINCE, "--no-tune", "--train", **asked)
    assert ran.code == 0, ran.output
    output = re.sub(r"[│\s]+", " ", ran.output)  # cells are broken over lines
    for words in (
        "how often the next item is among ten",
        "eddyline less the others, paired by user",
        "cnn/pooled/attention",
        "a row for each of 40 users, once compacted",
        "your events, fetched, decoded and applied just now",
        "intervals are wide",
        "there are 4",
    ):
        assert words in output, ran.output


def test_without_a_catalogue_items_stand_for_themselves(empty: Deployment) -> None:
    deployment = empty.create(items=())
    deployment.send(some_shop(30, 10))
    said = told(deployment.cli("trial", "--since", SINCE, "--no-tune", "--json"))
    assert list(said["methods"]) == ["popular", "item-knn", "counts"]
    assert any("no item is described" in note for note in said["notes"])
    assert said["costs"]["listing"] > 0 and said["rates"]["items"] == len(ITEMS)


def test_some_partitions_stand_for_all(deployment: Deployment) -> None:
    deployment.send(some_shop(40, 20))
    asked = ["trial", "--since", SINCE, "--no-tune", "--json"]
    all_of_them, one = told(deployment.cli(*asked)), told(deployment.cli(*asked, "--partitions", "1"))
    users = {f"u{n}" for n in range(40) if partition_of(f"u{n}", PARTITIONS) == 0}
    assert one["share"] == 0.25 and one["rates"]["users"] == 4 * len(users)
    assert one["events"] < all_of_them["events"] == 800 and one["rates"]["events"] == 4 * one["events"]
    assert any("1 of 4 partitions were read" in note for note in one["notes"])


def test_no_event_and_one_event_are_told_with_what_to_do(deployment: Deployment) -> None:
    ran = deployment.cli("trial")
    assert ran.code == 6 and "no record in the range" in ran.output and "begin earlier (--since)" in ran.output
    deployment.send([Sent("u1", "i1", "click", T0)])
    said = told(deployment.cli("trial", "--since", SINCE, "--json"))
    assert said["events"] == 1 and said["methods"] == {} and said["needs"]["workers"] == 1
    assert any("too few to compare" in note for note in said["notes"])
