"""Latency: event to recommendation beside a bare aiokafka echo, at the same rates on the same broker in the same run.

A real `eddyline worker` over 100,000 items (the index that is chosen for so many, fallback model, lists of ten with
reasons), in one process and with its roles apart. Item texts are encoded by a BERT of one layer with random weights,
made here: encoding so many with a real one would take an hour. A title has four words of its kind's twelve and two of
any: titles of one kind are alike, as a shop's are. `--any-words`: all six of any, which no shop has, and an index must
look through more of.

Saturation is the highest rate, of steps of a quarter, that is held with lag flat, all answered and under 1%
conflated. Then 25, 50 and 75% of it are held, by turns with the echo at each of these, because how fast a machine wakes
up changes from one minute to the next; then half of it while a second worker joins and leaves. The last line is JSON;
`p50_ratio` and `p99_ratio` are those at half of saturation in one process.

    make bench NAME=latency
    make bench NAME=latency ARGS="--layout together --rates 350 600"      # only these
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model.catalog import Item
from stream.dev.processes import free_port
from stream.kafka import topics
from stream.publishing import publish_items
from stream.settings import Settings, load
from tests.bench import common
from tests.bench.common import Place, Worker
from tests.bench.load import Held, Load
from tests.bench.load import load as loaded

SHARES = (0.25, 0.5, 0.75)
LAYOUTS = {"together": ("all",), "apart": ("ingest", "recommend")}
STEP = 1.25
TURNS = 4
"""Turns of eddyline and the echo at a rate; each has its share of the time that the rate is held."""
WORDS, KINDS = 400, 300
"""Of the catalogue."""
HISTORY = 10
"""Views of each user before, which cause no list."""
READY_S = 600.0
PAUSE_S = 3.0
MEANWHILE_S = 3.0


class _Source(msgspec.Struct):
    ts: int


class _List(msgspec.Struct):
    user: str
    source: _Source


class _Event(msgspec.Struct):
    user: str
    ts: int


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--start", type=float, default=40, help="events a second of the first step")
    parser.add_argument("--step-seconds", type=float, default=15, help="of each step towards saturation")
    parser.add_argument("--hold", type=float, default=60, help="seconds of each rate that is measured")
    parser.add_argument("--rates", type=float, nargs="+", help="hold these, and do not look for saturation")
    parser.add_argument("--any-words", action="store_true", help="titles of any words, whatever kind an item is of")
    parser.add_argument("--layout", choices=[*LAYOUTS, "both"], default="both")
    args = parser.parse_args()
    layouts = list(LAYOUTS) if args.layout == "both" else [args.layout]
    found: dict[str, Any] = {}
    lines: list[list[str]] = []
    with common.place() as at:
        bert = tiny_bert(at.folder / "bert")
        for layout in layouts:
            found[layout] = asyncio.run(measure(at, layout, bert, args, lines))
    half = found[layouts[0]].get("at_50", {})
    ratios = {name: half.get(name) for name in ("p50_ratio", "p99_ratio")} | {"layout": layouts[0]}
    columns = ["layout", "load", "events/s", "p50 ms", "p99 ms", "echo p50", "echo p99", "x p50", "x p99", "conflated"]
    common.report("latency", columns, lines, {"bench": "latency", **ratios, "items": args.items, **found})


async def measure(
    at: Place, layout: str, bert: Path, args: argparse.Namespace, lines: list[list[str]]
) -> dict[str, Any]:
    """One layout: its saturation, and shares of it beside the echo."""
    environ = {
        **common.bench_environ(at, layout, f"{layout}.click", f"{layout}.echoed"),
        "EDDYLINE_INPUT__TOPICS__VIEW": f"{layout}.view",
        "EDDYLINE_INPUT__TOPICS__BUY": f"{layout}.buy",
        "EDDYLINE_EMIT__ON": "click",
        "EDDYLINE_ENCODER__NAME": str(bert),
        "EDDYLINE_CACHE": str(at.folder / "cache"),
    }
    settings = load(environ={k: v for k, v in environ.items() if k.startswith("EDDYLINE_")})
    with common.told(f"{layout}: {args.items:,} items, and {HISTORY} views of {args.users:,} users"):
        await prepare(settings, environ, args.items, args.users, args.any_words)
    click, lists = environ["BENCH_INPUT"], settings.topics.recommendations
    with ExitStack() as running:
        for role in LAYOUTS[layout]:
            start(at, role, environ, running)
        async with loaded(settings.kafka, click, lists, said, args.users, args.items) as load_:
            with common.told("encoding, indexing, warming up"):
                await warmed_up(load_)
            if args.rates:
                return await at_rates(
                    {f"{rate:.0f}/s": rate for rate in args.rates}, load_, at, layout, environ, settings, args, lines
                )
            top = await saturation(load_, args)
            shares = {f"{share:.0%}": share * top for share in SHARES}
            rows = await at_rates(shares, load_, at, layout, environ, settings, args, lines)
            out: dict[str, Any] = {"saturation": round(top, 1)}
            out |= {f"at_{share.rstrip('%')}": row for share, row in rows.items()}
            others: list[Worker] = []
            joined = await meanwhile(
                load_.hold(top / 2, args.hold / 2),
                lambda: others.append(start(at, LAYOUTS[layout][-1], environ, running)),
            )
            left = await meanwhile(load_.hold(top / 2, args.hold / 2), lambda: others[0].terminate())
    for name, held in (("a worker joins", joined), ("and leaves", left)):
        out[name.replace(" ", "_")] = {
            "p50_ms": held.quantile_ms(50),
            "p99_ms": held.quantile_ms(99),
            "longest_ms": held.quantile_ms(100),
            "unanswered": held.unanswered,
        }
        waits = [str(held.quantile_ms(percent)) for percent in (50, 99)]
        lines.append([layout, f"50%, {name}", f"{held.rate:.0f}", *waits, *[""] * 4, f"{held.share_conflated:.2%}"])
    return out


async def at_rates(
    rates: Mapping[str, float],
    load_: Load,
    at: Place,
    layout: str,
    environ: Mapping[str, str],
    settings: Settings,
    args: argparse.Namespace,
    lines: list[list[str]],
) -> dict[str, Any]:
    """Figures of some rates, by name, each beside the echo's."""
    out: dict[str, Any] = {}
    async with echo(at, layout, environ, settings, args) as bare:
        for name, rate in rates.items():
            out[name] = row = beside(*await by_turns(load_, bare, rate, args.hold / TURNS))
            lines.append([layout, name, *map(str, row.values())])
    return out


