"""`make chaos`: rounds of faults on a real broker and real workers, each held against a known answer.

    python -m tests.chaos --minutes 60 --seed 1 --report docs/chaos.md

Prints progress, then a table, and one JSON object as the last line. On the first violation it stops, keeps logs and
topics in a folder, and exits with 1. The seed fixes the faults and the events; how they meet in time it cannot fix.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from stream.folders import cache_folder
from tests.chaos import legs
from tests.chaos.run import Chaos, Plan


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--leg", type=float, default=10.0, help="minutes of a leg, which has a broker of its own")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=Plan.rate, help="events a second")
    parser.add_argument("--faults", type=int, default=Plan.faults, help="faults in a round")
    parser.add_argument("--report", type=Path, help="write a page there")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one-leg", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what was started is ended
    if asked.one_leg:
        return one_leg(asked)
    more = ["--rate", str(asked.rate), "--faults", str(asked.faults)]
    result = legs.run(asked.minutes, asked.leg, asked.seed, more, lambda words: print(words, flush=True))
    command = f'make chaos ARGS="--minutes {asked.minutes:g} --leg {asked.leg:g} --seed {asked.seed}"'
    if asked.report:
        asked.report.write_text(result.page(command))
    print(result.text())
    print(result.line())
    return int(result.wrong.total() > 0)


def one_leg(asked: argparse.Namespace) -> int:
    """A leg; what it finds is in result.json of its folder."""
    plan = Plan(seed=asked.seed, minutes=asked.minutes, rate=asked.rate, faults=asked.faults)
    chaos = Chaos(plan, asked.folder, cache_folder(), lambda words: print(words, flush=True))
    try:
        result = chaos.run()
    finally:
        chaos.close()
    if result.wrong.total():
        print("\n".join(result.told))
        print(
            f"logs and topics are kept in {asked.folder}; again with: --minutes {asked.minutes:g} --seed {asked.seed}"
        )
    return int(result.wrong.total() > 0)


if __name__ == "__main__":
    sys.exit(main())
