"""`eddyline train --from-topics`: what is learned from topics is what is learned from the folder that went into them,
and nothing of later is in a question of before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgpack
import msgspec
import numpy as np
import polars as pl
import pytest
from aiokafka import AIOKafkaProducer
from safetensors.numpy import load_file

from model.catalog import Catalog, Item
from model.datafolder import read_folder
from model.dataset import Dataset, as_history
from model.longterm import LongTerm
from model.longterm.pooled import Pooled
from model.people import Person
from model.replay import timeline
from model.sequences import Sequences, sequences
from stream.errors import LogError
from stream.kafka.batches import Out
from stream.publishing import publish, publish_items, publish_people
from stream.settings import load
from stream.topicdata import TopicData, read_topics
from tests.pipeline import topics_io
from tests.pipeline.harness import ITEMS, Deployment, run
from tests.pipeline.topics_io import Raw

T0 = 1_700_000_000_000
SMALL = ["--short-term", "cnn", "--long-term", "pooled", "--dim", "16", "--layers", "1", "--epochs", "2"]
PLAIN = [*SMALL, "--device", "cpu", "--seed", "1"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A folder in no order that a history has: equal times over users, actions and items, repeats, values."""
    rng = np.random.default_rng(3)
    n = 900
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u in rng.integers(0, 40, n)],
            "item": [f"i{i}" for i in rng.integers(0, len(ITEMS) + 2, n)],
            "action": rng.choice(["view", "click", "buy"], n).tolist(),
            "ts": np.sort(T0 + 1000 * rng.integers(0, 200, n)),
            "value": [None if x < 0.5 else round(float(x), 2) for x in rng.random(n)],
        }
    )
    folder = tmp_path / "shop"
    folder.mkdir()
    pl.concat([frame, frame[100:130]]).write_parquet(folder / "events.parquet")
    lines = [f"{i.item},{i.title},{'|'.join(i.categories)},{9.5 if n % 2 else ''}" for n, i in enumerate(ITEMS)]
    (folder / "items.csv").write_text("\n".join(["item,title,categories,price", *lines]))
    people = [f"u{u},{'left' if u % 2 else 'right'},i{u % 7}" for u in range(45)]
    (folder / "users.csv").write_text("\n".join(["user,side,interests", *people]))
    return folder


def replayed(deployment: Deployment, folder: Path) -> Dataset:
    """The folder, in its topics."""
    found, s = read_folder(folder), deployment.settings
    run(publish_items(s.kafka, s.topics.catalog, found.items.values()))
    run(publish_people(s.kafka, s.topics.users, found.people.values()))
    run(publish(s.kafka, s.input.topics, found.events, lambda done, total: None))
    return found


def describe(deployment: Deployment, items: Sequence[tuple[str, Item | None]], written: int) -> None:
    """Records of the catalogue topic, written at a time; None withdraws."""
    outs = [Out(name.encode(), None if item is None else _json(item), None, written) for name, item in items]
    run(topics_io.send_raw_to(deployment.settings, deployment.settings.topics.catalog, 0, outs))


def read(deployment: Deployment, since: int | None = None, until: int | None = None) -> TopicData:
    return run(read_topics(deployment.settings, since, until))


def training_set(data: Dataset, end: int | None = None) -> Sequences:
    """Rows as training has them."""
    events, catalog = as_history(data.events), Catalog.build(data.items)
    line = timeline(events, catalog)
    texts = np.random.default_rng(0).normal(size=(len(catalog), 4)).astype(np.float32)
    long_term: LongTerm = Pooled(texts)
    return sequences(line, len(line) if end is None else end, long_term, 4, events.value)


