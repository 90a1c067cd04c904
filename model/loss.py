"""What is minimised: cross-entropy of the next items, over all items or over a sample of them, and what goes beside.

The softmax is over the items that the user has not met yet: these are the candidates of serving, and a model that
need not learn to push down what is filtered anyway is better at the rest (MovieLens-100K, events 72% to 80%: HR@10
.233 against .211 with all items in the softmax).

Names: B windows, K positions, X of them asked, C candidates, D the length of a vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from model.baselines import padded
from model.config import TrainConfig
from model.fusion import window_facts
from model.recommender import Recommender
from model.sequences import Batch, Sequences
from model.softmax import NEVER, ranking_loss

TEMPERATURE = 0.1


Beside = Callable[[Batch, Tensor], Tensor]
"""(windows, their logits f32[X,C]) -> what is added to the loss."""


def batch_loss(
    model: Recommender,
    some: Batch,
    data: Sequences,
    text_NP: Tensor,
    c: TrainConfig,
    beside: Beside | None = None,
) -> Tensor:
    """The loss of these windows, a mean over targets. text_NP f32[N,P]: of the whole catalogue."""
    users_XD, items_CD, short_BKD = asked(model, some, data, text_NP, c.hide)
    target_X, met_XC = (torch.from_numpy(x).to(text_NP.device) for x in (some.target, some.met))
    if some.candidates is None:
        loss = ranking_loss(users_XD, items_CD, target_X, met_XC)
    else:
        rows_C = torch.from_numpy(some.candidates.rows).to(text_NP.device)
        chance_C = torch.from_numpy(some.candidates.log_chance).to(text_NP.device)
        loss = sampled(users_XD @ items_CD.T, torch.searchsorted(rows_C, target_X), chance_C, met_XC)
    if c.contrastive:
        loss = loss + c.contrastive * aligned(model, text_NP, target_X.unique())
    if beside is not None:
        loss = loss + beside(some, users_XD @ items_CD.T)
    return loss + head_loss(model, some, data, short_BKD, text_NP, c)


def answers(model: Recommender, some: Batch, data: Sequences, text_NP: Tensor) -> Tensor:
    """Logits of the candidates at each position that is asked, f32[X,C]."""
    users_XD, items_CD, _ = asked(model, some, data, text_NP)
    return users_XD @ items_CD.T


def asked(
    model: Recommender, some: Batch, data: Sequences, text_NP: Tensor, hide: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors at each position that is asked f32[X,D], the candidates' vectors f32[C,D], and the window vectors
    f32[B,K,D].
    """
    device = text_NP.device
    rows_BK, actions_BK, times_BK, asked_BK = (
        torch.from_numpy(x).to(device) for x in (some.rows, some.actions, some.times, some.asked)
    )
    there_BK = rows_BK >= 0
    place_N, items_UD = _embedded(model, some, text_NP)
    kept_BK = there_BK & (torch.rand(there_BK.shape, device=device) >= hide) if hide else there_BK
    inputs_BKD = items_UD[place_N[rows_BK.clamp(min=0)]] * kept_BK[..., None]
    short_BKD = model.short(inputs_BKD, actions_BK, times_BK, there_BK)
    which, at = np.unique(some.profile, return_inverse=True)  # windows share profiles: each is projected once
    profile_USP, mask_US = padded([data.profiles[p] for p in which], text_NP.shape[1], device)
    at_X = torch.from_numpy(at).to(device)
    answered = asked_BK
    if some.back is not None:
        row, place = np.nonzero(some.asked)
        answered = torch.from_numpy(row).to(device), torch.from_numpy(place - some.back).to(device)
    facts_X2 = window_facts(times_BK, there_BK)[answered]
    users_XD = model.fuse(short_BKD[answered], model.project(profile_USP)[at_X], mask_US[at_X], facts_X2).vectors
    if some.candidates is None:
        items_CD = items_UD
    else:
        items_CD = items_UD[place_N[torch.from_numpy(some.candidates.rows).to(device)]]
    return users_XD, items_CD, short_BKD


def sampled(logits_XC: Tensor, target_X: Tensor, log_chance_C: Tensor, met_XC: Tensor) -> Tensor:
    """Cross-entropy in which each candidate stands for as many as its chance to be drawn is small: the sum is, on
    average, that over all items. The target (its column) is always there and stands for itself.
    """
    corrected_XC = (logits_XC - log_chance_C).masked_fill(met_XC, NEVER)
    own_X1 = logits_XC.gather(1, target_X[:, None]).to(corrected_XC.dtype)  # autocast keeps them in bf16
    return F.cross_entropy(corrected_XC.scatter(1, target_X[:, None], own_X1), target_X)


