"""What came of an evaluation: question by question, as means with intervals, as differences, and by segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from model.evaluation.exams import Paper
from model.history import WINDOW
from model.metrics import Interval, bootstrap, coverage, diversity, f1, gains, hits, novelty, precision, reciprocal
from model.mix import SHORT

LIGHT = 20
"""Interactions of a user, or of an item, before the question: none is new or cold, up to so many is light."""


@dataclass(frozen=True, eq=False)
class Asks:
    """T questions: users i64, targets i64, exam i64 (its number), history i64 (interactions known of the user), learned
    i64 (events of the target that were learned before the exam).
    """

    users: NDArray[np.int64]
    targets: NDArray[np.int64]
    exam: NDArray[np.int64]
    history: NDArray[np.int64]
    learned: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @staticmethod
    def of(paper: Paper, number: int, learned: NDArray[np.int64]) -> Asks:
        """Of one paper of exam `number`; learned i64[N]: how often each item was met before that exam."""
        h = paper.asked.histories
        beyond = np.diff(h.seen_offsets)
        return Asks(
            paper.asked.users,
            paper.targets,
            np.full(len(paper.targets), number),
            h.lengths.astype(np.int64) + beyond,
            learned[paper.targets],
        )

    @staticmethod
    def concat(parts: Sequence[Asks]) -> Asks:
        """All of them."""
        empty = np.zeros(0, np.int64)
        return Asks(*(np.concatenate([empty, *(getattr(p, f.name) for p in parts)]) for f in fields(Asks)))


@dataclass(frozen=True, eq=False)
class Answers:
    """One method's: ranks f64[S,T] of S seeds, lists of k i32[L,k] for an even share of the questions, and the seconds
    that they took.
    """

    ranks: NDArray[np.float64]
    lists: NDArray[np.int32]
    seconds: float


@dataclass(frozen=True, eq=False)
class Table:
    """Answers of every method to the same questions, over a catalogue of so many items; learned i64[N]: how often each
    was met before the first exam.
    """

    k: int
    items: int
    learned: NDArray[np.int64]
    asks: Asks
    answers: Mapping[str, Answers]

    def metrics(self, name: str) -> dict[str, NDArray[np.float64]]:
        """Each metric question by question, the mean of the seeds, f64[T]. With one relevant item recall is
        HR.
        """
        r, k = self.answers[name].ranks, self.k
        hit = hits(r, k)
        by_seed = {
            f"hr@{k}": hit,
            f"ndcg@{k}": gains(r, k),
            f"mrr@{k}": np.where(r <= k, reciprocal(r), 0.0),
            "mrr": reciprocal(r),
            f"precision@{k}": precision(r, k),
            f"recall@{k}": hit,
            f"f1@{k}": f1(r, k),
        }
        return {name: values.mean(0) for name, values in by_seed.items()}

    def rows(self, vectors: NDArray[np.floating]) -> dict[str, dict[str, Interval | float]]:
        """By method: every metric with its 95% interval over users, and what the lists are like. vectors f[N,D]: by
        which two items of a list are told to differ.
        """
        found = {}
        for name, answers in self.answers.items():
            row: dict[str, Interval | float] = {m: self.interval(v) for m, v in self.metrics(name).items()}
            row["coverage"] = coverage(answers.lists, self.items)
            row["novelty"] = novelty(answers.lists, self.learned)
            row["diversity"] = diversity(answers.lists, vectors)
            row["seconds"] = round(answers.seconds, 2)
            found[name] = row
        return found

    def interval(self, values: NDArray[np.float64], keep: NDArray[np.bool_] | None = None) -> Interval:
        """The mean over questions, of exams of equal weight, resampled by user; keep bool[T]: of some only."""
        exam, users = self.asks.exam, self.asks.users
        if keep is not None:
            exam, users, values = exam[keep], users[keep], values[keep]
        size = np.bincount(exam)
        weight = None if (size > 0).sum() < 2 else (1.0 / np.maximum(size, 1))[exam]
        return bootstrap(users, values, seed=0, weights=weight)

    @property
    def means(self) -> str:
        """What figures are means of, for people."""
        users, exams = len(np.unique(self.asks.users)), len(np.unique(self.asks.exam))
        over = f"of {exams} periods" if exams > 1 else f"over {'users' if users == len(self.asks) else 'questions'}"
        return f"{len(self.asks)} questions of {users} users; means {over}, intervals over users"

    @property
    def best(self) -> str:
        """The method with the greatest NDCG@k."""
        means = {name: self.metrics(name)[f"ndcg@{self.k}"] for name in self.answers}
        return max(means, key=lambda name: self.interval(means[name]).mean)

    def behind(self, keep: NDArray[np.bool_] | None = None) -> dict[str, dict[str, Interval]]:
        """By how much the best is above each other method, question by question: HR@k and NDCG@k; keep bool[T]: of some
        questions only.
        """
        best = self.best
        differences = {name: self.difference(best, name, keep) for name in self.answers if name != best}
        return {n: {m: d[m] for m in (f"hr@{self.k}", f"ndcg@{self.k}")} for n, d in differences.items()}

    def difference(self, better: str, worse: str, keep: NDArray[np.bool_] | None = None) -> dict[str, Interval]:
        """Paired differences, better less worse: an interval that excludes 0 says that they differ."""
        a, b = self.metrics(better), self.metrics(worse)
        return {m: self.interval(a[m] - b[m], keep) for m in a}

    def segments(self) -> dict[str, NDArray[np.bool_]]:
        """Questions by who asks and what for: bool[T] each."""
        h, learned = self.asks.history, self.asks.learned
        w = np.minimum(h, WINDOW)
        return {
            "new users": h == 0,
            "first events": (h > 0) & (h < SHORT),
            "light users": (h > 0) & (h <= LIGHT),
            "heavy users": h > LIGHT,
            "cold items": learned == 0,
            "rare items": (learned > 0) & (learned <= LIGHT),
            "window 1": w == 1,
            "window 2-5": (w >= 2) & (w <= 5),
            "window 6-15": (w >= 6) & (w <= 15),
            "window 16-31": (w >= 16) & (w < WINDOW),
            "window 32": w == WINDOW,
        }

    def by_segment(self) -> dict[str, dict[str, float | int]]:
        """HR@k of every method in every segment that has questions, and how many these are."""
        found: dict[str, dict[str, float | int]] = {}
        for segment, keep in self.segments().items():
            if keep.any():
                hit = {n: float(hits(a.ranks[:, keep], self.k).mean()) for n, a in self.answers.items()}
                found[segment] = {"questions": int(keep.sum()), **hit}
        return found
