"""Decoding by format: from fetched records to columns of events, as events per CPU-second of one process.

The same events in each format, in batches as they are fetched; rows `confluent avro` and `confluent protobuf` are
Confluent's own deserializers, called record by record: a dict or a message is all that they make, without columns or
checks. Rows with `lines` are read record by record, since their shape has a list. Rounds are interleaved, each row's
figure is the median. The last line is JSON.

    make bench NAME=formats
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from stream.events import Decoder, InputConfig
from tests.stream.test_events import T0, Fetched
from tests.stream.test_registry import VIEW, Registry, avro, framed, proto

SHAPES: Mapping[str, Mapping[str, Any]] = {
    "json": {},
    "json, mapped": {"user": "$.who.id", "item": "$.sku", "ts": "$.at"},
    "json-schema": {"format": "json-schema", "user": "$.who.id", "item": "$.sku", "ts": "$.at"},
    "avro": {"format": "avro", "user": "$.who.id", "item": "$.sku", "ts": "$.at"},
    "avro, lines": {"format": "avro", "user": "$.who", "item": "@.sku", "ts": "$.at", "each": "$.lines[*]"},
    "protobuf": {"format": "protobuf", "user": "$.user_id", "item": "$.item", "ts": "$.at"},
    "protobuf, lines": {"format": "protobuf", "user": "$.user_id", "item": "@.sku", "ts": "$.at", "each": "$.lines[*]"},
}
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "who", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]},
            },
        },
    ],
}


def main() -> None:
    """Run the rounds, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    server = Registry()
    rows = _rows(server, args.events)
    spent: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(args.rounds + 1):  # the first finds everything cold
        for name, (decode, records) in rows.items():
            began = time.process_time()
            for at in range(0, len(records), args.batch):
                decode(records[at : at + args.batch])
            spent[name].append(time.process_time() - began)
    server.close()
    found = {name: round(args.events / statistics.median(seconds[1:])) for name, seconds in spent.items()}
    for name, rate in found.items():
        print(f"{name:20} {rate:>10,} events a CPU-second, {1e6 / rate:5.1f} us each")
    print(json.dumps({"events": args.events, "batch": args.batch, "events_per_cpu_s": found}))


def _rows(server: Registry, n: int) -> dict[str, tuple[Callable[[Sequence[Fetched]], Any], list[Fetched]]]:
    """What decodes a batch, and the records, by row."""
    file, kind = proto()
    server.has(1, json.dumps(VIEW))
    server.has(2, json.dumps(ORDER))
    server.has(3, base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF")
    values: dict[str, list[bytes]] = {name: [] for name in SHAPES}
    made = kind("shop.Order")
    for i in range(n):
        user, item, ts = f"user-{i % 1000}", f"item-{i % 5000}", T0 - i
        moment = datetime.fromtimestamp(ts / 1000, UTC)
        mapped = json.dumps({"who": {"id": user}, "sku": item, "at": ts}).encode()
        order = made(user_id=i % 1000 + 1, item=item, lines=[{"sku": item}])
        order.at.FromMilliseconds(ts)
        values["json"].append(json.dumps({"user": user, "item": item, "ts": ts}).encode())
        values["json, mapped"].append(mapped)
        values["json-schema"].append(framed(9, mapped))
        values["avro"].append(framed(1, avro(VIEW, {"who": {"id": user}, "sku": item, "at": moment, "n": None})))
        lines = [{"sku": item}]
        values["avro, lines"].append(framed(2, avro(ORDER, {"who": user, "at": moment, "lines": lines})))
        values["protobuf"].append(framed(3, b"\x02\x02" + order.SerializeToString()))
        values["protobuf, lines"].append(values["protobuf"][-1])
    records = {
        name: [Fetched(value, f"user-{i % 1000}".encode(), i) for i, value in enumerate(all_of)]
        for name, all_of in values.items()
    }
    rows: dict[str, Any] = {name: (_decoder(server, shape).decode, records[name]) for name, shape in SHAPES.items()}
    own = _confluent(server.url, made)
    for name in ("avro", "protobuf"):
        rows[f"confluent {name}"] = _each(own[name]), records[name]
    return rows


def _decoder(server: Registry, shape: Mapping[str, Any]) -> Decoder:
    config = InputConfig.model_validate(
        {"topics": {"view": "t"}, "shapes": {"t": shape}, "registry": {"url": server.url}, "max_skew_ms": 10**9}
    )
    return config.decoders(keyed=False)["t"]


def _confluent(url: str, message: Any) -> dict[str, Callable[[bytes], Any]]:
    from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
    from confluent_kafka.schema_registry.avro import AvroDeserializer
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
    from confluent_kafka.serialization import MessageField, SerializationContext

    client, conf = SchemaRegistryClient({"url": url}), {"subject.name.strategy": topic_subject_name_strategy}
    context = SerializationContext("t", MessageField.VALUE)
    reads_avro, reads_protobuf = AvroDeserializer(client, conf=conf), ProtobufDeserializer(message, conf, client)
    return {
        "avro": lambda value: reads_avro(value, context),
        "protobuf": lambda value: reads_protobuf(value, context),
    }


def _each(read: Callable[[bytes], Any]) -> Callable[[Sequence[Fetched]], Any]:
    return lambda records: [read(record.value or b"") for record in records]


if __name__ == "__main__":
    main()
