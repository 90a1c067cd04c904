"""A long restore says how far it is and when it will be done."""

from __future__ import annotations

from stream.kafka.tables import Restoring


def test_a_restore_tells_every_five_seconds_and_expects_its_pace_to_last() -> None:
    now = [100.0]
    restoring = Restoring(clock=lambda: now[0])
    assert restoring.status() is None
    assert not restoring.moved(1000)
    assert restoring.status() == {"done": 0, "total": 1000, "eta_s": None}
    told = []
    for second in range(1, 13):
        now[0] += 1
        if restoring.moved(1000 - 50 * second):
            told.append(str(restoring))
    assert told == [
        "250 of 1,000 changelog offsets, 15 s left",
        "500 of 1,000 changelog offsets, 10 s left",
    ]
    assert not restoring.moved(0) and restoring.status() is None


def test_another_restore_begins_from_nothing() -> None:
    now = [0.0]
    restoring = Restoring(clock=lambda: now[0])
    restoring.moved(10)
    now[0] = 60.0
    restoring.moved(0)
    assert not restoring.moved(500)
    assert restoring.status() == {"done": 0, "total": 500, "eta_s": None}
