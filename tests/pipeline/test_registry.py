"""Topics whose values a schema registry has the schemas of, written by Confluent's serializers and a real registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from stream.settings import load
from tests.pipeline.apicurio import Apicurio
from tests.pipeline.harness import Deployment, Raw, Sent, check_windows, run, some_events, until
from tests.pipeline.test_rekey import moved
from tests.pipeline.topics_io import send_raw
from tests.stream.test_registry import framed, proto

SHAPES = """
[input.topics]
view = "{name}.avro"
click = "{name}.protobuf"
buy = "{name}.json"

[input.registry]
url = "{url}"

[input.shapes."{name}.avro"]
format = "avro"
user = "$.who.id"
item = "$.sku"
ts = "$.at"

[input.shapes."{name}.protobuf"]
format = "protobuf"
user = "key"
each = "$.lines[*]"
item = "@.sku"
ts = "$.at"

[input.shapes."{name}.json"]
format = "json-schema"
user = "$.customer"
item = "$.product"
ts = "$.at"
ts_unit = "s"
"""
VIEW = """{
  "type": "record", "name": "View%s", "namespace": "shop", "fields": [
    {"name": "who", "type": {"type": "record", "name": "Who", "fields": [{"name": "id", "type": "string"}]}},
    {"name": "sku", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-%s"}}
  ]
}"""
ORDER = """
  syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto";
  message Order {
    message Line { string sku = 1; }
    google.protobuf.Timestamp at = 2;
    repeated Line lines = 4;
  }
"""
BUY = """{"$schema": "http://json-schema.org/draft-07/schema#", "title": "Buy", "type": "object", "properties": {
  "customer": {"type": "string"}, "product": {"type": "string"}, "at": {"type": "integer"}
}}"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Apicurio]:
    one = Apicurio(tmp_path)
    yield one.start()
    one.stop()


@pytest.fixture
def shop(empty: Deployment, registry: Apicurio) -> Deployment:
    """A deployment whose topics are in three formats."""
    name = empty.settings.state.name
    file = empty.folder / "eddyline.toml"
    file.write_text(SHAPES.format(name=name, url=registry.url))
    environ = {k: v for k, v in empty.environ.items() if "INPUT__TOPICS" not in k}
    empty.environ = environ | {"EDDYLINE_CONFIG": str(file), "EDDYLINE_ROLE": "ingest"}
    empty.settings = load(environ=empty.environ)
    return empty.create()


class Shop:
    """Writes events as the shop does; what it registers is at the registry."""

    def __init__(self, shop: Deployment, client: SchemaRegistryClient) -> None:
        self._topics = shop.settings.input.topics
        conf = {"subject.name.strategy": topic_subject_name_strategy}
        self._order = proto()[1]("shop.Order")
        self._made: dict[str, Any] = {
            "view": AvroSerializer(client, VIEW % ("", "millis"), conf=conf),
            "view again": AvroSerializer(client, VIEW % ("Again", "micros"), conf=conf),
            "click": ProtobufSerializer(self._order, client, conf=conf),
            "buy": JSONSerializer(BUY, client, conf=conf),
        }
        self._text = client.register_schema(f"{self._topics['click']}-again", Schema(ORDER, "PROTOBUF"))

    def _value(self, e: Sent) -> Any:
        moment = datetime.fromtimestamp(e.ts / 1000, UTC)
        if e.action == "view":
            return {"who": {"id": e.user}, "sku": e.item, "at": moment}
        if e.action == "buy":
            return {"customer": e.user, "product": e.item, "at": e.ts // 1000}
        order = self._order(lines=[{"sku": e.item}])
        order.at.FromMilliseconds(e.ts)
        return order

    def written(self, events: Sequence[Sent], again: bool = False) -> list[Raw]:
        """Records of these events; `again`: by schemas that came later, one of them in text, as Java registers it."""
        out: list[Raw] = []
        for e in events:
            topic = self._topics[e.action]
            if again and e.action == "click":
                value = framed(self._text, b"\0" + self._value(e).SerializeToString())
            else:
                serialize = self._made["view again" if again and e.action == "view" else e.action]
                value = serialize(self._value(e), SerializationContext(topic, MessageField.VALUE))
            out.append((topic, e.user.encode(), value, e.ts, []))
        return out


def test_avro_protobuf_and_json_by_a_registry_that_goes_and_comes_are_the_windows_they_say(
    shop: Deployment, registry: Apicurio
) -> None:
    events = some_events(400, users=30, mixed=True)
    with SchemaRegistryClient({"url": registry.url}) as client:
        writer = Shop(shop, client)
        first, second = writer.written(events[:200]), writer.written(events[200:], again=True)
    worker = shop.worker().ready()
    for part, codec in enumerate(("gzip", "snappy", "lz4", "zstd")):
        kafka = shop.settings.kafka.model_copy(update={"compression_type": codec})
        run(send_raw(shop.settings.model_copy(update={"kafka": kafka}), first[50 * part : 50 * part + 50]))
    unknown = b"\0" + (99_999).to_bytes(4, "big") + b"value"
    shop.send_raw([(shop.settings.input.topics["view"], b"u0", unknown, events[0].ts, [])])
    shop.settled()
    registry.stop()
    shop.send_raw(second)
    until(lambda: worker.status().get("awaiting"), 60, "the worker waits for the registry")
    assert "does not answer as it should" in worker.status()["awaiting"] and worker.process.poll() is None
    registry.start()
    shop.settled()
    assert worker.status()["awaiting"] is None
    check_windows(shop, events)
    (letter,) = shop.records(shop.settings.topics.dead_letters)
    assert letter.value == unknown and b"99999" in dict(letter.headers)["kafka_dlt-exception-message"]
    worker.kill()
    check_rekeyed(shop.with_state(f"{shop.settings.state.name[:30]}-2"), events)


def check_rekeyed(anew: Deployment, events: Sequence[Sent]) -> None:
    """Another state, of the same topics, has the same windows by events that are re-keyed."""
    anew.environ["EDDYLINE_INPUT__REKEY"] = "always"
    created = anew.cli("topics", "create", "--execute")
    assert created.code == 0, created.output
    anew.worker().ready()
    moved(anew)
    check_windows(anew, events)
    assert len(anew.records(anew.settings.topics.dead_letters)) == 2
