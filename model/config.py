"""What a model is made of and how it is trained, as settings. Nothing heavy is imported here: whoever only reads
settings does not wait for torch.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from model.diversity import DiversityConfig
from model.explore import ExploreConfig
from model.exposure import ExposureConfig
from model.fatigue import FatigueConfig
from model.feedback import FeedbackConfig
from model.history import WINDOW
from model.mix import Mix
from model.rules import RulesConfig, Seen


class RankConfig(BaseModel):
    """What may be in a list; training is told, so that what it fits is what is served."""

    model_config = ConfigDict(extra="forbid")

    seen: Seen = Field(
        default="exclude",
        description="allow: what a user has met may be shown again, as where people buy the same every week",
    )
    exposure: ExposureConfig = ExposureConfig()
    rules: RulesConfig = RulesConfig()
    diversity: DiversityConfig = DiversityConfig()
    explore: ExploreConfig = ExploreConfig()
    fatigue: FatigueConfig = FatigueConfig()
    feedback: FeedbackConfig = FeedbackConfig()


BOTH_WAYS = ("lstm", "gru")
"""Encoders that may read a window from both ends."""


class ModelConfig(BaseModel):
    """What a model is made of; with its weights, all that is needed to load it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_term: Literal["gpt", "lstm", "gru", "cnn", "cnn-lstm-attention"] = "cnn-lstm-attention"
    long_term: Literal["pooled", "counted", "document", "buckets"] = "pooled"
    fusion: Literal["attention", "steps", "alpha", "gate"] = "attention"
    version: int = Field(default=1, ge=1, description="the number after the @ of its name")
    dim: int = Field(default=96, ge=8, description="length of user and item vectors")
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1, description="gpt: heads of attention")
    both_ways: bool = Field(default=False, description="lstm, gru: read each window from both ends")
    window: int = Field(default=WINDOW, ge=1, description="interactions that the short-term encoder reads")
    texts: Literal["bert", "tfidf"] = Field(default="bert", description="what reads texts; tfidf is in the model")
    times: bool = Field(default=True, description="the short-term encoder reads how long it was between interactions")
    text_dim: int = Field(default=384, ge=1, description="length of the text vectors it was trained with")
    own_dim: int = Field(default=0, ge=0, description="of that: length of the vectors that items bring themselves")
    action_head: bool = Field(default=False, description="also learn which action comes next; not served")
    rating_head: bool = Field(default=False, description="also learn the value of an event; not served")
    items: int = Field(default=0, ge=0, description="items it has an id embedding for")
    alpha: float = Field(default=0.7, ge=0, le=1, description="fusion alpha: weight of the window")
    mix: Mix = Mix(neural=1.0)  # the neural score is in nats already: it was trained as a log-probability

    @model_validator(mode="after")
    def _heads_share_the_vector(self) -> Self:
        if self.short_term == "gpt" and self.dim % self.heads:
            more = (self.dim // self.heads + 1) * self.heads
            raise ValueError(f"dim {self.dim} is not shared out evenly among {self.heads} heads: use {more}")
        return self


class ContinualConfig(BaseModel):
    """How a model goes on learning from a newer period (`train --from`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    replay: float = Field(default=0.0, ge=0, description="old windows for each new one, drawn anew in each epoch")
    distill: float = Field(default=0.0, ge=0, description="weight of answering as the model that it began from")
    rate: float = Field(default=0.5, gt=0, description="of the learning rate that a training from nothing has")
    held_out: float = Field(default=0.25, gt=0, lt=1, description="share of the new events, the last, that choose")


class AdaptConfig(BaseModel):
    """How the text encoder is adapted to what is offered here (`train --adapt-texts`); see `adapt.py`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = False
    steps: int = Field(default=100, ge=1)
    pairs: int = Field(default=64, ge=2, description="pairs of items per step, each against the others")
    within: int = Field(default=5, ge=1, description="an item goes with one of so many that its user met before")
    rank: int = Field(default=8, ge=1, description="of what is learned beside each layer")
    learning_rate: float = Field(default=1e-3, gt=0)
    temperature: float = Field(default=0.05, gt=0)


class TrainConfig(BaseModel):
    """How to train. The defaults were chosen on MovieLens-100K, the last part before the test in time order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: ModelConfig = ModelConfig()
    epochs: int = Field(default=9, ge=1, description="at most; the learning rate falls over all of them")
    patience: int = Field(default=3, ge=1, description="epochs without a better NDCG@10 before stopping")
    batch: int = Field(default=32, ge=1, description="windows per step; fewer where there are few")
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    id_dropout: float = Field(default=0.05, ge=0, lt=1, description="chance that an item has its text only")
    id_from_text: bool = Field(default=False, description="id embeddings begin as the texts' principal components")
    contrastive: float = Field(default=0.0, ge=0, description="weight of drawing an item's text and id together")
    shuffle: bool = Field(default=True, description="interactions of one second in a new order in each epoch")
    baskets: bool = Field(
        default=False, description="what a user does at one time is one basket, learned from what came before it"
    )
    habits: bool = Field(
        default=False,
        description="also learn what users come back to, and when, where what was met may be shown again",
    )
    hide: float = Field(default=0.0, ge=0, lt=1, description="chance that an input keeps its action and loses its item")
    ema: float = Field(default=0.0, ge=0, lt=1, description="average the weights over about 1 / (1 - ema) steps")
    full_softmax: int = Field(default=20_000, ge=0, description="items up to which the loss is over all of them")
    negatives: int = Field(default=2048, ge=1, description="items drawn evenly for a step, in larger catalogues")
    action_loss: float = Field(default=0.1, gt=0, description="weight of the next-action head, where there is one")
    rating_loss: float = Field(default=0.1, gt=0, description="weight of the rating head, where there is one")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of events, the last, that choose")
    validation_events: int = Field(default=2000, ge=1, description="held-out events ranked after an epoch")
    refit: bool = Field(default=True, description="train again on all events at the end")
    continual: ContinualConfig = ContinualConfig()
    adapt: AdaptConfig = AdaptConfig()
    seen: Seen = Field(
        default="exclude", description="allow: learn to come back, and fit how much that weighs; default: as in [rank]"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="of the steps; auto is bf16 on a GPU that has it, fp32 elsewhere"
    )
    seed: int = 0
    device: str = "cpu"
    action_weights: dict[str, float] = Field(default={}, description="overrides of the action weights")


Value = bool | int | float | str
RANGES: dict[str, list[Value]] = {
    "learning_rate": [5e-4, 5e-3],
    "batch": [16, 32, 64],
    "dropout": [0.0, 0.5],
    "id_dropout": [0.0, 0.3],
    "weight_decay": [1e-3, 0.3],
    "contrastive": [0.0, 0.01, 0.03, 0.1],
    "shuffle": [False, True],
    "hide": [0.0, 0.3],
    "ema": [0.0, 0.99, 0.995],
    "model.dim": [64, 96, 128, 192],
    "model.layers": [1, 2, 3],
}


class SearchConfig(BaseModel):
    """What `eddyline train --search` tries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ranges: dict[str, list[Value]] = Field(
        default=RANGES, description="by a name in [train]: two numbers, the ends of a range, or choices"
    )

    @field_validator("ranges")
    @classmethod
    def _of_settings(cls, ranges: dict[str, list[Value]]) -> dict[str, list[Value]]:
        known = {*TrainConfig.model_fields, *(f"model.{name}" for name in ModelConfig.model_fields)}
        for name, values in ranges.items():
            if name not in known:
                raise ValueError(f"{name} is no setting of [train]")
            if not values:
                raise ValueError(f"{name} has nothing to choose from")
        return ranges