@asynccontextmanager
async def echo(
    at: Place, layout: str, environ: Mapping[str, str], settings: Settings, args: argparse.Namespace
) -> AsyncIterator[Load]:
    """A load on the echo, which has an input of its own."""
    environ = {**environ, "BENCH_INPUT": f"{layout}.to-echo"}
    await topics.create(settings.kafka, [topics.TopicSpec(environ["BENCH_INPUT"], common.PARTITIONS)], 1)
    process = Worker([sys.executable, "-m", "tests.bench.peers.echo"], environ, at.folder / f"{layout}-echo.log", None)
    topic, output = environ["BENCH_INPUT"], environ["BENCH_OUTPUT"]
    try:
        async with loaded(settings.kafka, topic, output, echoed, args.users, args.items) as load_:
            await warmed_up(load_)
            yield load_
    finally:
        process.kill()


async def by_turns(own: Load, bare: Load, rate: float, seconds: float) -> tuple[Held, Held]:
    """Both at a rate, one after the other, `TURNS` times so many seconds each."""
    mine, its = Held(rate), Held(rate)
    for _ in range(TURNS):
        mine.add(await own.hold(rate, seconds))
        its.add(await bare.hold(rate, seconds))
    return mine, its


def beside(own: Held, bare: Held) -> dict[str, Any]:
    """Figures of one rate."""
    p50, p99 = own.quantile_ms(50), own.quantile_ms(99)
    echo50, echo99 = bare.quantile_ms(50), bare.quantile_ms(99)
    return {
        "rate": round(own.rate, 1),
        "p50_ms": p50,
        "p99_ms": p99,
        "echo_p50_ms": echo50,
        "echo_p99_ms": echo99,
        "p50_ratio": round(p50 / echo50, 2),
        "p99_ratio": round(p99 / echo99, 2),
        "conflated": round(own.share_conflated, 4),
    }


