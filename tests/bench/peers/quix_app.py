"""Quix Streams: a stateful function on a StreamingDataFrame, one output an event.

State: RocksDB on local disk with a changelog topic, both Quix's defaults, as is its commit interval (5 s, in
which repeated updates of a key become one changelog record) and its serializer (orjson). At least once.
"""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application, State

WINDOW = 32


def update(event: dict[str, Any], state: State) -> list[str]:
    """Put a click into its user's window."""
    window = [*(state.get("window") or ()), event["item"]][-WINDOW:]
    state.set("window", window)
    return window


app = Application(
    broker_address=os.environ["BENCH_BROKER"],
    consumer_group=os.environ["BENCH_NAME"],
    auto_offset_reset="earliest",
    state_dir=os.environ["BENCH_FOLDER"],
)
clicks = app.topic(os.environ["BENCH_INPUT"], key_deserializer="str", value_deserializer="json")
output = app.topic(os.environ["BENCH_OUTPUT"], key_serializer="str", value_serializer="json")
app.dataframe(clicks).apply(update, stateful=True).to_topic(output)

if __name__ == "__main__":
    app.run()
