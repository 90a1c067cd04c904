"""What a deployment needs, by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model.dataset import Events
from model.history import ACTION_CODE
from stream.settings import Settings, load
from stream.sizing import HOUR_MS, RECORD, Costs, Rates, needs, rates

VIEW, BUY = ACTION_CODE["view"], ACTION_CODE["buy"]
T0 = 1_700_000_000_000


def events(rows: list[tuple[str, str, int, int]]) -> Events:
    users, items, actions, ts = zip(*rows, strict=True)
    return Events(
        np.array(users, object),
        np.array(items, object),
        np.array(actions, np.uint8),
        np.array(ts, np.int64),
        np.full(len(rows), np.nan, np.float32),
    )


def settings(**flags: Any) -> Settings:
    return load({name.replace("__", "."): value for name, value in flags.items()}, {})


def test_rates_are_those_of_the_busiest_hour_wherever_it_begins() -> None:
    quiet = [("a", "i", VIEW, T0 + n * HOUR_MS) for n in range(10)]  # one an hour
    busy = [("b", f"i{n}", VIEW, T0 + 20 * HOUR_MS + 1_700_000 + n * 30_000) for n in range(72)]  # 36 minutes
    r = rates(events(quiet + busy), 80.0, {VIEW}, settings())
    assert (r.events, r.users, r.items) == (82, 2, 73)
    assert r.peak == pytest.approx(72 / 3600)
    span_s = (20 * HOUR_MS + 1_700_000 + 71 * 30_000) / 1000
    assert r.mean == pytest.approx(82 / span_s) and r.days == pytest.approx(span_s / 86_400)


def test_an_hour_does_not_count_what_begins_the_next() -> None:
    r = rates(events([("a", "i", VIEW, T0), ("a", "j", VIEW, T0 + HOUR_MS)]), 1.0, {VIEW}, settings())
    assert r.peak == pytest.approx(1 / 3600)


def test_rows_are_flushed_once_an_interval_each_and_lists_spoken_as_is_set() -> None:
    # Within ten seconds: a acts at 0, 1, 2 and 7 s, b at 1 s; of these a buys once. A commit is every 3 s.
    rows = [("a", "i", VIEW, 0), ("a", "j", VIEW, 1000), ("b", "i", VIEW, 1000), ("a", "k", BUY, 2000)]
    rows += [("a", "l", VIEW, 7000), ("b", "m", VIEW, 10_000)]
    some = events([(u, i, action, 30_000 + t) for u, i, action, t in rows])
    every = rates(some, 1.0, {VIEW, BUY}, settings())
    assert every.touched == pytest.approx(3 / 10)  # a in the first and third interval, b in the first
    assert every.peak == every.lists == pytest.approx(5 / 10)  # the end of the range begins the next
    assert rates(some, 1.0, {BUY}, settings()).lists == pytest.approx(1 / 10)
    seldom = settings(emit__min_interval_ms=5000)
    assert rates(some, 1.0, {VIEW, BUY}, seldom).lists == pytest.approx(3 / 10)


def test_one_event_is_a_second_of_events() -> None:
    r = rates(events([("a", "i", VIEW, T0)]), 1.0, {VIEW}, settings())
    assert r.mean == r.peak == r.touched == r.lists == 1.0


def test_users_that_were_not_read_are_reckoned_to_do_as_the_others() -> None:
    some = events([(f"u{n}", "i", VIEW, T0 + 1000 * n) for n in range(11)])
    one, four = (rates(some, 1.0, {VIEW}, settings(), share) for share in (1.0, 0.25))
    assert (four.events, four.users, four.items, four.days) == (44, 44, 1, one.days)
    assert (four.mean, four.peak, four.touched, four.lists) == (4 * one.mean, 4 * one.peak, 4.0, 4.0)


RATES = Rates(
    events=10**6, users=50_000, items=1000, days=7, event=100.0, mean=2.0, peak=1000.0, touched=400.0, lists=500.0
)
COSTS = Costs(
    fetching=2e-6,
    applying=3e-6,
    packing=5e-6,
    listing=2e-3,
    user=1000.0,
    row=600.0,
    trends=50.0,
    list=2000.0,
    base=300_000_000,
    serving=100_000_000,
)


def test_needs_are_rates_times_costs() -> None:
    n = needs(RATES, COSTS)
    assert n.cores == pytest.approx(1000 * 5e-6 + 400 * 5e-6 + 500 * 2e-3)  # 1.007
    assert n.workers == 3 and n.partitions == 6  # each half busy
    assert n.memory == round(400_000_000 + 50_000 * 1000 / 3)
    assert n.changelog == pytest.approx(400 * (600 + RECORD) + 1000 * 50)
    assert n.changelog_kept == 50_000 * (600 + RECORD)
    assert n.network_in == pytest.approx(1000 * (100 + RECORD))
    assert n.network_out == pytest.approx(500 * (2000 + RECORD) + n.changelog)


def test_however_little_happens_one_worker_is_needed() -> None:
    n = needs(replace(RATES, peak=0.01, touched=0.01, lists=0.01), COSTS)
    assert (n.workers, n.partitions) == (1, 2)
