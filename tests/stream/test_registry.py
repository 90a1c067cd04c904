"""Values by a registry's schemas: what they say, whose fault it is when they cannot be read, and when nobody's."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import fastavro
import numpy as np
import pytest
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)

from model.history import ACTION_CODE
from stream import protobuf, registry
from stream.errors import ConfigError, RegistryError
from stream.events import Decoder, InputConfig
from stream.formats import Schema, reader
from stream.protobuf import message_index
from stream.settings import load
from tests.stream.test_events import T0, Fetched

LONG_MS = {"type": "long", "logicalType": "timestamp-millis"}
VIEW = {
    "type": "record",
    "name": "View",
    "fields": [
        {"name": "who", "type": {"type": "record", "name": "Visitor", "fields": [{"name": "id", "type": "string"}]}},
        {"name": "sku", "type": "string"},
        {"name": "at", "type": ["null", LONG_MS], "default": None},
        {"name": "n", "type": ["null", "double"], "default": None},
    ],
}
SHAPE = {"format": "avro", "user": "$.who.id", "item": "$.sku", "ts": "$.at", "value": "$.n"}
MOMENT = datetime.fromtimestamp(T0 / 1000, UTC)


def framed(number: int, value: bytes) -> bytes:
    return b"\0" + number.to_bytes(4, "big") + value


def avro(schema: Any, value: Any) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


def view(user: str = "u", item: str = "i", at: Any = MOMENT, n: Any = None, number: int = 1) -> bytes:
    return framed(number, avro(VIEW, {"who": {"id": user}, "sku": item, "at": at, "n": n}))


class Registry:
    """A server that answers as it is told, by path; and is asked by whom."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, str | None]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.path, self.headers.get("Authorization")))
                default = 404, {"error_code": 40403, "message": "Schema not found"}
                status, answer = outer.answers.get(self.path.split("?")[0], default)
                body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def has(self, number: int, text: str, kind: str = "AVRO", references: Any = ()) -> None:
        answer = {"schema": text, "schemaType": kind, "references": list(references)}
        self.answers[f"/schemas/ids/{number}"] = 200, answer

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Registry]:
    one = Registry()
    one.has(1, json.dumps(VIEW))
    yield one
    one.close()


def decoder(server: Registry, shape: Any = SHAPE, valued: bool = False, **more: Any) -> Decoder:
    config = InputConfig.model_validate(
        {"topics": {"view": "t"}, "shapes": {"t": shape}, "registry": {"url": server.url, **more}}
    )
    return config.decoders(valued=valued)["t"]


def test_avro_is_read_as_columns_to_the_same_as_one_by_one_and_its_schema_fetched_once(server: Registry) -> None:
    both = decoder(server, valued=True)
    records = [
        Fetched(view(item=f"i{n % 7}", at=MOMENT - timedelta(seconds=n), n=float(n)), offset=n) for n in range(40)
    ]
    plain = both._plain(records)
    assert plain is not None, "a batch with nothing amiss was read one by one"
    slow, bad = both._one_by_one(records)
    assert not bad and plain.users == slow.users == ["u"] * 40
    for name in ("items", "actions", "times", "offsets", "values"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(slow, name))
    assert plain.times.tolist() == [T0 - 1000 * n for n in range(40)]
    assert [path for path, _ in server.asked] == ["/schemas/ids/1"]