async def saturation(load_: Load, args: argparse.Namespace) -> float:
    """The highest rate that is held; steps up from `start`, then down until one is held for the full time."""
    rate = args.start
    while True:
        held = await load_.hold(rate, args.step_seconds)
        print(
            f"{rate:.0f}/s: p50 {held.quantile_ms(50)} ms, p99 {held.quantile_ms(99)} ms, flat {held.flat}",
            file=sys.stderr,
            flush=True,
        )
        if not is_held(held):
            break
        rate *= STEP
    while True:
        rate /= STEP
        if rate < 1:
            raise SystemExit("not even one event a second is held")
        await load_.hold(rate, PAUSE_S)  # what was left behind
        held = await load_.hold(rate, args.hold)
        print(f"{rate:.0f}/s for {args.hold:.0f} s: flat {held.flat}", file=sys.stderr, flush=True)
        if is_held(held):
            return rate


def is_held(held: Held) -> bool:
    return held.flat and held.share_conflated < 0.01


async def warmed_up(load_: Load) -> None:
    """Until events are answered at all, and have been for some seconds."""
    deadline = time.monotonic() + READY_S
    while (await load_.hold(5, 2)).unanswered:
        if time.monotonic() > deadline:
            raise SystemExit(f"no answers within {READY_S:.0f} s")
    await load_.hold(20, 5)


def start(at: Place, role: str, environ: Mapping[str, str], running: ExitStack) -> Worker:
    """One `eddyline worker`, which ends with `running`."""
    log = at.folder / f"{environ['BENCH_NAME']}-{role}-{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "stream.console.cli", "worker", "--role", role, "--status-port", str(free_port())]
    process = Worker(command, environ, log, None)
    running.callback(process.kill)
    return process


async def meanwhile(held: Coroutine[Any, Any, Held], act: Callable[[], object]) -> Held:
    """Hold a load, and do something some seconds after it has begun."""
    holding = asyncio.ensure_future(held)
    await asyncio.sleep(MEANWHILE_S)
    act()
    return await holding


async def prepare(
    settings: Settings, environ: Mapping[str, str], how_many: int, users: int, any_words: bool = False
) -> None:
    """Topics, items, and what users did before."""
    rng = np.random.default_rng(1)
    inputs = settings.input.names
    wanted = topics.specs(settings.topics, inputs, settings.state.name)
    await topics.create(settings.kafka, [*wanted, topics.TopicSpec(environ["BENCH_OUTPUT"], common.PARTITIONS)], 1)
    kinds = rng.integers(0, KINDS, how_many)
    titles = rng.integers(0, WORDS, (how_many, 6))
    if not any_words:
        own = rng.integers(0, WORDS, (KINDS, 12))
        titles[:, :4] = own[kinds[:, None], rng.integers(0, 12, (how_many, 4))]
    items = [
        Item(f"i{n}", " ".join(f"w{word}" for word in title), categories=[f"kind {kind}"])
        for n, (kind, title) in enumerate(zip(kinds.tolist(), titles.tolist(), strict=True))
    ]
    await publish_items(settings.kafka, settings.topics.catalog, items)
    n = HISTORY * users
    times = int(time.time() * 1000) - n + np.arange(n)
    who, what = rng.permutation(np.repeat(np.arange(users), HISTORY)), rng.integers(0, how_many, n)
    await common.publish(settings.kafka, settings.input.topics["view"], who, what, times)


def tiny_bert(folder: Path) -> Path:
    """A BERT of one layer and 384 dimensions over words, random but always the same."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "kind", *(f"w{n}" for n in range(WORDS))]
    vocabulary += [str(n) for n in range(KINDS)]
    # Given as a file, it is not read by transformers 5: every word would be unknown, and all items the same.
    BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)}).save_pretrained(folder)
    torch.manual_seed(1)
    shape = {"hidden_size": 384, "num_hidden_layers": 1, "num_attention_heads": 6, "intermediate_size": 384}
    BertModel(BertConfig(vocab_size=len(vocabulary), initializer_range=0.5, **shape)).save_pretrained(folder)
    return folder


_list, _event = msgspec.json.Decoder(_List).decode, msgspec.json.Decoder(_Event).decode


def said(value: bytes) -> tuple[str, int]:
    """Whom a recommendation is for, and the time of the event that caused it."""
    found = _list(value)
    return found.user, found.source.ts


def echoed(value: bytes) -> tuple[str, int]:
    found = _event(value)
    return found.user, found.ts


if __name__ == "__main__":
    main()
