"""What a user is doing now: encoders of the window, by name. What they have in common is in `base.py`."""

from __future__ import annotations

from model.config import ModelConfig
from model.shortterm.base import ShortTerm
from model.shortterm.convolution import CnnEncoder
from model.shortterm.gpt import GptEncoder
from model.shortterm.recurrent import RecurrentEncoder


def make(config: ModelConfig, dropout: float = 0.0) -> ShortTerm:
    """The short-term encoder that `config` names."""
    encoder = _made(config, dropout)
    encoder.timed = config.times
    return encoder


def _made(c: ModelConfig, dropout: float) -> ShortTerm:
    match c.short_term:
        case "gpt":
            return GptEncoder(c.dim, c.layers, c.heads, dropout, c.window)
        case "lstm" | "gru" as kind:
            return RecurrentEncoder(kind, c.dim, c.layers, dropout, c.both_ways)
        case "cnn":
            return CnnEncoder(c.dim, c.layers, dropout)
        case "cnn-lstm-attention":
            return CnnEncoder(c.dim, c.layers, dropout, lstm=True)
