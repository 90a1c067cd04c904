"""Bytewax: Kafka in, `stateful_map`, Kafka out, one output an event; one worker.

State: in memory. With BENCH_DURABLE=1 it is also written to a local recovery partition (SQLite) every 10 s, together
with the offsets; without, a worker that ends loses it. There is no changelog in Kafka either way.
JSON is read and written with orjson. Batching is the connectors' default (1,000 records a poll).
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import bytewax.operators as op
import orjson
from bytewax.connectors.kafka import KafkaSinkMessage, KafkaSourceMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

WINDOW = 32


def decoded(message: KafkaSourceMessage) -> tuple[str, str]:
    """(user, item)."""
    event = orjson.loads(message.value)
    return event["user"], event["item"]


def update(window: list[str] | None, item: str) -> tuple[list[str], list[str]]:
    """Put a click into its user's window."""
    window = [*(window or ()), item][-WINDOW:]
    return window, window


def message(keyed: tuple[str, list[str]]) -> KafkaSinkMessage:
    """A window as it is written."""
    user, window = keyed
    return KafkaSinkMessage(user.encode(), orjson.dumps(window))


brokers = [os.environ["BENCH_BROKER"]]
flow = Dataflow("windows")
clicks = kop.input("clicks", flow, brokers=brokers, topics=[os.environ["BENCH_INPUT"]])
windows = op.stateful_map("window", op.map("decode", clicks.oks, decoded), update)
kop.output("output", op.map("encode", windows, message), brokers=brokers, topic=os.environ["BENCH_OUTPUT"])

if __name__ == "__main__":
    recovery = None
    if os.environ.get("BENCH_DURABLE") == "1":
        folder = Path(os.environ["BENCH_FOLDER"])
        init_db_dir(folder, 1)
        recovery = RecoveryConfig(folder, timedelta(0))
    cli_main(flow, epoch_interval=timedelta(seconds=10), recovery_config=recovery)
