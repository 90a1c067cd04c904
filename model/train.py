"""Next-item training: from events in time order to a recommender.

Not an evaluation of it (that is `evaluate.py`, on later events than any seen here). What happens, in order:

1. the last tenth of the events is held out; the model is trained on the rest, and the best epoch is chosen on
the held-out events; 2. the weights of neural score and counts (`Mix`) are fitted on the held-out events; 3.
the model is trained again from the start on all events, for as many epochs.

The loss is the full softmax over the items that the user has not met yet: these are the candidates of
serving, and a model that need not learn to push down what is filtered anyway is better at the rest
(MovieLens-100K, events 72% to 80%: HR@10 .233 against .211 with all items in the softmax).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.baselines import padded
from model.catalog import Catalog
from model.config import ModelConfig
from model.dataset import Events
from model.engine import Engine
from model.fusion import window_facts
from model.longterm import Encode
from model.mix import Mix
from model.online import OnlineParams
from model.recommender import Recommender
from model.replay import Timeline, timeline
from model.sequences import Batch, Sequences, batch, sequences, windows
from model.tune import Validation, fit_mix, validation_set

Progress = Callable[[dict], None]
WARM_UP = 100
LAST_RATE = 0.05


class TrainError(ValueError):
    """The events cannot be trained on; the message says why."""


class TrainConfig(BaseModel):
    """How to train. The defaults were chosen on MovieLens-100K, events 72% to 80% in time order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig = ModelConfig()
    epochs: int = Field(default=9, ge=1, description="at most; the learning rate falls over all of them")
    patience: int = Field(default=3, ge=1, description="epochs without a better NDCG@10 before stopping")
    batch: int = Field(default=32, ge=1, description="windows per step")
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    id_dropout: float = Field(default=0.05, ge=0, lt=1, description="chance that an item has its text only")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of events, the last, that choose")
    validation_events: int = Field(default=2000, ge=1, description="held-out events ranked after an epoch")
    refit: bool = Field(default=True, description="train again on all events at the end")
    seed: int = 0
    device: str = "cpu"
    action_weights: dict[str, float] = Field(default={}, description="overrides of the action weights")


@dataclass(frozen=True, eq=False)
class _Job:
    """What stays the same from the first epoch to the last."""

    config: TrainConfig
    architecture: ModelConfig
    line: Timeline
    catalog: Catalog
    text: NDArray[np.float32]
    encode: Encode | None
    report: Progress

    def engine(self, model: Recommender, mix: Mix | None = None) -> Engine:
        return Engine(self.catalog, self.text, model, mix, self.config.device, encode=self.encode)


def train(
    events: Events,
    catalog: Catalog,
    text_vectors: NDArray[np.float32],
    config: TrainConfig | None = None,
    progress: Progress | None = None,
    encode: Encode | None = None,
) -> Recommender:
    """A recommender from events in time order, its `metrics` filled in. Raises TrainError.

    text_vectors f32[N,P], one per row of the catalogue. `progress` gets a dict per epoch: phase ("fit" or
    "refit"), epoch, epochs, loss, seconds, and in "fit" also hr and ndcg at 10. encode: for profiles that are
    documents. Reseeds torch's global generator: one seed fixes a run on one machine.
    """
    c, began = config or TrainConfig(), time.monotonic()
    line = timeline(events, catalog, c.action_weights)
    if (line.times[1:] < line.times[:-1]).any():
        raise TrainError("events are not in time order: sort them by ts first")
    split = int(len(line) * (1 - c.held_out))
    valid = validation_set(line, split, catalog, OnlineParams(), c.validation_events)
    if not len(valid.targets):
        raise TrainError(f"no held-out event, of the last {len(line) - split}, can be ranked: bring more events")
    architecture = c.model.model_copy(update={"text_dim": text_vectors.shape[1], "items": len(catalog)})
    job = _Job(c, architecture, line, catalog, text_vectors, encode, progress or (lambda _: None))
    model, best = _fit(job, split, valid, c.epochs)
    mix, fitted = fit_mix(job.engine(model), job.engine(model, model.mix.model_copy(update={"text": 1.0})), valid)
    if c.refit:
        model, _ = _fit(job, len(line), None, best)
    final = Recommender(architecture.model_copy(update={"mix": mix}))
    final.load_state_dict(model.state_dict())
    final.metrics = {
        "validation": fitted,
        "epochs": best,
        "events": len(line),
        "held_out": len(line) - split,
        "seconds": round(time.monotonic() - began, 1),
    }
    return final.eval()


