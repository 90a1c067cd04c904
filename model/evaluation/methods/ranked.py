"""Two stages: a rough score finds the candidates, a log-linear blend of features ranks them.

The weights of the blend are no settings: they are fitted at every `learn`, on the newest part of what is learned, asked
and answered as the protocol asks, after the rest alone was learned. So nothing of a test is in them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from model.choice import fitted
from model.evaluation.exams import Asked, Method, Paper
from model.replay import Timeline

Papers = Callable[[Timeline, int, int], Iterator[Paper]]
"""Questions about events first..last-1 of a timeline, as a protocol asks them."""
Features = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
"""Features f32[B,C,F] of candidates i64[B,C] of B questions, whose rough scores are f32[B,C]."""


class Ranked(Method):
    """What is common; `online`: papers of the fit are told what happened before each. The first feature is the
    logarithm of the rough score, and alone what ranks where nothing can be fitted.
    """

    candidates = 200
    held = 0.2
    """The share of what is learned that weights are fitted on."""
    most = 5000
    """Questions that they are fitted on, evenly spread."""

    def __init__(self, papers: Papers, online: bool) -> None:
        self._papers, self._online = papers, online

    @abstractmethod
    def know(self, line: Timeline, first: int, last: int) -> None:
        """Events first..last-1 are known beside those before; first = 0: these alone."""

    @abstractmethod
    def look(self, asked: Asked) -> tuple[NDArray[np.float32], Features]:
        """The rough score of everything, f32[B,N], above 0, and what gives the features of some."""

    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the F features."""

    def learn(self, line: Timeline, end: int) -> None:
        begin = int(end * (1 - self.held))
        self.know(line, 0, begin)
        papers = list(self._papers(line, begin, end))
        stride = max(1, -(-sum(len(p.asked) for p in papers) // self.most))
        features, chosen, known = [], [], begin
        for paper in papers:
            if self._online and paper.known > known:
                self.know(line, known, paper.known)
                known = paper.known
            some = paper.take(np.arange(0, len(paper.asked), stride))
            found, place = self._example(some)
            features.append(found)
            chosen.append(place)
        prior = np.zeros(len(self.names()), np.float32)
        prior[0] = 1
        self.weights = fitted(np.concatenate(features), np.concatenate(chosen), prior) if features else prior
        self.know(line, known, end)

    def add(self, line: Timeline, first: int, last: int) -> None:
        self.know(line, first, last)

    def _example(self, paper: Paper) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features of the candidates of those questions whose answer is among them, and which it is."""
        rough, features = self.look(paper.asked)
        cols, some = self._found(rough, paper.asked)
        hit = cols == paper.targets[:, None]
        there = hit.any(1)
        return features(cols, some)[there], hit[there].argmax(1)

    def _found(self, rough: NDArray[np.float32], asked: Asked) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The candidates of each question, i64[B,C], the roughly best first, and their scores."""
        shown = torch.from_numpy(np.where(asked.allowed, rough, -np.inf).astype(np.float32))
        cols = torch.topk(shown, min(self.candidates, rough.shape[1]), dim=1)[1].numpy()
        return cols, np.take_along_axis(rough, cols, 1)

    def scores(self, asked: Asked) -> NDArray[np.floating]:
        rough, features = self.look(asked)
        cols, some = self._found(rough, asked)
        ranked = features(cols, some) @ self.weights
        # whoever is no candidate comes behind them, in the rough order
        out = rough - some.max(1, keepdims=True) + ranked.min(1, keepdims=True) - 1
        np.put_along_axis(out, cols, ranked, 1)
        return out