@pytest.mark.parametrize(
    ("logical", "value", "expected"),
    [
        ("timestamp-millis", MOMENT, T0),
        ("timestamp-micros", MOMENT + timedelta(microseconds=999), T0),
        ("local-timestamp-millis", MOMENT.replace(tzinfo=None), T0),
        (None, T0 // 1000, T0 // 1000 * 1000),
    ],
)
def test_logical_times_are_times_whatever_the_unit_of_numbers(
    server: Registry, logical: str | None, value: Any, expected: int
) -> None:
    kind = {"type": "long", **({"logicalType": logical} if logical else {})}
    fields = [{"name": "user", "type": "string"}, {"name": "item", "type": "string"}, {"name": "ts", "type": kind}]
    schema = {"type": "record", "name": "E", "fields": fields}
    server.has(9, json.dumps(schema))
    record = Fetched(framed(9, avro(schema, {"user": "u", "item": "i", "ts": value})))
    one = decoder(server, {"format": "avro", "ts_unit": "s"})
    for events in (one._plain([record]), one._one_by_one([record])[0]):
        assert events is not None and events.times.tolist() == [expected]


def test_what_avro_has_besides_text_is_read_too(server: Registry) -> None:
    who = {"type": "string", "logicalType": "uuid"}
    kinds = {"type": "enum", "name": "Kind", "symbols": ["VIEW", "BUY"]}
    line = {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "long"}]}
    names = {"who": who, "kind": kinds, "lines": {"type": "array", "items": line}}
    schema = {"type": "record", "name": "O", "fields": [{"name": k, "type": v} for k, v in names.items()]}
    server.has(2, json.dumps(schema))
    user = UUID(int=5)
    value = avro(schema, {"who": user, "kind": "VIEW", "lines": [{"sku": 7}, {"sku": 8}]})
    shape = {"format": "avro", "user": "$.who", "each": "$.lines[*]", "item": "@.sku", "action": "$.kind"}
    events, bad = decoder(server, {**shape, "actions": {"VIEW": "view"}}).decode(
        [Fetched(framed(2, value), str(user).encode())]
    )
    assert not bad and events.users == [str(user)] * 2 and events.names == ["7", "8"]
    assert events.actions.tolist() == [ACTION_CODE["view"]] * 2


def test_a_change_log_in_avro_is_unwrapped_by_schemas_that_name_others(server: Registry) -> None:
    row = {"type": "record", "name": "shop.Row", "fields": [{"name": n, "type": "string"} for n in ("u", "i")]}
    fields = [{"name": "op", "type": "string"}, {"name": "after", "type": ["null", "shop.Row"]}]
    envelope = {"type": "record", "name": "shop.Envelope", "fields": fields}
    reference = {"name": "shop.Row", "subject": "row", "version": 3}
    server.has(4, json.dumps(envelope), references=[reference])
    registered = {"subject": "row", "id": 3, "version": 3, "schema": json.dumps(row), "schemaType": "AVRO"}
    server.answers["/subjects/row/versions/3"] = 200, registered
    whole = {**envelope, "fields": [fields[0], {"name": "after", "type": ["null", row]}]}
    changes = [("c", {"u": "u", "i": "i"}), ("d", None)]
    records = [Fetched(framed(4, avro(whole, {"op": op, "after": after}))) for op, after in changes]
    shape = {"format": "avro", "envelope": "debezium", "user": "$.u", "item": "$.i"}
    events, bad = decoder(server, shape).decode([*records, Fetched(None)])
    assert not bad and (events.users, events.names) == (["u"], ["i"])


