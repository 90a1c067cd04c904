"""Do the reasons in a list say what its scores would lose? Held against scoring again without each interaction.

Not the reasons (those are `model/reasons.py`, made here as a worker makes them). For questions of a test the engine
lists and explains; then each item of the window is taken out of the whole history, and everything is made anew: the
window, which takes in an older interaction, the profile, the fusion's weight, the counts' score. What an item of the
list loses by that, in nats, is its true delta. A reason is not told so: it holds the weight and the profile fixed,
leaves the window short, and looks at the vectors of the newest five only.

Rankers of a window's items, by what they are said to matter to an item of the list:

    reasons    the shares of the reasons in the message; 0 for what is not named
    attention  the weights of the encoder's attention, where it has one
    newest     the newer, the more

Of each: `first`, how often its first is the one that costs most (precision@1); `order`, of all pairs that it tells
apart and that differ, the share that it puts right less the share that it puts wrong (Goodman and Kruskal's gamma:
0 by chance); `lost`, the nats that its first costs. `chance` picks one evenly; `best` knows the answer.

And of each list: `named`, the share of its items that have an interaction among their reasons; `explained`, what the
message says that the reasons explain; `truly`, what an item loses without all that its reasons name, of what it loses
without the whole window (0 to 1); `follows`, the `order` of the list's items by `explained` against that by `truly`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.engine import Engine, Search
from model.evaluation.exams import Exam, Method, Paper, World
from model.evaluation.methods.served import Counting, Served
from model.evaluation.methods.trained import Trained
from model.evaluation.running import Progress
from model.history import Histories
from model.metrics import Interval, bootstrap
from model.mix import combined
from model.online import OnlineParams, OnlineScores
from model.reasons import Ranked
from model.shortterm.base import Look, hidden

CANDIDATES = 200
LIST = 10
MEASURES = ("first", "order", "lost")
FACTS: tuple[str, ...] = ("named", "explained", "truly", "follows")


class NothingToExplainError(ValueError):
    """Nothing to measure; the message says what to do."""


@dataclass(frozen=True, eq=False)
class Found:
    """Of Q lists: users i64[Q]; by ranker, f64[Q] of each measure, the mean over a list's items; facts: `named`,
    `explained`, `truly` and `follows`, f64[Q] each.
    """

    users: NDArray[np.int64]
    rankers: dict[str, dict[str, NDArray[np.float64]]]
    facts: dict[str, NDArray[np.float64]]

    def rows(self) -> dict[str, dict[str, Interval]]:
        """By ranker each measure, with an interval that resamples users; of those that guess, also how much more often
        the first is right than by chance.
        """
        found = {}
        for name, measures in self.rankers.items():
            found[name] = {m: bootstrap(self.users, v, seed=0) for m, v in measures.items()}
            if name not in ("chance", "best"):
                above = measures["first"] - self.rankers["chance"]["first"]
                found[name]["above chance"] = bootstrap(self.users, above, seed=0)
        return found


def measure(world: World, engine: Engine, exam: Exam, questions: int) -> Found:
    """Lists and reasons for about so many questions of an exam, evenly spread, by an engine that has learned none of
    it. Questions whose window has one item only are passed over: there is nothing to tell apart.
    """
    counting = Counting(world, OnlineParams())
    stride = max(1, exam.questions // max(questions, 1))
    users: list[int] = []
    kept: list[_One] = []
    for paper in exam.every(stride).papers():
        online = counting.at(exam.line, paper.known)
        for user, one in _asked(engine, paper, online):
            users.append(user)
            kept.append(one)
    if not kept:
        raise NothingToExplainError("no list of this test has a reason that names an interaction: ask more questions")
    rankers = {r: {m: np.array([k.rankers[r][m] for k in kept]) for m in MEASURES} for r in kept[0].rankers}
    return Found(np.array(users), rankers, {f: np.array([k.facts[f] for k in kept]) for f in FACTS})


def explained(
    world: World, exam: Exam, methods: Sequence[Method], questions: int, progress: Progress | None = None
) -> dict[str, Found]:
    """`measure` of every method that makes lists as a worker does, by its name, each having learned what the exam lets
    it learn.
    """
    found: dict[str, Found] = {}
    for done, method in enumerate(methods, 1):
        if isinstance(method, Served | Trained):
            method.learn(exam.line, exam.end)
            engine = method.engine if isinstance(method, Trained) else method.lister
            if engine is not None:
                found[method.name] = measure(world, engine, exam, questions)
        if progress is not None:
            progress(done, len(methods))
    if not found:
        raise NothingToExplainError("no method among these gives reasons: name fallback, short/long/fusion, or --model")
    return found


@dataclass(frozen=True)
class _One:
    """Of one list."""

    rankers: dict[str, dict[str, float]]
    facts: dict[str, float]


def _asked(engine: Engine, paper: Paper, online: OnlineScores) -> Iterator[tuple[int, _One]]:
    h = paper.asked.histories
    if not len(h):
        return
    profiles = engine.profiles(h)
    with _attention(engine) as seen:
        engine.encode(h, profiles)
    weights = seen[-1] if seen else None
    fused = engine.encode(h, profiles, explained=True)
    found = engine.candidates(h, fused, _exact(engine), online, CANDIDATES)
    window, rows = engine.window_rows(h)
    for b, ranked in enumerate(engine.rank(h, fused, found, online, LIST)):
        items = np.unique(window.items[b, rows[b] >= 0])
        if len(items) < 2 or not len(ranked.items):
            continue
        mine = h.take([b])
        costs = _costs(engine, mine, mine.items == items[:, None], ranked.items, online)
        places = window.items[b][None] == items[:, None]
        said = {"newest": np.repeat(places.shape[1] - places[:, ::-1].argmax(1)[:, None], len(ranked.items), 1)}
        if weights is not None:
            said["attention"] = np.repeat((places * weights[b]).sum(1)[:, None], len(ranked.items), 1)
        shares = _shares(ranked, engine.catalog.hashes, items)
        named = shares.max(0) > 0
        if named.any():
            truly = _truly(engine, mine, items, shares, ranked.items, online)
            told = np.array(ranked.explained)
            follows = agreement(told[:, None], truly[:, None])["order"]
            facts = dict(zip(FACTS, (named.mean(), told.mean(), truly.mean(), follows), strict=True))
            rankers = _compared(costs[:, named], {n: v[:, named] for n, v in {"reasons": shares, **said}.items()})
            yield int(paper.asked.users[b]), _One(rankers, facts)


def _compared(costs: NDArray[np.float64], said: dict[str, NDArray]) -> dict[str, dict[str, float]]:
    """Measures of each ranker, of what n items of a list lose without each of J, all f[J,n]."""
    found = {ranker: agreement(values, costs) for ranker, values in said.items()}
    chance = {"first": 1 / len(costs), "order": 0.0, "lost": float(costs.mean())}
    return {**found, "chance": chance, "best": agreement(costs, costs)}


def agreement(said: NDArray[np.floating], costs: NDArray[np.floating]) -> dict[str, float]:
    """`first`, `order` and `lost` (see the module): what each of J things is said to matter to n items, and what it
    costs them, f[J,n].
    """
    first, item = said.argmax(0), np.arange(costs.shape[1])
    a, b = (np.sign(x[:, None] - x[None]) for x in (said, costs))
    right, apart = (a * b).sum((0, 1)), np.abs(a * b).sum((0, 1))
    return {
        "first": float((costs[first, item] == costs.max(0)).mean()),
        "order": float(np.divide(right, apart, out=np.zeros_like(right), where=apart > 0).mean()),
        "lost": float(costs[first, item].mean()),
    }


def _shares(ranked: Ranked, hashes: NDArray[np.uint64], items: NDArray[np.uint64]) -> NDArray[np.float64]:
    """f64[J,n]: the share by which each of these items is named as a reason for each of the list."""
    out = np.zeros((len(items), len(ranked.items)))
    for i, reasons in enumerate(ranked.reasons):
        for reason in reasons:
            if reason.type == "interaction":
                out[items == hashes[reason.item], i] = reason.share
    return out


def _costs(
    engine: Engine, h: Histories, gone: NDArray[np.bool_], chosen: NDArray[np.int32], online: OnlineScores
) -> NDArray[np.float64]:
    """f64[J,n]: what each chosen catalogue row loses, in nats, when interactions of one history, J choices bool[J,L],
    had never been.
    """
    nothing = np.zeros_like(gone[:1])
    scores = nats(engine, without(h, np.concatenate([nothing, gone])), chosen, online)
    return scores[0] - scores[1:]


def _truly(
    engine: Engine,
    h: Histories,
    items: NDArray[np.uint64],
    shares: NDArray[np.float64],
    chosen: NDArray[np.int32],
    online: OnlineScores,
) -> NDArray[np.float64]:
    """f64[n]: see the module."""
    named = [np.isin(h.items[0], items[shares[:, i] > 0]) for i in range(len(chosen))]
    costs = _costs(engine, h, np.array([np.isin(h.items[0], items), *named]), chosen, online)
    at = np.arange(len(chosen))
    return np.clip(costs[1 + at, at] / np.maximum(costs[0], 1e-9), 0, 1)


def nats(engine: Engine, h: Histories, chosen: NDArray[np.int32], online: OnlineScores) -> NDArray[np.float64]:
    """The score of n catalogue rows for each of B histories, f64[B,n], everything made from these histories."""
    vectors = engine.encode(h, engine.profiles(h)).vectors.cpu().numpy()
    at = np.broadcast_to(chosen, (len(h), len(chosen)))
    related = engine.followers(h, online).at(at)
    own = online.returning(engine.catalog.index_of(h.items), engine.mix).at(at) if engine.mix.repeat else None
    neural = vectors @ engine.item_vectors[chosen].T
    scores = combined(neural, related, online.popularity[at], engine.mix, own)
    if engine.habits is not None:
        scores = engine.habits.of(h, engine.catalog.index_of(h.items), online).over(scores, at)
    return scores.astype(np.float64)


def without(h: Histories, gone: NDArray[np.bool_]) -> Histories:
    """One history of L interactions, once for each row of bool[R,L], which says what is taken out of it."""
    return h.take(np.zeros(len(gone), np.int64)).only(~gone & (h.items != 0))


def _exact(engine: Engine) -> Search:
    """A search that looks at all."""

    def search(vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        scores = vectors @ engine.item_vectors.T
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, best, 1), best.astype(np.int64)

    return search


@contextmanager
def _attention(engine: Engine) -> Iterator[list[NDArray[np.float32]]]:
    """Weights of the newest state over the window, f32[B,K], of each encoding within, where the encoder looks back."""
    seen: list[NDArray[np.float32]] = []
    looks = [m for m in engine.given.modules() if isinstance(m, Look)] if isinstance(engine.given, nn.Module) else []

    def note(look: nn.Module, given: tuple[Tensor, Tensor, int]) -> None:
        states_BKD, there_BK, queries = given
        assert isinstance(look, Look)
        weights_BQK = look.query(states_BKD[:, -queries:]) @ states_BKD.transpose(1, 2) / states_BKD.shape[-1] ** 0.5
        weights_BQK = weights_BQK.masked_fill(hidden(there_BK, queries), -torch.inf).softmax(-1)
        seen.append(weights_BQK[:, -1].cpu().numpy())

    handles = [look.register_forward_pre_hook(note) for look in looks]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