def assert_same(one: Sequences, other: Sequences) -> None:
    for name in ("rows", "actions", "times", "values", "wanted", "target", "profile", "starts", "ends", "events"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    for a, b in zip(one.profiles, other.profiles, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_training_set_from_topics_is_that_of_the_folder_replayed_into_them(
    deployment: Deployment, shop: Path
) -> None:
    folder = replayed(deployment, shop)
    found = read(deployment)
    topics = found.data
    one, other = as_history(folder.events), topics.events
    for name in ("user", "item", "action", "ts", "value"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    assert topics.items == folder.items
    assert topics.people == folder.people
    assert_same(training_set(topics), training_set(folder))
    assert found.records == len(folder.events) and not found.unreadable
    assert found.repeats == len(folder.events) - len(one) >= 30


def test_the_model_from_topics_is_that_of_the_folder(deployment: Deployment, shop: Path, tmp_path: Path) -> None:
    replayed(deployment, shop)
    made = {}
    for name, source in {"folder": [str(shop)], "topics": ["--from-topics"]}.items():
        out = tmp_path / name
        ran = deployment.cli("train", *source, "--out", str(out), *PLAIN)
        assert ran.code == 0, ran.output
        made[name] = load_file(out / "model.safetensors"), json.loads((out / "experiment.json").read_text())
    (weights, record), (others, of_topics) = made["folder"], made["topics"]
    assert record["data"] == of_topics["data"]
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        np.testing.assert_array_equal(tensor, others[name], name)
    assert (tmp_path / "folder" / "groups.safetensors").read_bytes() == (
        tmp_path / "topics" / "groups.safetensors"
    ).read_bytes()


def test_nothing_of_later_is_in_a_training_set_of_before(deployment: Deployment, shop: Path) -> None:
    replayed(deployment, shop)
    until = T0 + 150_000
    s = deployment.settings
    # Descriptions from before the range's end, as a live deployment has them.
    early = [Item(i.item, f"early {i.title}", categories=i.categories, price=5.0) for i in ITEMS]
    describe(deployment, [(i.item, i) for i in early], T0 - 5)
    deployment.send_raw([(s.topics.users, b"u1", _json(Person("u1", {"side": "early"})), T0 - 5, [])])
    before = read(deployment, until=until)
    rows = training_set(before.data)

    later = until + 10
    describe(deployment, [(i.item, Item(i.item, "LATER", price=1.0)) for i in ITEMS], later)
    describe(deployment, [("new", Item("new", "LATER")), ("i3", None)], later)
    raw: list[Raw] = [(s.topics.users, b"u1", None, later, [])]
    raw.append((s.topics.users, b"u2", _json(Person("u2", {"side": "later"})), later, []))
    topic = s.input.topics["click"]
    for n in range(40):
        raw.append((topic, f"u{n}".encode(), _event(f"u{n}", f"i{n % 20}", until + n), until + n, []))
    deployment.send_raw(raw)
    after = read(deployment, until=until)
    assert after.outside > before.outside
    assert after.data.items == before.data.items and "new" not in after.data.items
    assert after.data.items["i3"].title == "early quiet mill 3" and after.data.items["i3"].price == 5.0
    assert after.data.people == before.data.people == {"u1": Person("u1", {"side": "early"})}
    assert_same(rows, training_set(after.data))
    assert after.data.events.ts.max() < until <= read(deployment).data.events.ts.max()


def test_each_question_is_asked_as_if_nothing_after_it_had_happened(deployment: Deployment, shop: Path) -> None:
    replayed(deployment, shop)
    data = read(deployment).data
    events, whole = data.events, training_set(data)
    users = sorted(set(events.user))
    profiled = 0
    for asked in np.flatnonzero(np.diff(events.ts) > 0) + 1:  # what is altered then stays behind what is not
        item, value = events.item.copy(), events.value.copy()
        item[asked:], value[asked:] = "i0", -1.0
        other = training_set(replace(data, events=replace(events, item=item, value=value)))
        user = str(events.user[asked])
        older = int((events.user[:asked] == user).sum())
        here, there = (s.starts[users.index(user)] for s in (whole, other))
        for name in ("rows", "actions", "times", "values", "wanted"):
            before, also = getattr(whole, name)[here : here + older], getattr(other, name)[there : there + older]
            np.testing.assert_array_equal(before, also, name)
        of_whole, of_other = (s.profiles[s.profile[p + older]] for s, p in ((whole, here), (other, there)))
        np.testing.assert_array_equal(of_whole, of_other)
        profiled += len(of_whole) > 0
    assert profiled > 5


def test_an_event_is_in_the_range_by_its_own_time_however_late_it_arrived(deployment: Deployment) -> None:
    topic = deployment.settings.input.topics["click"]
    raw: list[Raw] = [(topic, b"u", _event("u", f"i{n}", T0 + n * 1000), T0 + n * 1000, []) for n in range(10)]
    raw.append((topic, b"u", _event("u", "i16", T0 + 500_000), T0 + 3000, []))  # its clock is ahead, as is allowed
    raw.append((topic, b"u", _event("u", "i15", T0 + 4500), T0 + 900_000, []))  # late by a quarter of an hour
    deployment.send_raw(raw)
    found = read(deployment, T0 + 3000, T0 + 7000).data
    assert found.events.item.tolist() == ["i3", "i4", "i15", "i5", "i6"]
    assert read(deployment, T0 + 400_000).data.events.item.tolist() == ["i16"]


def test_what_is_no_event_is_left_out_and_told_and_other_codings_are_read(deployment: Deployment) -> None:
    topic = deployment.settings.input.topics["buy"]
    raw: list[Raw] = [
        (topic, b"u", _event("u", "i1", T0), T0, []),
        (topic, b"u", b"{", T0, []),
        (topic, b"other", _event("u", "i2", T0), T0, []),
        (topic, b"7", msgpack.packb({"user": 7, "item": 8, "value": 2.5}), T0 + 1, []),
        (topic, b"u", b'{"user": "u", "item": "i3", "ts": "2023-11-14T22:13:21Z"}', T0 + 2000, []),
    ]
    deployment.send_raw(raw)
    deployment.settings = load(environ={**deployment.environ, "EDDYLINE_INPUT__REKEY": "never"})
    found = read(deployment)
    events = found.data.events
    assert list(zip(events.user, events.item, events.ts.tolist(), strict=True)) == [
        ("u", "i1", T0),
        ("7", "8", T0 + 1),
        ("u", "i3", T0 + 1000),
    ]
    assert np.isnan(events.value[0]) and events.value[1] == 2.5
    assert found.unreadable == 2 and "2 records are no events" in " ".join(found.data.notes)
    assert found.data.items["8"] == Item("8", "8") and found.data.items["i1"].title == ITEMS[1].title


def test_what_a_transaction_took_back_was_never_there(deployment: Deployment) -> None:
    topic = deployment.settings.input.topics["click"]

    async def write() -> None:
        producer = AIOKafkaProducer(**deployment.settings.kafka.producer(), transactional_id=f"{topic}-writer")
        async with producer:
            for n, keep in enumerate((True, False)):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, _event("u", f"i{n}", T0), key=b"u", timestamp_ms=T0)
                await (producer.commit_transaction() if keep else producer.abort_transaction())

    run(write())
    assert read(deployment).data.events.item.tolist() == ["i0"]


def test_a_range_without_events_says_what_it_has_and_what_to_do(deployment: Deployment) -> None:
    with pytest.raises(LogError, match=r"no record in the range[^~]*--since"):
        read(deployment)
    topic = deployment.settings.input.topics["click"]
    deployment.send_raw([(topic, b"u", b"nonsense", T0, [])])
    with pytest.raises(LogError, match="none of 1 records is an event; the first is none because: neither a JSON"):
        read(deployment)
    deployment.send_raw([(topic, b"u", _event("u", "i1", T0), T0, [])])
    with pytest.raises(LogError, match="no event's own time is in the range"):
        read(deployment, until=T0)
    ran = deployment.cli("train", "--from-topics", EDDYLINE_INPUT__TOPICS__CLICK="nobody-has-this")
    assert ran.code == 4 and "not to be seen by this user: nobody-has-this" in ran.output
    assert "[input.topics]" in ran.output


def test_only_later_texts_of_an_item_are_lent_and_no_later_price(deployment: Deployment) -> None:
    s = deployment.settings
    topic = s.input.topics["click"]
    raw: list[Raw] = [(topic, b"u", _event("u", "met", T0 + n), T0 + n, []) for n in range(3)]
    deployment.send_raw(raw)
    late = Item("met", "A title", price=3.0, in_stock=False), Item("unmet", "Another")
    describe(deployment, [(i.item, i) for i in late], T0 + 50)
    describe(deployment, [("i1", Item("i1", "Sold out since", in_stock=False))], T0 + 2)
    describe(deployment, [("i2", Item("i2", "Sold out before", in_stock=False))], T0 - 2)
    found = read(deployment, until=T0 + 10)
    assert found.data.items == {
        "met": Item("met", "A title"),
        "i1": Item("i1", "Sold out since"),
        "i2": Item("i2", "Sold out before", in_stock=False),
    }
    assert found.lent == 1 and found.described == 2


def test_topics_are_read_by_evaluate_as_well(deployment: Deployment, shop: Path) -> None:
    replayed(deployment, shop)
    asked = ["--models", "popular,counts", "--rows", "temporal", "--no-tune", "--json"]
    ran = deployment.cli("evaluate", "topics", *asked)
    assert ran.code == 0, ran.output
    told = json.loads(ran.output.splitlines()[-1])
    assert told["data"] == "topics" and told["rows"]["temporal"]["questions"] > 10
    part = deployment.cli("evaluate", "topics", *asked, "--since", "2023-11-14T22:14:20")
    assert (
        json.loads(part.output.splitlines()[-1])["rows"]["temporal"]["questions"]
        < told["rows"]["temporal"]["questions"]
    )


def _event(user: str, item: str, ts: int) -> bytes:
    return json.dumps({"user": user, "item": item, "ts": ts}).encode()


def _json(value: Item | Person) -> bytes:
    return msgspec.json.encode(value)
