"""What a model is made of and how it is trained, as settings. Nothing heavy is imported here: whoever only reads
settings does not wait for torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.history import WINDOW
from model.mix import Mix


class ModelConfig(BaseModel):
    """What a model is made of; with its weights, all that is needed to load it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short_term: Literal["gpt", "lstm", "gru", "cnn", "cnn-lstm-attention"] = "gpt"
    long_term: Literal["pooled", "counted", "document", "buckets"] = "pooled"
    fusion: Literal["attention", "steps", "alpha", "gate"] = "attention"
    version: int = Field(default=1, ge=1, description="the number after the @ of its name")
    dim: int = Field(default=96, ge=8, description="length of user and item vectors")
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1, description="gpt: heads of attention")
    both_ways: bool = Field(default=False, description="lstm, gru: read each window from both ends")
    window: int = Field(default=WINDOW, ge=1, description="interactions that the short-term encoder reads")
    text_dim: int = Field(default=384, ge=1, description="length of the text vectors it was trained with")
    items: int = Field(default=0, ge=0, description="items it has an id embedding for")
    alpha: float = Field(default=0.7, ge=0, le=1, description="fusion alpha: weight of the window")
    mix: Mix = Mix(neural=1.0)  # the neural score is in nats already: it was trained as a log-probability