def aligned(model: Recommender, text_NP: Tensor, rows_M: Tensor) -> Tensor:
    """The contrastive term (InfoNCE; Oord et al. 2018): of these items' ids, a text must find its own, and the other
    way about. An item that nobody has met is so drawn to where its text would have it.
    """
    texts_MD = F.normalize(model.embed_text(text_NP[rows_M]), dim=-1)
    ids_MD = F.normalize(model.id(rows_M), dim=-1)
    alike_MM = texts_MD @ ids_MD.T / TEMPERATURE
    own_M = torch.arange(len(rows_M), device=rows_M.device)
    return (F.cross_entropy(alike_MM, own_M) + F.cross_entropy(alike_MM.T, own_M)) / 2


def head_loss(
    model: Recommender, some: Batch, data: Sequences, short_BKD: Tensor, text_NP: Tensor, c: TrainConfig
) -> Tensor:
    """What the heads add, over all positions that something follows."""
    total = short_BKD.new_zeros(())
    there = some.following >= 0
    next_X = some.following[there]
    if model.next_action is not None:
        said_XA = model.next_action(short_BKD[torch.from_numpy(there).to(text_NP.device)])
        true_X = torch.from_numpy(data.actions[next_X]).to(said_XA.device)
        total = total + c.action_loss * F.cross_entropy(
            said_XA, torch.from_numpy(data.actions[next_X]).to(said_XA.device)
        )
    valued = np.isfinite(data.values[next_X])
    if model.rating is not None and valued.any():
        there[there] = valued
        said_X, true_X = _rated(model, data, some.following[there], short_BKD[torch.from_numpy(there)], text_NP)
        total = total + c.rating_loss * F.mse_loss(said_X / model.rating.spread, true_X / model.rating.spread)
    return total


def _rated(
    model: Recommender, data: Sequences, next_X: NDArray[np.int64], short_XD: Tensor, text_NP: Tensor
) -> tuple[Tensor, Tensor]:
    """What the rating head says of the values that follow, and what they are. Items are taken as they are: the
    ranking alone shapes their vectors.
    """
    assert model.rating is not None
    rows_X = torch.from_numpy(data.rows[next_X]).to(text_NP.device)
    items_XD = model.embed(text_NP[rows_X], rows_X).detach()
    return model.rating(short_XD, items_XD), torch.from_numpy(data.values[next_X]).to(text_NP.device)


def head_outcomes(
    model: Recommender, some: Batch, data: Sequences, text_NP: Tensor, first: int
) -> tuple[NDArray, NDArray, NDArray]:
    """Of the interactions that follow in these windows, as far as they are events from `first` on: which action was
    said and which it was, i64[n] each (empty without that head), and how far off the value was, f32[m].
    """
    rows_BK, actions_BK, times_BK = (
        torch.from_numpy(x).to(text_NP.device) for x in (some.rows, some.actions, some.times)
    )
    there_BK = rows_BK >= 0
    items_BKD = model.embed(text_NP[rows_BK.clamp(min=0)].flatten(0, 1), rows_BK.clamp(min=0).flatten())
    short_BKD = model.short(items_BKD.view(*rows_BK.shape, -1) * there_BK[..., None], actions_BK, times_BK, there_BK)
    late = (some.following >= 0) & (data.events[some.following] >= first)
    next_X, short_XD = some.following[late], short_BKD[torch.from_numpy(late).to(text_NP.device)]
    none = np.zeros(0, np.int64)
    said, true, off = none, none, np.zeros(0, np.float32)
    if model.next_action is not None:
        said, true = model.next_action(short_XD).argmax(1).cpu().numpy(), data.actions[next_X]
    if model.rating is not None:
        one, other = _rated(model, data, next_X, short_XD, text_NP)
        off = (one - other).abs().cpu().numpy()
        off = off[np.isfinite(off)]
    return said, true, off


def _embedded(model: Recommender, some: Batch, text_NP: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors that a batch needs, f32[U,D], and where each item of the catalogue stands in them: all, or with
    sampled candidates these and the inputs only.
    """
    place_N = torch.arange(len(text_NP), device=text_NP.device)
    if some.candidates is None:
        return place_N, model.embed(text_NP, place_N)
    used = np.union1d(some.candidates.rows, some.rows[some.rows >= 0])
    rows_U = torch.from_numpy(used).to(text_NP.device)
    place_N[rows_U] = torch.arange(len(used), device=text_NP.device)
    return place_N, model.embed(text_NP[rows_U], rows_U)