def proto() -> tuple[descriptor_pb2.FileDescriptorProto, Any]:
    """A file of messages, and what makes one of them by its full name."""
    file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    imported = (timestamp_pb2, wrappers_pb2, struct_pb2)
    file.dependency.extend(module.DESCRIPTOR.name for module in imported)
    F = descriptor_pb2.FieldDescriptorProto
    kind = file.enum_type.add(name="Kind")
    kind.value.add(name="UNKNOWN", number=0)
    kind.value.add(name="VIEW", number=1)
    file.message_type.add(name="Other")
    order = file.message_type.add(name="Order")
    line = order.nested_type.add(name="Line")
    line.field.add(name="sku", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    entry = order.nested_type.add(name="ByShopEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=F.TYPE_MESSAGE, type_name=".shop.Order.Line", label=F.LABEL_OPTIONAL)
    for number, name, of, type_name, label in [
        (1, "user_id", F.TYPE_INT64, "", F.LABEL_OPTIONAL),
        (2, "at", F.TYPE_MESSAGE, ".google.protobuf.Timestamp", F.LABEL_OPTIONAL),
        (3, "kind", F.TYPE_ENUM, ".shop.Kind", F.LABEL_OPTIONAL),
        (4, "lines", F.TYPE_MESSAGE, ".shop.Order.Line", F.LABEL_REPEATED),
        (5, "n", F.TYPE_DOUBLE, "", F.LABEL_OPTIONAL),
        (6, "item", F.TYPE_STRING, "", F.LABEL_OPTIONAL),
        (7, "by_shop", F.TYPE_MESSAGE, ".shop.Order.ByShopEntry", F.LABEL_REPEATED),
        (8, "coupon", F.TYPE_MESSAGE, ".google.protobuf.StringValue", F.LABEL_OPTIONAL),
        (9, "more", F.TYPE_MESSAGE, ".google.protobuf.Struct", F.LABEL_OPTIONAL),
        (10, "kinds", F.TYPE_ENUM, ".shop.Kind", F.LABEL_REPEATED),
        (11, "gift", F.TYPE_MESSAGE, ".shop.Order", F.LABEL_OPTIONAL),
    ]:
        order.field.add(name=name, number=number, type=of, type_name=type_name or None, label=label)
    pool = descriptor_pool.DescriptorPool()
    for module in imported:
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return file, lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def test_protobuf_is_read_by_the_message_that_its_index_names(server: Registry) -> None:
    file, kind = proto()
    server.has(6, base64.b64encode(file.SerializeToString()).decode(), "PROTOBUF")
    order = kind("shop.Order")(user_id=2**40, kind=1, lines=[{"sku": "a"}, {"sku": "b"}])
    order.at.FromMilliseconds(T0)
    shape = {"format": "protobuf", "user": "$.user_id", "ts": "$.at", "action": "$.kind", "actions": {"VIEW": "view"}}
    second = framed(6, b"\x02\x02" + order.SerializeToString())  # one number, 1, as zigzag
    lines = decoder(server, {**shape, "each": "$.lines[*]", "item": "@.sku"})
    events, bad = lines.decode([Fetched(second, str(2**40).encode())])
    assert not bad and events.users == [str(2**40)] * 2 and events.names == ["a", "b"]
    assert events.times.tolist() == [T0] * 2 and events.actions.tolist() == [ACTION_CODE["view"]] * 2
    nested = framed(6, b"\x04\x02\x00" + kind("shop.Order.Line")(sku="x").SerializeToString())
    read = decoder(server, {"format": "protobuf", "user": "key", "item": "$.sku"})
    events, bad = read.decode([Fetched(nested, b"u")])
    assert not bad and events.names == ["x"]
    first = framed(6, b"\x00")
    assert "no item at $.sku" in read.decode([Fetched(first, b"u")])[1][0].reason
    for wrong in (b"\x02\x0e\x00", b"\x01", b"\xff\xff\xff\xff\xff\xff\x00", b"\x02\x01", b"\x06\x00"):
        assert "not the protobuf" in read.decode([Fetched(framed(6, wrong), b"u")])[1][0].reason


def test_protobuf_is_read_by_a_schema_of_text_and_those_that_it_names() -> None:
    line = 'syntax = "proto3"; package shop; message Line { string sku = 1; }'
    order = """syntax = "proto3"; package shop; import "shop/line.proto"; import "google/type/date.proto";
        message Other {} message Order { int64 user_id = 1; repeated Line lines = 4; google.type.Date day = 7; }"""
    read = reader("protobuf", Schema(order, [("shop/line.proto", line)]))
    value = proto()[1]("shop.Order")(user_id=5, lines=[{"sku": "a"}]).SerializeToString()
    assert read(framed(1, b"\x02\x02" + value)) == {"user_id": 5, "lines": [{"sku": "a"}]}
    for name, text, told in [
        ("shop/line.proto", 'syntax = "proto3"; message {', "protoc: shop/line.proto"),
        ("../line.proto", line, "is called '../line.proto'"),
    ]:
        with pytest.raises(ValueError, match=told):
            reader("protobuf", Schema(order, [(name, text)]))


def test_what_protobuf_leaves_out_is_absent_and_not_zero() -> None:
    file, kind = proto()
    read = reader("protobuf", Schema(base64.b64encode(file.SerializeToString()).decode()))
    assert read(framed(1, b"\x02\x02" + kind("shop.Order")().SerializeToString())) == {}


def test_what_protobuf_has_besides_numbers_and_text_is_read_too() -> None:
    file, kind = proto()
    read = reader("protobuf", Schema(base64.b64encode(file.SerializeToString()).decode()))
    gift = {"coupon": {"value": ""}, "kinds": [0, 1, 7]}
    value = kind("shop.Order")(by_shop={5: {"sku": "a"}}, more={"a": [1, {"b": None}]}, gift=gift, lines=[{}, {}])
    assert read(framed(1, b"\x02\x02" + value.SerializeToString())) == {
        "by_shop": {"5": {"sku": "a"}},
        "more": {"a": [1, {"b": None}]},
        "gift": {"coupon": "", "kinds": ["UNKNOWN", "VIEW", 7]},
        "lines": [{}, {}],
    }


def test_an_index_of_messages_is_zigzag_numbers_from_the_outermost_in() -> None:
    assert message_index(b"\x00rest", 0) == ((0,), 1)
    assert message_index(b"?\x04\x06\x82\x01rest", 1) == ((3, 65), 5)
    with pytest.raises(ValueError, match="no message's number"):
        message_index(b"\x02\x01", 0)


def test_json_with_a_schemas_id_needs_no_registry() -> None:
    config = InputConfig.model_validate({"topics": {"view": "t"}, "shapes": {"t": {"format": "json-schema"}}})
    one = config.decoders()["t"]
    records = [Fetched(framed(77, json.dumps({"user": "u", "item": "i", "ts": T0}).encode()), offset=n) for n in (0, 1)]
    plain = one._plain(records)
    assert plain is not None and plain.times.tolist() == [T0, T0]
    assert len(one._one_by_one(records)[0]) == 2
    assert "the first byte is 123" in one.decode([Fetched(b'{"user": "u"}')])[1][0].reason


def test_what_cannot_be_read_is_told_and_the_good_around_it_is_read(server: Registry) -> None:
    server.has(3, "{}", "PROTOBUF")
    server.has(5, '{"type": "nonsense"}')
    bad_ones = {
        view(number=404): "schema 404: the registry at",
        view(number=3): "schema 3: it is PROTOBUF, and the topic's format is 'avro'",
        view(number=5): "schema 5: the schema is no avro",
        view()[:-9]: "not the avro that its schema says",
        view()[:5]: "not the avro",
        view()[:4]: "too few",
        b"{}      ": "the first byte is 123",
        b"": "empty",
        view(user=""): "empty user",
    }
    records = [Fetched(value, offset=n) for n, value in enumerate(bad_ones)]
    events, bad = decoder(server).decode([*records, Fetched(view(), offset=99), Fetched(None, offset=100)])
    assert events.offsets.tolist() == [99]
    assert len(bad) == len(bad_ones) + 1
    for one, expected in zip(bad, bad_ones.values(), strict=False):
        assert expected in one.reason


OUTAGES = [
    (500, {"error_code": 50001, "message": "down"}),
    (401, {"error_code": 401, "message": "who are you"}),
    (403, b"no"),
    (404, b"<html>not found</html>"),
    (200, b"<html>log in</html>"),
    (429, {"error_code": 42900, "message": "slow down"}),
]


@pytest.mark.parametrize(("status", "answer"), OUTAGES)
def test_a_registry_that_does_not_answer_as_one_is_waited_for_and_no_records_fault(
    server: Registry, status: int, answer: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry, "FIRST_WAIT_S", 0.02)
    good = server.answers["/schemas/ids/1"]
    server.answers["/schemas/ids/1"] = status, answer
    one, records = decoder(server), [Fetched(view())]
    with pytest.raises(RegistryError, match="does not answer as it should"):
        one.decode(records)

    async def waits() -> None:
        waiting = asyncio.ensure_future(one.values.prepared(records))
        while one.values.awaiting is None:
            await asyncio.sleep(0.01)
        assert not waiting.done()
        server.answers["/schemas/ids/1"] = good
        await waiting

    with caplog.at_level(logging.WARNING, "stream"):
        asyncio.run(waits())
    assert one.values.awaiting is None and "answers again" in caplog.messages[-1]
    server.close()
    events, bad = one.decode(records)
    assert len(events) == 1 and not bad


def test_what_a_registry_did_not_have_is_asked_for_again_with_the_next_batch(server: Registry) -> None:
    one, records = decoder(server), [Fetched(view(number=8), offset=n) for n in range(5)]
    asyncio.run(one.values.prepared(records))
    assert len(one.decode(records)[1]) == 5 and len(server.asked) == 1
    server.has(8, json.dumps(VIEW))
    asyncio.run(one.values.prepared(records))
    assert len(one.decode(records)[0]) == 5 and len(server.asked) == 2


def test_credentials_are_sent_and_never_told(server: Registry) -> None:
    one = decoder(server, username="reader", password="hunter2")
    assert one.decode([Fetched(view(number=404))])[1]
    said = "Basic " + base64.b64encode(b"reader:hunter2").decode()
    assert server.asked[-1][1] == said
    server.answers["/schemas/ids/404"] = 401, {"error_code": 401, "message": "no"}
    with pytest.raises(RegistryError) as told:
        decoder(server, username="reader", password="hunter2").decode([Fetched(view(number=404))])
    assert "hunter2" not in str(told.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url = 'http://reader:hunter2@registry:8081'", "set username and password"),
        ("url = 'registry:8081'\nusername = 'reader'\npassword = 'hunter2'", "write http://host:port"),
        ("url = 'http://registry'\npassword = 'hunter2'", "go together"),
        ("url = 'http://registry'\nusername = 'hunter2'\npassword = 42", "valid string"),
        ("url = 'http://registry'\npassword = ['hunter2']", "valid string"),
    ],
)
def test_settings_of_a_registry_that_do_not_fit_are_told_without_their_secrets(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "eddyline.toml"
    file.write_text(f"[input.registry]\n{text}\n")
    with pytest.raises(ConfigError) as told:
        load(environ={"EDDYLINE_CONFIG": str(file)})
    assert expected in str(told.value)
    assert "hunter2" not in str(told.value) and "42" not in str(told.value)


def test_settings_are_shown_with_the_password_masked(tmp_path: Path) -> None:
    file = tmp_path / "eddyline.toml"
    file.write_text("[input.registry]\nurl = 'https://registry'\nusername = 'reader'\n")
    shown = load(environ={"EDDYLINE_CONFIG": str(file), "EDDYLINE_INPUT__REGISTRY__PASSWORD": "hunter2"})
    assert shown.input.registry.properties()["basic.auth.user.info"] == "reader:hunter2"
    assert "hunter2" not in json.dumps(shown.model_dump(mode="json")) and "hunter2" not in repr(shown)


def test_a_format_that_takes_a_registry_says_so(tmp_path: Path) -> None:
    file = tmp_path / "eddyline.toml"
    file.write_text("[input.shapes.view]\nformat = 'avro'\n")
    with pytest.raises(ConfigError, match=r"\[input.registry\] url"):
        load(environ={"EDDYLINE_CONFIG": str(file)})


@pytest.mark.parametrize(
    ("kind", "lacks"), [("avro", "fastavro"), ("protobuf", "grpc_tools"), ("avro", "confluent_kafka.schema_registry")]
)
def test_what_is_not_installed_is_told_with_what_to_install(
    server: Registry, kind: str, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, lacks, None)
    with pytest.raises(ConfigError, match=rf"(?s){lacks}.*pip install 'eddyline\[registry\]'"):
        decoder(server, {"format": kind})


def test_ids_that_nobody_knows_are_not_remembered_without_end(
    server: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "REFUSED_KEPT", 3)
    one = decoder(server)
    for number in range(100, 106):
        records = [Fetched(view(number=number)), Fetched(view(), offset=1)]
        asyncio.run(one.values.prepared(records))
        assert len(one.decode(records)[1]) == 1
    assert len(server.asked) == 7, "an id was asked for twice"


def test_certificates_that_cannot_be_read_are_told_at_once(server: Registry) -> None:
    with pytest.raises(ConfigError, match=r"\[input.registry\]"):
        decoder(server, ssl_cafile="/nowhere.pem")


def test_a_schema_that_could_not_be_compiled_for_want_of_a_process_is_no_records_fault(
    server: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.has(7, 'syntax = "proto3"; message A { string user = 1; string item = 2; }', "PROTOBUF")
    one, records = decoder(server, {"format": "protobuf"}), [Fetched(framed(7, b"\x00\x0a\x01u\x12\x01i"))]
    with monkeypatch.context() as broken:
        broken.setattr(protobuf.sys, "executable", "/nowhere/python")
        with pytest.raises(RegistryError, match="could not be compiled"):
            one.decode(records)
    events, bad = one.decode(records)
    assert not bad and events.users == ["u"]
