"""The parts of a replay that need no broker: when events are due, what is a replay's name, which topics are meant."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka import TopicPartition

from model.archive import of_file
from stream.errors import ConfigError
from stream.kafka.clients import KafkaConfig
from stream.replay.ledger import differences
from stream.replay.pace import Meter, Pace
from stream.replay.retention import too_short
from stream.replay.run import Order
from stream.replay.source import ArchiveSource, Chunk, Range, ahead
from stream.replay.topics import TopicSource, parse


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


# Pace


def test_a_minute_of_history_passes_in_a_second_at_60x() -> None:
    clock = Clock()
    pace = Pace(60.0, clock)
    times = np.array([0, 30_000, 60_000, 60_000, 120_000]) + 5_000_000
    assert pace.due(times, 0) == 1
    assert (pace.due(times, 1), pace.wait(int(times[1]))) == (1, pytest.approx(0.5))
    clock.at += 0.5
    assert pace.due(times, 1) == 2
    clock.at += 0.5
    assert pace.due(times, 2) == 4
    assert pace.wait(int(times[4])) == pytest.approx(1.0)


@pytest.mark.parametrize("speed", [1.0, 60.0, 3600.0])
def test_events_keep_their_rhythm(speed: float) -> None:
    """The distances at which events are due are those of history, by the speed, however often is looked."""
    clock, rng = Clock(), np.random.default_rng(1)
    times = np.cumsum(rng.integers(0, 5000, 200))
    pace, start, seen = Pace(speed, clock), 0, []
    while start < len(times):
        stop = pace.due(times, start)
        seen += [clock.at] * (stop - start)
        start = stop
        if start < len(times):
            clock.at += pace.wait(int(times[start])) + 1e-9
    np.testing.assert_allclose(np.diff(seen) * speed * 1000, np.diff(times), atol=1e-3 * speed)


def test_who_is_late_sends_all_that_is_due_and_does_not_shift_what_comes() -> None:
    clock = Clock()
    pace, times = Pace(1.0, clock), np.array([0, 1000, 2000, 9000])
    assert pace.due(times, 0) == 1
    clock.at += 3.5
    assert pace.due(times, 1) == 3 and pace.wait(9000) == pytest.approx(5.5)


def test_a_time_that_goes_back_is_due_with_what_is_before_it() -> None:
    pace = Pace(1.0, Clock())
    assert pace.due(np.array([1000, 0, 1000, 2000, 500]), 0) == 3


def test_at_full_speed_all_is_due() -> None:
    assert Pace(None).due(np.array([0, 10**12]), 0) == 2


def test_the_rate_is_that_of_the_last_seconds_and_tells_what_is_left() -> None:
    clock = Clock()
    meter = Meter(1000, None, clock)
    for n in (100, 100, 200):
        clock.at += 5
        meter.add(n)
    assert meter.rate == 30.0  # 300 in 10 s
    assert meter.eta(400, None, None) == 20.0
    assert Meter(1000, 60.0, clock).eta(400, 60_000, 180_000) == 2.0
    assert Meter(1000, None, clock).eta(0, None, None) is None


# Names


def test_a_replay_is_known_by_what_was_asked_for() -> None:
    asked = {"source": "/data/shop/events.csv", "since": None, "into": ["click"]}
    name = Order(asked, Range()).called()
    assert name.startswith("events.csv-") and name == Order(dict(reversed(asked.items())), Range()).called()
    assert name != Order({**asked, "since": "7d"}, Range()).called()
    assert name != Order({**asked, "into": ["buy"]}, Range()).called()
    assert Order({"source": "topic:a=click,b=*"}, Range()).called().startswith("topic-a-click-b-")
    assert Order(asked, Range(), "mine").called() == "mine"
    with pytest.raises(ConfigError, match="is no name"):
        Order(asked, Range(), "not mine").called()


def test_what_is_asked_otherwise_is_told() -> None:
    assert differences({"since": "7d", "end": 1.0}, {"since": None, "end": 1.0}) == "since is 7d and was None"
    assert differences({"end": 1.0}, {"end": 1.0}) == ""


def test_topics_go_to_the_inputs_that_are_said() -> None:
    inputs = {"click": "clicks", "buy": "orders"}
    assert parse("topic:old.clicks=click,old.buy=buy", inputs) == {"old.clicks": "clicks", "old.buy": "orders"}
    assert parse("topic:orders", inputs) == {"orders": "orders"}
    assert parse("topic:*", inputs) == {"clicks": "clicks", "orders": "orders"}
    for text in ("topic:old.clicks", "topic:a=view", "topic:", "topic:*=click"):
        with pytest.raises(ConfigError) as raised:
            parse(text, inputs)
        assert "=ACTION, one of click, buy" in raised.value.remedy or "no action" in raised.value.message


def test_topics_that_will_not_keep_what_is_published_are_told() -> None:
    now, day = 1_795_000_000_000, 86_400_000
    kept = {"clicks": 7 * day, "views": 30 * day}
    assert too_short(kept, now - day, now) == "" == too_short({}, 0, now)
    told = too_short(kept, now - 8 * day, now)
    assert "clicks (retention.ms=604800000)" in told and "views" not in told


# Sources


def archive_source(folder: Path, n: int = 25) -> ArchiveSource:
    lines = [f"u{i % 3},i{i},{('view', 'click')[i % 2]},{1000 + i // 2}" for i in range(n)]
    (folder / "e.csv").write_text("user,item,action,ts\n" + "".join(f"{line}\n" for line in lines))
    return ArchiveSource(of_file(folder / "e.csv"), {"view": "v", "click": "c"})


def played(source: ArchiveSource, wanted: Range, place: int | None = None) -> list[tuple[Any, int]]:
    """Records and the places behind them."""

    async def play() -> list[tuple[Any, int]]:
        await source.open(wanted, {"v": 2, "c": 3})
        out: list[tuple[Any, int]] = []
        async for chunk in ahead(source.chunks(place)):
            out += [(record, chunk.behind(i + 1)) for i, record in enumerate(chunk.records)]
        return out

    return asyncio.run(play())


def test_an_archive_goes_on_behind_any_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.archive.PIECE", 4)
    source = archive_source(tmp_path)
    for wanted in (Range(), Range(1003, 1009), Range(begin=0.2, end=0.8), Range(1001, 1011, 0.25, 0.5)):
        whole = played(source, wanted)
        assert [place for _, place in whole] == list(range(1, len(whole) + 1))
        for place in range(len(whole) + 1):
            assert played(source, wanted, place) == whole[place:]
    assert len(played(source, Range())) == 25
    assert len(played(source, Range(1003, 1009))) == 12
    shares = [played(source, Range(begin=a, end=b)) for a, b in ((0, 0.3), (0.3, 0.31), (0.31, 1.0))]
    assert [r for part in shares for r, _ in part] == [r for r, _ in played(source, Range())]


def test_a_range_without_events_has_none_and_says_what_there_is(tmp_path: Path) -> None:
    source = archive_source(tmp_path)
    assert asyncio.run(source.open(Range(5000), {"v": 1, "c": 1})) == (0, 1000, 1012)


def test_a_chunk_is_made_ahead_and_an_error_comes_in_its_turn() -> None:
    made: list[int] = []

    async def chunks() -> Any:
        for n in range(2):
            made.append(n)
            yield Chunk(np.array([n]), [], lambda k: k)
        raise ValueError("no third")

    async def read() -> list[int]:
        seen: list[int] = []
        with pytest.raises(ValueError, match="no third"):
            async for chunk in ahead(chunks()):
                await asyncio.sleep(0.01)
                seen.append(int(chunk.times[0]))
                assert made == [0, 1]
        return seen

    assert asyncio.run(read()) == [0, 1]


def test_records_stay_in_their_partition_where_there_are_as_many_and_go_by_key_where_not() -> None:
    def source(counts: Mapping[str, int]) -> TopicSource:
        made = TopicSource(KafkaConfig(), {"old": "new"}, {"cluster": "", "topics": {"old": ["", 4]}})
        made._counts = counts
        return made

    old = TopicPartition("old", 3)
    assert source({"new": 4})._partition(old, "new", b"21") == 3
    assert source({"new": 8})._partition(old, "new", b"21") == (-973932308 & 0x7FFFFFFF) % 8
    assert source({"new": 2})._partition(old, "new", None) == 1
