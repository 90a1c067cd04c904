"""The text encoder learns a domain: texts of items that follow each other are drawn together.

Not the training of a recommender, which reads texts as they come out of this, and no part of serving: a worker only
merges what was learned (`adapter.py`). Pairs are an item and one of the few that its user met before it (item2vec;
Barkan and Koenigstein 2016); the loss is InfoNCE over the other pairs of the step (van den Oord et al. 2018), corrected
for how popular an item is (logQ; Yi et al. 2019), since popularity is no matter of texts; what is learned is a LoRA
adapter (Hu et al. 2021), by the library `peft`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from model.adapter import Adapter
from model.catalog import Catalog
from model.config import AdaptConfig, TrainConfig
from model.dataset import Events
from model.encoder import TextEncoder
from model.history import by_user
from model.replay import Timeline, timeline

Progress = Callable[[int, int], None]
LAYERS = ("query", "value")
"""The linear layers of BERT that are adapted, by the last part of their names: those of the article."""
SCALE = 2.0
WARM_UP = 0.1


class AdaptError(RuntimeError):
    """Texts cannot be adapted; the message says what to do."""


def learned(
    events: Events,
    catalog: Catalog,
    encoder: TextEncoder,
    config: TrainConfig,
    held_out: bool = True,
    progress: Progress | None = None,
) -> Adapter:
    """An adapter of `encoder`, learned as `config.adapt` says from these events, in time order.

    held_out: leave out the last of them, which `train` chooses by: what is chosen then is not flattered. Steps are in
    the encoder's precision. One seed gives one adapter on one machine. Raises AdaptError.
    """
    if config.model.texts != "bert":
        raise AdaptError(f"adapt is of BERT, and this model's texts are read by {config.model.texts}: leave one out")
    line = timeline(events, catalog, config.action_weights)
    end = int(len(line) * (1 - config.held_out)) if held_out else len(line)
    return Lessons(line, end, catalog, encoder, config).adapter(progress)


def pairs_before(line: Timeline, end: int, within: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """One pair of each liked item of the first `end` events: it, and one that its user liked up to `within` places
    before, drawn evenly. Catalogue rows i64[n,2], never an item with itself.
    """
    at = np.flatnonzero((line.rows[:end] >= 0) & (line.weights[:end] > 0))
    order, users = by_user(line.users[at], line.times[at], line.actions[at], line.items[at])
    rows = line.rows[at[order]].astype(np.int64)
    place = np.arange(len(rows)) - np.searchsorted(users, users)
    back = np.minimum(place, 1 + (rng.random(len(rows)) * np.minimum(place, within)).astype(np.int64))
    before = rows[np.arange(len(rows)) - back]
    return np.stack([rows, before], axis=1)[before != rows]


class Lessons:
    """One adapter in the making."""

    def __init__(self, line: Timeline, end: int, catalog: Catalog, encoder: TextEncoder, config: TrainConfig) -> None:
        self._line, self._end, self._texts = line, end, catalog.texts
        self._encoder, self._config, self._seed = encoder, config.adapt, config.seed
        self._tokenizer, bert = encoder.opened()
        self._bert = _with_lora(bert, config.adapt, config.seed).to(config.device)
        self._parameters = [p for p in self._bert.parameters() if p.requires_grad]

    def adapter(self, progress: Progress | None = None) -> Adapter:
        c, rng = self._config, np.random.default_rng(self._seed)
        optimizer = torch.optim.AdamW(self._parameters, lr=c.learning_rate, weight_decay=0.0)
        pairs, used = pairs_before(self._line, self._end, c.within, rng), 0
        if len(np.unique(pairs)) < 3:
            raise AdaptError("no texts to tell apart: nobody has liked two items; bring more events")
        met = np.bincount(pairs[:, 1], minlength=len(self._texts))
        log_share = torch.from_numpy(np.log(np.maximum(met, 1) / len(pairs)).astype(np.float32))
        rng.shuffle(pairs)
        for step in range(c.steps):
            if used >= len(pairs):
                pairs, used = pairs_before(self._line, self._end, c.within, rng), 0
                rng.shuffle(pairs)
            some, used = pairs[used : used + c.pairs], used + c.pairs
            for part in optimizer.param_groups:
                part["lr"] = c.learning_rate * min((step + 1) / (WARM_UP * c.steps), (c.steps - step) / c.steps)
            optimizer.zero_grad()
            self._loss(some, log_share).backward()
            torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
            optimizer.step()
            if progress is not None:
                progress(step + 1, c.steps)
        return self._taken()

    def _loss(self, pairs_B2: NDArray[np.int64], log_share: Tensor) -> Tensor:
        """InfoNCE: which of the step's earlier items goes with each item. One that is the answer, or the item itself,
        is no wrong answer.
        """
        rows, place = np.unique(pairs_B2, return_inverse=True)
        halved = self._encoder.precision == "bf16"
        with torch.autocast(self._bert.device.type, torch.bfloat16, enabled=halved):
            vectors = self._encoder.vectors(self._tokenizer, self._bert, [self._texts[r] for r in rows])
        place_B2 = torch.from_numpy(place.reshape(pairs_B2.shape)).to(vectors.device)
        item_B, before_B = torch.from_numpy(pairs_B2).unbind(1)
        scores_BB = vectors[place_B2[:, 0]] @ vectors[place_B2[:, 1]].T / self._config.temperature
        scores_BB = scores_BB - log_share[before_B].to(vectors.device)
        same_BB = (before_B[None] == before_B[:, None]) | (before_B[None] == item_B[:, None])
        same_BB &= ~torch.eye(len(pairs_B2), dtype=torch.bool)
        scores_BB = scores_BB.masked_fill(same_BB.to(vectors.device), -torch.inf)
        return cross_entropy(scores_BB, torch.arange(len(pairs_B2), device=vectors.device))

    def _taken(self) -> Adapter:
        """The learned matrices, by the names that layers had before."""
        state: dict[str, Tensor] = self._bert.state_dict()
        down, up = {}, {}
        for key, tensor in state.items():
            name, found, rest = key.removeprefix("base_model.model.").partition(".lora_")
            if found:
                array = tensor.detach().float().cpu().numpy()
                (down if rest.startswith("A") else up)[name] = array if rest.startswith("A") else SCALE * array
        return Adapter(self._encoder.base_id(), down, up)


def _with_lora(bert: Any, config: AdaptConfig, seed: int) -> Any:
    """The encoder, frozen, with matrices to be learned beside its layers. Raises AdaptError where peft is missing."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as e:
        raise AdaptError("texts are adapted by peft, which is not installed: pip install 'eddyline[lora]'") from e
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chosen = LoraConfig(r=config.rank, lora_alpha=round(SCALE * config.rank), target_modules=list(LAYERS))
        return get_peft_model(bert, chosen).eval()
