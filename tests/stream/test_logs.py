"""What is told of libraries in the log."""

from __future__ import annotations

import logging

from stream.console.common import Seldom


def said(seldom: Seldom, name: str, message: str, *args: object) -> str | None:
    record = logging.LogRecord(name, logging.ERROR, "", 0, message, args, None)
    return record.getMessage() if seldom.filter(record) else None


def test_a_library_says_the_same_once_in_ten_seconds_and_then_how_often() -> None:
    now = [0.0]
    seldom = Seldom("aiokafka", lambda: now[0])
    told = []
    for second in range(12):
        now[0] = float(second)
        told.append(said(seldom, "aiokafka.client", "no node %d", second))
    assert told == ["no node 0", *[None] * 9, "no node 10 (and 9 times before)", None]


def test_other_messages_and_other_loggers_are_told_as_they_come() -> None:
    seldom = Seldom("aiokafka", lambda: 0.0)
    assert [said(seldom, "aiokafka", m) for m in ("a", "b", "a")] == ["a", "b", None]
    assert [said(seldom, "stream.process.worker", "a") for _ in range(3)] == ["a"] * 3
