"""A state that was rebuilt is the state that lived through it: on people's purchases, and on events that come late,
come twice, and come in topics that do not keep time with each other. `tests/bench/bench_equal.py` is the same at size.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from model.dataset import Events
from model.datasets import load
from model.history import item_hash
from stream.publishing import publish
from tests.pipeline.harness import Deployment, run, until
from tests.pipeline.histories import in_order, late_and_repeated
from tests.pipeline.test_ranges import BACKFILL_S, SLOW, ended, started, verified

PARTS = 7
SHARED = pytest.mark.skipif(
    not Path(os.environ.get("EDDYLINE_DATA", "/nowhere"), "completejourney").is_dir(),
    reason="EDDYLINE_DATA is not set to a folder that holds completejourney/transactions.csv.gz",
)
SMALL = {"EDDYLINE_KAFKA__MAX_PARTITION_FETCH_BYTES": "65536"}


def live(deployment: Deployment, events: Events) -> None:
    """A worker lives through events that come while it works."""
    s = deployment.settings
    worker = deployment.worker(command=("worker", "--role", "ingest")).ready()
    for part in np.array_split(np.arange(len(events)), PARTS):
        run(publish(s.kafka, s.input.topics, events.take(part), lambda done, of: None))
    deployment.settled(120)
    assert worker.stop() == 0


@SHARED
def test_a_year_of_purchases_read_anew_is_the_state_that_lived_through_it(deployment: Deployment) -> None:
    events = in_order(load("completejourney", Path()).events)
    live(deployment, events)
    second = deployment.with_state("v2")
    ended(started(second))
    found = verified(second, "v2", deployment.settings.state.name)
    assert found["same"] and found["users"]["equal"] == len(set(events.user.tolist()))
    assert found["trends"]["counts"] > 100_000 and found["trends"]["different"] == 0


def test_late_and_repeated_events_read_anew_by_one_killed_twice_or_by_three_are_the_same_state(
    deployment: Deployment,
) -> None:
    events = late_and_repeated(20_000, users=600)
    live(deployment, events)
    name = deployment.settings.state.name

    alone = deployment.with_state("v2")
    for at in (3000, 9000):
        killed = started(alone, prelude=SLOW, **SMALL)
        until(lambda at=at: sum(x or 0 for x in alone.committed().values()) > at, BACKFILL_S, "it reads")
        killed.kill()
    ended(started(alone))
    shared = deployment.with_state("v3")
    for worker in [started(shared, prelude=SLOW, **SMALL) for _ in range(3)]:
        ended(worker)

    # Late events count pairs as of when they come; those of who is never late have items of their own.
    steady = {item_hash(f"i{n}") for n in range(10)}
    lived = {pair: n for pair, n in deployment.trends().items() if pair[0] in steady}
    assert len(lived) > 90
    for again in (alone, shared):
        found = verified(again, again.settings.state.name, name, "--no-trends", "--profiles", "12")
        assert found["same"] and found["users"]["equal"] == 600
        assert found["profiles"]["users"] == 12 and found["profiles"]["least_cosine"] >= 0.9999
        assert {pair: n for pair, n in again.trends().items() if pair[0] in steady} == lived
    alike = verified(alone, "v2", "v3", "--no-trends")
    assert alike["same"] and alike["users"]["equal"] == 600


def test_versions_that_differ_are_told_with_the_first_differences_in_full(deployment: Deployment) -> None:
    events = late_and_repeated(600, users=30)
    live(deployment, events)
    name = deployment.settings.state.name
    second = deployment.with_state("v2")
    ended(started(second, "--since", f"{int(events.ts[300])}"))
    found = verified(second, "v2", name, "--show", "2", code=1)
    assert not found["same"] and found["users"]["different"] > 10
    assert len(found["differences"]) == 2
    told = found["differences"][0]
    assert len(told["against"]["interactions"]) > len(told["as"]["interactions"])
    assert {"item", "action", "time", "weight"} == set(told["as"]["interactions"][0])
    ran = deployment.cli("verify", "--as", "v2", "--against", name)
    assert ran.code == 1 and f"v2 and {name} are different" in ran.output
    ran = deployment.cli("verify", "--as", "v9", "--against", name)
    assert ran.code == 5 and "there is no state v9" in ran.output
