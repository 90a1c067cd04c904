"""A trained model goes on with a newer period: what is new to it, and what keeps it from forgetting.

Not the training loop (`train.py`), which asks here for three things: which windows an epoch is of (all new ones, and a
draw of old ones, replay); where the ids of new items begin (where their texts would have them); and what is added to
the loss (distillation: answer as the model did that it began from; Li and Hoiem, Learning without Forgetting, 2016).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import log_softmax

from model.loss import NEVER, Beside, answers
from model.recommender import Recommender
from model.replay import Timeline
from model.sequences import Batch, Cut, Sequences

RIDGE = 10.0
"""Texts are at length 1: so many items must agree before a direction of their texts counts by half."""
MOST = 20_000
"""Items, evenly spread, that the ids of new ones are learned from."""


class ContinualError(ValueError):
    """A training that cannot go on from where the model is; the message says why."""


def first_new(line: Timeline, since: int) -> int:
    """The first event later than `since` (ms): from there on it is new. Raises ContinualError where none is."""
    first = int(np.searchsorted(line.times, since, side="right"))
    if first == len(line):
        raise ContinualError(f"no event is later than {since}, the newest that the model has learned: bring newer ones")
    return first


def chosen(data: Sequences, cuts: Sequence[Cut], first: int, replay: float, rng: np.random.Generator) -> list[Cut]:
    """The windows that ask for an event from `first` on, and `replay` old ones for each of these, as far as there are
    so many.
    """
    new = np.concatenate([[0], np.cumsum(data.events >= first)])
    asks = np.array([new[end] > new[start + 1] for _, start, end in cuts], bool)
    old = np.flatnonzero(~asks)
    drawn = rng.choice(old, min(len(old), round(replay * int(asks.sum()))), replace=False)
    return [cuts[at] for at in np.sort(np.concatenate([np.flatnonzero(asks), drawn]))]


def unmet(line: Timeline, first: int, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which items of the catalogue are new, bool[N]: those that the model does not know (`known` bool[N]) and, where
    old events are at hand, those that nobody had met in them.
    """
    rows = line.rows[:first]
    met = np.bincount(rows[rows >= 0], minlength=len(known)) > 0
    return ~known | (~met if met.any() else np.zeros(len(known), bool))


def place_ids(model: Recommender, text_NP: Tensor, new: NDArray[np.bool_]) -> None:
    """The id embeddings of new items begin where those of others with such texts are (ridge regression of ids on
    texts), in place of noise.
    """
    if new.all() or not new.any():
        return
    known = np.flatnonzero(~new)
    some = torch.from_numpy(known[:: -(-len(known) // MOST)])
    fresh = torch.from_numpy(np.flatnonzero(new))
    with torch.no_grad():
        texts_MP, ids_MD = (x.double() for x in (model.direction(text_NP[some]), model.id.weight[some]))
        mean_D, ridge = (
            ids_MD.mean(0),
            RIDGE * torch.eye(texts_MP.shape[1], dtype=torch.float64, device=texts_MP.device),
        )
        weights_PD = torch.linalg.solve(texts_MP.T @ texts_MP + ridge, texts_MP.T @ (ids_MD - mean_D))
        model.id.weight[fresh] = (mean_D + model.direction(text_NP[fresh]).double() @ weights_PD).float()


def distilled(model: Recommender, data: Sequences, text_NP: Tensor, new: NDArray[np.bool_], weight: float) -> Beside:
    """What holds a model to what it says now: weight times KL(now, then) over the items that are not new, a mean over
    targets.
    """
    before = copy.deepcopy(model).eval().requires_grad_(False)
    new_N = torch.from_numpy(new).to(text_NP.device)

    def beside(some: Batch, logits_XC: Tensor) -> Tensor:
        if not len(logits_XC):
            return logits_XC.new_zeros(())
        with torch.no_grad():
            then_XC = answers(before, some, data, text_NP)
        new_C = new_N if some.candidates is None else new_N[torch.from_numpy(some.candidates.rows).to(new_N.device)]
        hidden_XC = torch.from_numpy(some.met).to(logits_XC.device) | new_C
        return weight * divergence(then_XC.masked_fill(hidden_XC, NEVER), logits_XC.masked_fill(hidden_XC, NEVER))

    return beside


def divergence(then_XC: Tensor, now_XC: Tensor) -> Tensor:
    """KL(then || now) of two softmaxes, a mean over rows."""
    then_XC, now_XC = log_softmax(then_XC.float(), -1), log_softmax(now_XC.float(), -1)
    return (then_XC.exp() * (then_XC - now_XC)).sum(-1).mean()
