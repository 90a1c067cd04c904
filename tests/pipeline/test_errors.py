"""What goes wrong is told in one message with its remedy and an exit code, by the real command; never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.dev.processes import free_port
from stream.kafka import topics
from stream.kafka.topics import TopicSpec
from tests.pipeline.harness import ITEMS, Deployment, Ran, cli, run, some_events, until

OTHERWISE, USAGE, CONFIG, BROKER, STATE, DATA = 1, 2, 3, 4, 5, 6
"""Exit codes, as `stream/errors.py` has them."""


def check_told(ran: Ran, code: int, *words: str) -> None:
    assert "Traceback" not in ran.output
    assert ran.code == code, ran.output
    for word in words:
        assert word in ran.output, ran.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small data set of one's own: a folder."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "items.csv").write_text("item,title\n" + "".join(f"{i.item},{i.title}\n" for i in ITEMS))
    rows = "".join(f"u{n % 5},i{n % 20},click,{1_700_000_000_000 + 1000 * n}\n" for n in range(60))
    (folder / "events.csv").write_text("user,item,action,ts\n" + rows)
    return folder


# The broker


@pytest.mark.parametrize(
    "command",
    [
        "worker",
        "backfill --as v2",
        "topics check",
        "topics create",
        "tail",
        "send click u i",
        "release show",
        "release withdraw",
    ],
)
def test_no_broker_is_told_with_its_address_and_how_to_start_one(command: str) -> None:
    address = f"127.0.0.1:{free_port()}"
    ran = cli(*command.split(), "--kafka", address)
    check_told(ran, BROKER, f"no Kafka broker answers at {address}", "eddyline broker start", "kafka.bootstrap_servers")


def test_no_broker_is_told_before_a_data_set_is_published(data: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    for command in ("replay", "catalog publish"):
        check_told(
            cli(*command.split(), str(data), "--kafka", address), BROKER, f"no Kafka broker answers at {address}"
        )


def test_an_address_that_is_none_is_told_as_such() -> None:
    for address in ("localhost", "localhost:kafka"):
        check_told(cli("worker", "--kafka", address), CONFIG, "kafka.bootstrap_servers", repr(address), "host:port")


# Topics


@pytest.mark.parametrize(
    "command", ["worker", "backfill --as v2", "topics check", "tail", "send click u i", "release show"]
)
def test_missing_topics_are_named_with_the_command_that_creates_them(empty: Deployment, command: str) -> None:
    ran = empty.cli(*command.split())
    check_told(ran, BROKER, "topics are missing", empty.settings.topics.prefix, "eddyline topics create --execute")


def test_missing_topics_are_told_before_a_data_set_is_published(empty: Deployment, data: Path) -> None:
    for command in ("replay", "catalog publish"):
        check_told(empty.cli(*command.split(), str(data)), BROKER, "topics are missing", "topics create --execute")


def test_the_remedy_for_missing_topics_is_one(empty: Deployment) -> None:
    dry = empty.cli("topics", "create")
    check_told(dry, 0, "is missing", "add --execute")
    check_told(empty.cli("topics", "check"), BROKER)
    check_told(empty.cli("topics", "create", "--execute"), 0, "created")
    check_told(empty.cli("topics", "check"), 0, "4 partitions")
    check_told(empty.cli("topics", "create", "--execute"), 0, "is there")


def test_unequal_partition_counts_are_told_topic_by_topic(empty: Deployment) -> None:
    s = empty.settings
    view = s.input.topics["view"]
    run(topics.create(s.kafka, [TopicSpec(view, 3)]))
    empty.create()
    unequal = ("differ in partitions", f"{view} has 3", "has 4")
    for command in ("worker", "topics check"):
        ran = empty.cli(*command.split())
        check_told(ran, BROKER, *unequal, f"topics are missing: {s.topics.events}", "topics create --execute")
        ran = empty.cli(*command.split(), EDDYLINE_INPUT__REKEY="never")
        check_told(ran, BROKER, *unequal, "equal partition counts")


# Settings and usage


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[kafka]\nbootstrap_server = 'a:1'\n",
            ("unknown setting 'kafka.bootstrap_server'", "'kafka.bootstrap_servers'?"),
        ),
        ("[recomend]\nn = 5\n", ("unknown setting 'recomend'", "did you mean 'recommend'?")),
        ("[recommend]\nn = 'ten'\n", ("setting 'recommend.n'", "it was 'ten'")),
        ("[recommend\n", ("cannot be read", "TOML")),
    ],
)
def test_what_is_wrong_in_the_file_is_told(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    file = tmp_path / "eddyline.toml"
    file.write_text(text)
    check_told(cli("worker", EDDYLINE_CONFIG=str(file)), CONFIG, *words)


def test_what_is_wrong_in_the_environment_is_told() -> None:
    check_told(cli("worker", EDDYLINE_STATE__NAM="v2"), CONFIG, "unknown setting 'state.nam'", "'state.name'?")
    check_told(cli("config", "show", EDDYLINE_CONFIG="/nowhere.toml"), CONFIG, "/nowhere.toml does not exist")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("replay {data} --speed fast", ("--speed", "'fast' is no speed", "60x, or max")),
        ("replay {data} --speed 0x", ("--speed", "'0x' is no speed")),
        ("replay {data} --speed nan", ("--speed", "'nan' is no speed")),
        ("replay {data} --begin 2", ("--begin",)),
        ("replay {data} --since yesterday", ("--since", "'yesterday' is no time", "36h")),
        ("replay {data} --until 20261101", ("--until", "may be a date", "2026-11-01")),
        ("backfill --as v2 --since yesterday", ("--since", "2026-11-01T00:00")),
        ("backfill", ("--as",)),
        ("frobnicate", ("No such command 'frobnicate'",)),
        ("worker --fast", ("No such option", "--fast")),
    ],
)
def test_wrong_usage_is_told(data: Path, command: str, words: tuple[str, ...]) -> None:
    check_told(cli(*command.format(data=data).split()), USAGE, *words)


def test_what_a_replay_of_topics_does_not_take_is_told(data: Path) -> None:
    check_told(cli("replay", "topic:view", "--end", "0.5"), CONFIG, "--since and --until in place of")
    check_told(
        cli("replay", str(data), "--from-bootstrap-servers", "a:1"), CONFIG, "is for topics", "topic:NAME=ACTION"
    )
    check_told(cli("replay", "topic:old"), CONFIG, "'old' is no input topic", "topic:old=ACTION", "view, click, buy")
    check_told(cli("replay", str(data), "--name", "a b"), CONFIG, "'a b' is no name")


def test_an_action_without_a_topic_is_told(empty: Deployment, data: Path) -> None:
    check_told(empty.cli("send", "share", "u", "i"), CONFIG, "'share'", "view, click, buy")
    (data / "events.csv").write_text("user,item,action,ts\nu,i1,share,1700000000000\n")
    check_told(empty.create().cli("replay", str(data)), BROKER, "share", "[input.topics]")


# Data


def test_an_unknown_data_set_is_told_with_those_that_are_known() -> None:
    for command in ("replay", "catalog publish", "train --out /tmp/never"):
        ran = cli(*command.split(), "movielens-100m")
        check_told(ran, DATA, "movielens-100m", "known names", "movielens-100k")


@pytest.mark.parametrize(
    ("command", "name", "text", "words"),
    [
        ("replay", "events.csv", "user,item,ts\nu,i1,5\n", ("events.csv: lacks", "action")),
        ("replay", "events.csv", "user,item,action,ts\nu,i1,stare,5\n", ("events.csv:2:", "stare", "--skip-bad")),
        ("replay", "events.csv", "user,item,action,ts\nu,i1,click,noon\n", ("events.csv:2: ts",)),
        ("train", "events.csv", "user,item,action,ts\nu,i1,click,noon\n", ("events.csv", "ts")),
        ("catalog publish", "items.csv", "title\nA thing\n", ("items.csv", "item")),
    ],
)
def test_what_is_wrong_in_a_data_set_is_told_by_its_file(
    data: Path, command: str, name: str, text: str, words: tuple[str, ...]
) -> None:
    (data / name).write_text(text)
    check_told(cli(*command.split(), str(data)), DATA, *words)


# Waiting for what is not there yet


def test_a_worker_without_a_catalogue_says_so_and_answers_what_came_before_it(empty: Deployment, data: Path) -> None:
    empty.create(items=[])
    events = some_events(40, users=8)
    empty.send(events)
    worker = empty.worker()
    catalog = empty.settings.topics.catalog
    until(lambda: "waiting for a catalogue" in worker.log.read_text(), 60, "the worker says what it waits for")
    assert f"{catalog} is empty; fill it with `eddyline catalog publish" in worker.log.read_text()
    assert worker.status()["ready"] is False and empty.lists() == []
    check_told(empty.cli("catalog", "publish", str(data)), 0, f"20 items published to {catalog}")
    worker.ready()
    empty.settled()
    assert {event.user for event in empty.lists()} == {e.user for e in events}
    assert worker.stop() == 0 and "Traceback" not in worker.log.read_text()


def test_what_is_no_item_is_told_and_the_rest_of_the_catalogue_served(deployment: Deployment) -> None:
    catalog = deployment.settings.topics.catalog
    bad = [b"?", b"[]", b'{"item": "i1"}', b'{"item": "x", "title": "X", "more": ' + b"[" * 100_000, b"\xff"]
    deployment.send_raw_to(catalog, 0, [(f"bad-{n}".encode(), value) for n, value in enumerate(bad)])
    worker = deployment.worker().ready()
    assert worker.status()["items"] == len(ITEMS)
    log = worker.log.read_text()
    assert log.count("is no item and is ignored") == len(bad) and "Traceback" not in log
    assert worker.stop() == 0
