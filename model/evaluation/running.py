"""Methods taking exams: settings chosen on the one, ranks noted in the others.

Settings climb: of all variants a method names, the best by NDCG@10 on the validation questions is taken, and asked for
its own variants, until none is better.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Exam, Method, Paper, World
from model.evaluation.tables import Answers, Asks, Table
from model.metrics import gains, middle_ranks

ROUNDS = 6
LISTS = 20_000
"""Questions whose lists are kept, evenly spread, for coverage, diversity and novelty."""


class NothingToAskError(ValueError):
    """A test without a question; the message says what to do."""


Progress = Callable[[int, int], None]


def choose(methods: Sequence[Method], exam: Exam, most: int = 5000, progress: Progress | None = None) -> list[Method]:
    """Each method with its best settings on at most `most` questions of the exam."""
    report = progress or (lambda done, total: None)
    papers = thinned(exam, most)
    chosen = []
    for place, method in enumerate(methods):
        best, quality = method, -1.0
        tried: set[str] = set()
        for _ in range(ROUNDS):
            options = [v for v in best.variants() if settings_of(v) not in tried]
            if len(options) < 2 and not tried:
                break
            tried |= {settings_of(v) for v in options}
            found = [_quality(v, exam, papers) for v in options]
            if not found or max(found) <= quality:
                break
            best, quality = options[int(np.argmax(found))], max(found)
        chosen.append(best)
        report(place + 1, len(methods))
    return chosen


def settings_of(method: Method) -> str:
    """What a method was set to, for people and to tell two settings apart."""
    return ", ".join(f"{k} {v}" for k, v in method.settings().items())


def _quality(method: Method, exam: Exam, papers: list[Paper]) -> float:
    found = [ranks for ranks, _ in _answers(method, exam, papers)]
    return float(gains(np.concatenate(found), 10).mean()) if found else 0.0


def thinned(exam: Exam, most: int) -> list[Paper]:
    """At most `most` questions of an exam, evenly spread."""
    papers = list(exam.papers())
    total = sum(len(p.asked) for p in papers)
    stride = max(1, -(-total // most))
    if stride == 1:
        return papers
    thin = [p.take(np.arange(0, len(p.asked), stride)) for p in papers]
    return [p for p in thin if len(p.asked)]


def _answers(method: Method, exam: Exam, papers: Iterable[Paper]) -> Iterator[tuple[NDArray, NDArray]]:
    """(ranks f64[B], scores f[B,N]) of each paper."""
    method.learn(exam.line, exam.end)
    known = exam.end
    for paper in papers:
        if exam.online and paper.known > known:
            method.add(exam.line, known, paper.known)
            known = paper.known
        scores = method.scores(paper.asked)
        yield middle_ranks(scores, paper.targets, paper.asked.allowed), scores


def take(
    methods: Sequence[Method], exams: Sequence[Exam], world: World, k: int, progress: Progress | None = None
) -> Table:
    """What every method reaches in these exams, question by question, all methods asked the same; those of one name are
    one method with different seeds.
    """
    report = progress or (lambda done, total: None)
    total, done = sum(e.questions for e in exams) * len(methods), 0
    asks: list[Asks] = []
    ranks: list[list[NDArray]] = [[] for _ in methods]
    lists: list[list[NDArray]] = [[] for _ in methods]
    seconds = [0.0 for _ in methods]
    stride = max(1, sum(e.questions for e in exams) // LISTS)
    for number, exam in enumerate(exams):
        learned = exam.learned(len(world.catalog))
        for m, method in enumerate(methods):
            began, seen = time.perf_counter(), 0
            for paper, (rank, scores) in _paired(exam, method):
                if m == 0:
                    asks.append(Asks.of(paper, number, learned))
                at = np.arange(-seen % stride, len(rank), stride)
                seen += len(rank)
                ranks[m].append(rank)
                lists[m].append(best(scores[at], paper.asked.allowed, at, k))
            seconds[m] += time.perf_counter() - began
            done += exam.questions
            report(done, total)
    if not asks:
        raise NothingToAskError(
            "no event of the test can be ranked: bring more events, or test a greater share (--begin 0.7); where users "
            "come back to what they have met, ask --protocol basket"
        )
    answers = {}
    for name in dict.fromkeys(method.name for method in methods):
        alike = [m for m, method in enumerate(methods) if method.name == name]
        answers[name] = Answers(
            np.stack([np.concatenate(ranks[m]) for m in alike]),
            np.concatenate([part for m in alike for part in lists[m]]),
            sum(seconds[m] for m in alike),
        )
    return Table(k, len(world.catalog), exams[0].learned(len(world.catalog)), Asks.concat(asks), answers)


def _paired(exam: Exam, method: Method) -> Iterator[tuple[Paper, tuple[NDArray, NDArray]]]:
    """Each paper, and what the method makes of it."""
    told, kept = tee(exam.papers())
    yield from zip(kept, _answers(method, exam, told), strict=True)


def best(scores: NDArray[np.floating], allowed: NDArray[np.bool_], at: NDArray, k: int) -> NDArray[np.int32]:
    """The k best allowed columns of each row, best first, i32[B,k], -1 where there are fewer. allowed bool[A,N] of a
    paper's questions, or bool[1,N] of all; at: which questions these are.
    """
    open_to = np.broadcast_to(allowed, (len(scores), scores.shape[1])) if len(allowed) == 1 else allowed[at]
    k = min(k, scores.shape[1])
    shown = np.where(open_to, scores, -np.inf)
    found = np.argpartition(-shown, k - 1, axis=1)[:, :k]
    value = np.take_along_axis(shown, found, 1)
    order = np.argsort(-value, axis=1, kind="stable")
    found = np.take_along_axis(found, order, 1)
    return np.where(np.take_along_axis(open_to, found, 1), found, -1).astype(np.int32)