def _fit(job: _Job, end: int, valid: Validation | None, stop: int) -> tuple[Recommender, int]:
    """Trains on the first `end` events: with `valid` until it gets no better, without for `stop` epochs.

    Returns the model of the best epoch, or of the last, and which that was.
    """
    c, began = job.config, time.monotonic()
    torch.manual_seed(c.seed)
    rng = np.random.default_rng(c.seed)
    model = Recommender(job.architecture, c.dropout, c.id_dropout)
    model.set_items(job.catalog.hashes, job.text)
    model.to(c.device)
    long_term = model.long_term(job.text, job.catalog.titles, job.encode)
    data = sequences(job.line, end, long_term, job.text.shape[1])
    if not data.target.any():
        raise TrainError("no user has met two different items: there is nothing to predict")
    steps = math.ceil(len(windows(data, model.window, rng)) / c.batch)
    optimizer = _optimizer(model, c)
    best, best_epoch, kept = -1.0, stop, model.state_dict()
    for epoch in range(1, stop + 1):
        loss = _epoch(job, model, data, optimizer, rng, (epoch - 1) * steps, c.epochs * steps)
        seen = {"phase": "refit" if valid is None else "fit", "epoch": epoch, "epochs": stop, "loss": loss}
        if valid is not None:
            hr, ndcg = valid.neural(job.engine(model))
            seen |= {"hr": hr, "ndcg": ndcg}
            if ndcg > best:
                best, best_epoch = ndcg, epoch
                kept = {k: v.detach().clone() for k, v in model.state_dict().items()}
        job.report(seen | {"seconds": time.monotonic() - began})
        if valid is not None and epoch - best_epoch >= c.patience:
            break
    if valid is not None:
        model.load_state_dict(kept)
    return model.eval(), best_epoch


def _epoch(
    job: _Job,
    model: Recommender,
    data: Sequences,
    optimizer: torch.optim.AdamW,
    rng: np.random.Generator,
    step: int,
    total: int,
) -> float:
    """One pass over all windows, from `step` of `total` on. The mean loss."""
    model.train()
    c, cuts = job.config, windows(data, model.window, rng)
    rng.shuffle(cuts)
    text_NP = torch.from_numpy(job.text).to(c.device)
    losses = []
    for first in range(0, len(cuts), c.batch):
        for group in optimizer.param_groups:
            group["lr"] = c.learning_rate * rate(step, total)
        some = batch(data, cuts[first : first + c.batch], model.window, len(job.text))
        if len(some.target):
            loss = batch_loss(model, some, data.profiles, text_NP)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        step += 1
    model.eval()
    return float(np.mean(losses))


def rate(step: int, total: int) -> float:
    """The learning rate's factor: a linear warm-up over 100 steps, then a cosine from 1 down to 0.05 at
    `total`.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
    return min(1, (step + 1) / WARM_UP) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def batch_loss(model: Recommender, some: Batch, profiles: list[NDArray[np.float32]], text_NP: Tensor) -> Tensor:
    """The mean cross-entropy of the targets, among the items that their user had not met before."""
    device = text_NP.device
    rows_BK, actions_BK, times_BK, asked_BK, target_X, met_XN = (
        torch.from_numpy(c).to(device) for c in (some.rows, some.actions, some.times, some.asked, some.target, some.met)
    )
    there_BK = rows_BK >= 0
    items_ND = model.embed(text_NP, torch.arange(len(text_NP), device=device))
    inputs_BKD = items_ND[rows_BK.clamp(min=0)] * there_BK[..., None]
    short_BKD = model.short(inputs_BKD, actions_BK, times_BK, there_BK)
    which, at = np.unique(some.profile, return_inverse=True)  # windows share profiles: each is projected once
    profile_USP, mask_US = padded([profiles[p] for p in which], text_NP.shape[1], device)
    at_X = torch.from_numpy(at).to(device)
    facts_X2 = window_facts(times_BK, there_BK)[asked_BK]
    users_XD = model.fuse(short_BKD[asked_BK], model.project(profile_USP)[at_X], mask_US[at_X], facts_X2).vectors
    logits_XN = (users_XD @ items_ND.T).masked_fill(met_XN, -1e9)
    return F.cross_entropy(logits_XN, target_X)


def _optimizer(model: Recommender, c: TrainConfig) -> torch.optim.AdamW:
    """AdamW; only matrices decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": c.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=c.learning_rate, betas=(0.9, 0.98))
