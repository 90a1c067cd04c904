"""Next-item training: from events in time order to a recommender.

Not an evaluation of it (that is done on later events than any seen here). What happens, in order:

1. the last tenth of the events is held out; the model is trained on the rest, and the best epoch is chosen on
the held-out events; 2. the weights of neural score and counts (`Mix`) are fitted on the held-out events; 3.
the model is trained again from the start on all events, for as many epochs.

What is minimised is in `loss.py`; how an interrupted run goes on in `resume.py`, how several processes share one in
`parallel.py`.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import continual, resume, tfidf
from model.catalog import Catalog
from model.config import ModelConfig, TrainConfig
from model.dataset import Events
from model.engine import Engine
from model.habits import Habits
from model.heads import accuracy_f1
from model.longterm import Encode, Pooled
from model.loss import Beside, batch_loss, head_outcomes
from model.mix import Mix
from model.online import OnlineParams
from model.parallel import Group
from model.recommender import Recommender
from model.replay import Timeline, timeline
from model.sequences import Batch, Cut, Sampler, Sequences, batch, sequences, shuffled, windows
from model.tune import Validation, fit_habits, fit_mix, validation_set

Progress = Callable[[dict], None]
WARM_UP = 100
STEPS = 32
"""Steps that an epoch should have: where windows are few, a step takes fewer of them, though `FEWEST` at least."""
FEWEST = 8
LAST_RATE = 0.05


class TrainError(ValueError):
    """The events cannot be trained on; the message says why."""


@dataclass(eq=False)
class _Job:
    """What stays the same from the first epoch to the last; and what was told of each, which only grows."""

    config: TrainConfig
    architecture: ModelConfig
    line: Timeline
    catalog: Catalog
    text: NDArray[np.float32]
    values: NDArray[np.float32]
    encode: Encode | None
    start: Recommender | None
    report: Progress
    path: Path | None
    key: str
    group: Group
    goes_on: bool = False
    first: int = 0
    """The first event that is new to `start`, where it goes on from that."""
    curve: list[dict[str, Any]] = field(default_factory=list)

    def engine(self, model: Recommender, mix: Mix | None = None) -> Engine:
        c = self.config
        return Engine(self.catalog, self.text, model, mix, c.device, encode=self.encode, seen=c.seen)

    @property
    def rate(self) -> float:
        """The greatest learning rate."""
        return self.config.learning_rate * (self.config.continual.rate if self.goes_on else 1.0)

    def saved(self, phase: str) -> resume.State | None:
        """What an interrupted run left in this phase."""
        state = resume.read(self.path, self.key) if self.path is not None and self.group.first else None
        state = self.group.agreed(state)
        return state if state is not None and state.numbers["phase"] == phase else None

    def save(self, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        if self.path is not None and self.group.first:
            resume.write(self.path, self.key, numbers | {"curve": self.curve}, tensors)


def train(
    events: Events,
    catalog: Catalog,
    text_vectors: NDArray[np.float32],
    config: TrainConfig | None = None,
    progress: Progress | None = None,
    encode: Encode | None = None,
    resumable: Path | None = None,
    start: Recommender | None = None,
    group: Group | None = None,
    since: int | None = None,
    valid: Validation | None = None,
    learned: int | None = None,
) -> Recommender:
    """A recommender from events in time order, its `metrics` and `record` filled in. Raises TrainError.

    text_vectors f32[N,P], one per row of the catalogue. `progress` gets a dict per epoch: phase ("fit" or
    "refit"), epoch, epochs, loss, seconds, and in "fit" also hr and ndcg at 10. encode: for profiles that are
    documents. resumable: a file to keep the state in while it runs; where an interrupted run of the same training
    has left one, it goes on from there. start: a model to begin from, of the same parts, in place of noise; give events
    of its time too, or it forgets them. since: the newest event that `start` has learned, in ms: it goes on with what
    is later, as `continual.py` and `config.continual` say. group: the processes that train it together, all called
    alike; only the first reports and writes. valid: questions to choose by that are none of the events: then all events
    are learned from the start, and nothing is trained again; or none of the first `learned`. Reseeds torch's global
    generator: one seed fixes a run on one machine.
    """
    c, began = config or TrainConfig(), time.monotonic()
    line = timeline(events, catalog, c.action_weights)
    if c.habits and c.seen != "allow":
        raise TrainError('habits are what is met again, which is never shown: set [rank] seen = "allow"')
    if (line.times[1:] < line.times[:-1]).any():
        raise TrainError("events are not in time order: sort them by ts first")
    first, held_out = 0, c.held_out
    if since is not None:
        first, held_out = continual.first_new(line, since), c.continual.held_out
    if valid is not None:
        split = len(line) if learned is None else learned
    else:
        split = first + int((len(line) - first) * (1 - held_out))
    if valid is None:
        baskets = c.baskets or c.habits
        valid = validation_set(line, split, catalog, OnlineParams(), c.validation_events, c.seen, baskets)
    if not len(valid.targets):
        raise TrainError(f"no held-out event, of the last {len(line) - split}, can be ranked: bring more events")
    own = catalog.own.shape[1]
    read = tfidf.DIM if c.model.texts == "tfidf" else text_vectors.shape[1]
    sizes = {"text_dim": read + own, "own_dim": own, "items": len(catalog)}
    architecture = c.model.model_copy(update=sizes)
    begun = b"".join(p.detach().cpu().numpy().tobytes() for p in start.parameters()) if start is not None else b""
    columns = line.users, line.items, line.times, line.actions, catalog.hashes, text_vectors, valid.targets
    key = resume.key(c, begun, str(since), *columns)
    group = group or Group()
    report = progress if progress is not None and group.first else lambda _: None
    job = _Job(c, architecture, line, catalog, text_vectors, events.value, encode, start, report, resumable, key, group)
    job.goes_on, job.first = since is not None, first
    model, found = _chosen(job, split, valid)
    if c.refit and split < len(line):
        model, _ = _fit(job, len(line), None, found)
    final = Recommender(architecture.model_copy(update={"mix": Mix.model_validate(found["mix"])}))
    final.load_state_dict(model.state_dict())
    if "habits" in found:
        final.habits = Habits.learned(line, len(line), catalog, np.array(found["habits"], np.float32))
    final.metrics = {
        "validation": found["fitted"],
        "epochs": found["epochs"],
        "events": len(line),
        "held_out": len(line) - split,
        "seconds": round(time.monotonic() - began, 1),
    }
    final.record = {
        "config": c.model_dump(mode="json"),
        "texts": resume.key(text_vectors),
        "curve": job.curve,
        "until": int(line.times[-1]),
        "environment": environment() | {"processes": group.size, "bf16": halved(c)},
    }
    if resumable is not None and group.first:
        resumable.unlink(missing_ok=True)
    return final.eval()


def _chosen(job: _Job, split: int, valid: Validation) -> tuple[Recommender, dict[str, Any]]:
    """The model of the best epoch, and what was found on the held-out events: epochs, mix, fitted."""
    if (state := job.saved("refit")) is not None:
        job.curve[:] = state.numbers["curve"]
        return Recommender(job.architecture), state.numbers["found"]
    model, best = _fit(job, split, valid, {"epochs": job.config.epochs})
    found: dict[str, Any] = {}
    if job.group.first:
        mix, fitted = fit_mix(job.engine(model), job.engine(model, model.mix.model_copy(update={"text": 1.0})), valid)
        found = {"epochs": best, "mix": mix.model_dump(), "fitted": fitted | _head_figures(job, model, split)}
        if job.config.habits:
            habits, reached = fit_habits(job.engine(model, mix), Habits.learned(job.line, split, job.catalog), valid)
            found["habits"] = habits.weights.tolist()
            found["fitted"] |= {f"habits_{name}": value for name, value in reached.items()}
    return model, job.group.agreed(found)


def _fit(job: _Job, end: int, valid: Validation | None, found: dict[str, Any]) -> tuple[Recommender, int]:
    """Trains on the first `end` events: with `valid` until it gets no better, without for as many epochs as were
    found best.

    Returns the model of the best epoch, or of the last, and which that was.
    """
    c, phase, stop = job.config, "refit" if valid is None else "fit", found["epochs"]
    torch.manual_seed(c.seed)
    run = _Run(job, end)
    best, best_epoch, done, spent = -1.0, stop, 0, 0.0
    kept = run.weights()
    if (state := job.saved(phase)) is not None:
        job.curve[:] = state.numbers["curve"]
        best, best_epoch, done, spent = (state.numbers[n] for n in ("best", "best_epoch", "epoch", "seconds"))
        kept = state.part("kept.")
        run.restore(state)
    began = time.monotonic() - spent
    for epoch in range(done + 1, stop + 1):
        if valid is not None and done and epoch - 1 - best_epoch >= c.patience:
            break  # it had stopped already when it was interrupted
        loss = run.epoch(epoch)
        seen: dict[str, Any] = {"phase": phase, "epoch": epoch, "epochs": stop, "loss": loss}
        if valid is not None:
            hr, ndcg = job.group.agreed(valid.neural(job.engine(run.averaged())) if job.group.first else (0.0, 0.0))
            seen |= {"hr": hr, "ndcg": ndcg}
            if ndcg > best:
                best, best_epoch, kept = ndcg, epoch, run.weights()
        seconds = time.monotonic() - began
        job.curve.append(seen | {"seconds": round(seconds, 3)})
        numbers = {"phase": phase, "epoch": epoch, "best": best, "best_epoch": best_epoch, "seconds": seconds}
        run.save(numbers | {"found": found}, {f"kept.{n}": t for n, t in kept.items()} if valid is not None else {})
        job.report(seen | {"seconds": seconds})
        if valid is not None and epoch - best_epoch >= c.patience:
            break
    run.model.load_state_dict(kept if valid is not None else run.weights())
    return run.model.eval(), best_epoch


class _Run:
    """A model in training: what changes with every step."""

    def __init__(self, job: _Job, end: int) -> None:
        c = self._config = job.config
        self._job = job
        self._rng = np.random.default_rng(c.seed)
        self.model = Recommender(job.architecture, c.dropout, c.id_dropout)
        if self.model.lexicon is not None:
            self.model.lexicon.fit(job.catalog.texts)
        contents = self.model.contents(job.catalog, job.text)
        self.model.set_items(job.catalog.hashes, contents, c.id_from_text)
        if job.start is not None:
            self.model.begin_from(job.start)
            contents = self.model.contents(job.catalog, job.text)  # as the model reads them that it began from
        self._text_NP = torch.from_numpy(contents).to(c.device)
        long_term = self.model.long_term(contents, job.catalog.titles, job.encode)
        again = c.seen == "allow"
        self._data = sequences(job.line, end, long_term, contents.shape[1], job.values, again, c.baskets)
        if not self._data.target.any():
            raise TrainError("no user has met two different items, and so nothing can be predicted: bring more events")
        if self.model.rating is not None:
            self.model.rating.set_values(self._data.values[np.isfinite(self._data.values)])
        self.model.to(c.device)
        self._beside = self._going_on(job) if job.goes_on else None
        count = len(self._cuts(self._data))
        self._batch = min(c.batch, max(count // STEPS, FEWEST))
        self._steps = math.ceil(count / self._batch)
        self._parameters = list(self.model.parameters())
        self._optimizer = _optimizer(self.model, c)
        self._halved = halved(c)
        self._mean = {n: p.detach().clone() for n, p in self.model.named_parameters()} if c.ema else {}

    def _going_on(self, job: _Job) -> Beside | None:
        """Places what is new to the model that it goes on from. What holds it to that, where it is asked for."""
        assert job.start is not None
        new = continual.unmet(job.line, job.first, np.isin(job.catalog.hashes, job.start.known))
        continual.place_ids(self.model, self._text_NP, new)
        weight = self._config.continual.distill
        return continual.distilled(self.model, self._data, self._text_NP, new, weight) if weight else None

    def _cuts(self, data: Sequences) -> list[Cut]:
        """The windows of an epoch."""
        cuts = windows(data, self.model.window, self._rng)
        if not self._job.goes_on:
            return cuts
        return continual.chosen(data, cuts, self._job.first, self._config.continual.replay, self._rng)

    def epoch(self, number: int) -> float:
        """One pass over all windows. The mean loss."""
        c, data, model, group = self._config, self._data, self.model, self._job.group
        if c.shuffle:
            data = shuffled(data, self._rng)
        sampler = None
        if len(self._text_NP) > c.full_softmax:
            own = np.random.default_rng((c.seed, number, group.rank))
            sampler = Sampler(data, len(self._text_NP), c.negatives, own)
        if not group.first:  # each its own noise; the first's is that of a run with one process
            torch.manual_seed(c.seed + 1_000_003 * (number * group.size + group.rank))
        cuts = self._cuts(data)
        self._rng.shuffle(cuts)
        model.train()
        losses, step = [], (number - 1) * self._steps
        for first in range(0, len(cuts), self._batch):
            share = cuts[first : first + self._batch][group.rank :: group.size]
            some = batch(data, share, model.window, len(self._text_NP), sampler) if share else None
            loss = self._step(some, data, rate(step, c.epochs * self._steps))
            if loss is not None:
                losses.append(loss)
            step += 1
        model.eval()
        return float(np.mean(losses))

    def _step(self, some: Batch | None, data: Sequences, factor: float) -> float | None:
        """One step on these windows, and on those of the other processes. The loss, where there was a target."""
        self._optimizer.zero_grad()
        loss, targets = 0.0, len(some.target) if some is not None else 0
        if some is not None and targets:
            with torch.autocast(self._text_NP.device.type, torch.bfloat16, enabled=self._halved):
                said = batch_loss(self.model, some, data, self._text_NP, self._config, self._beside)
            said.backward()
            loss = said.item()
        mean = self._job.group.averaged(self._parameters, loss, targets)
        if mean is not None:
            self._walk(factor)
        return mean

    def _walk(self, factor: float) -> None:
        for part in self._optimizer.param_groups:
            part["lr"] = self._job.rate * factor
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        with torch.no_grad():
            for name, mean in self._mean.items():
                mean.lerp_(self.model.get_parameter(name), 1 - self._config.ema)

    def weights(self) -> dict[str, Tensor]:
        """A copy of what the model would be saved as: its weights, or their average."""
        whole = self.model.state_dict() | self._mean
        return {n: t.detach().clone() for n, t in whole.items()}

    def averaged(self) -> Recommender:
        """The model with these weights, to be asked and thrown away."""
        if not self._mean:
            return self.model
        with torch.random.fork_rng(devices=[]):
            other = Recommender(self._job.architecture)
        other.load_state_dict(self.weights())
        return other.to(self._config.device).eval()

    def save(self, numbers: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """All that `restore` needs."""
        said, state = resume.randomness(self._rng)
        parts = {"model.": self.model.state_dict(), "mean.": self._mean, "optimizer.": resume.flat(self._optimizer)}
        named = {prefix + n: t for prefix, part in parts.items() for n, t in part.items()}
        self._job.save(numbers | {"rng": said}, tensors | named | {"rng": state})

    def restore(self, state: resume.State) -> None:
        self.model.load_state_dict(state.part("model."))
        for name, tensor in state.part("mean.").items():
            self._mean[name].copy_(tensor)
        resume.restore_optimizer(self._optimizer, state.part("optimizer."))
        resume.restore_randomness(self._rng, state.numbers["rng"], state.tensors["rng"])


def _head_figures(job: _Job, model: Recommender, split: int) -> dict[str, float]:
    """How the heads do on the held-out events: accuracy and F1 of the next action, MAE of the value."""
    if model.next_action is None and model.rating is None:
        return {}
    contents = model.contents(job.catalog, job.text)
    data = sequences(job.line, len(job.line), Pooled(contents[:, :1]), 1, job.values)  # no head reads a profile
    text_NP = torch.from_numpy(contents).to(job.config.device)
    cuts = windows(data, model.window, np.random.default_rng(0))
    parts = []
    with torch.inference_mode():
        for first in range(0, len(cuts), job.config.batch):
            some = batch(data, cuts[first : first + job.config.batch], model.window, len(contents))
            parts.append(head_outcomes(model, some, data, text_NP, split))
    said, true, off = (np.concatenate(x) for x in zip(*parts, strict=True))
    figures: dict[str, float] = {}
    if len(said):
        figures["next_action_accuracy"], figures["next_action_f1"] = accuracy_f1(said, true)
    if len(off):
        figures["rating_mae"] = float(off.mean())
    return figures


def halved(c: TrainConfig) -> bool:
    """Whether steps are computed in bfloat16 where that is precise enough (autocast); weights stay float32."""
    if c.precision == "auto":
        return c.device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)
    return c.precision == "bf16"


def environment() -> dict[str, Any]:
    """What a run's figures depend on beside its settings."""
    versions = {name: metadata.version(name) for name in ("eddyline", "torch", "numpy", "transformers")}
    versions["python"] = platform.python_version()
    machine = {"platform": platform.platform(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return versions | machine | gpu


def rate(step: int, total: int) -> float:
    """The learning rate's factor: a linear warm-up over 100 steps, or a fifth of all where that is less, then a cosine
    from 1 down to 0.05 at `total`.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(step / total, 1)))
    return min(1, (step + 1) / min(WARM_UP, max(total // 5, 1))) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def _optimizer(model: Recommender, c: TrainConfig) -> torch.optim.AdamW:
    """AdamW; only matrices decay."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": c.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=c.learning_rate, betas=(0.9, 0.98))
