"""`cnn` and `cnn-lstm-attention`: convolutions over the window, alone or before an LSTM with attention (system E).

A convolution ends at its position and skips 1, 2, 4, ... places a layer (NextItNet, Yuan et al. 2019), so that two
layers of width 3 see 7 interactions and four see 31; what is padded is zero for each of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.again import Suffix, read_on
from model.shortterm.base import NEWEST, Again, Look, ShortTerm
from model.shortterm.recurrent import Recurrent

WIDTH = 3


class CnnEncoder(ShortTerm):
    """See the module. lstm: read the layers' output with an LSTM and attention over its states."""

    def __init__(self, dim: int, layers: int, dropout: float, lstm: bool = False) -> None:
        super().__init__(dim, dropout)
        self.layers = nn.ModuleList(Convolution(dim, 2**i) for i in range(layers))
        self.states = Recurrent(nn.LSTM, dim, 1, 0.0) if lstm else None
        self.look = Look(dim) if lstm else None

    def read(self, x_BKD: Tensor, times_BK: Tensor, there_BK: Tensor, last: bool) -> Tensor:
        for layer in self.layers:
            x_BKD = (x_BKD + self.drop(layer(x_BKD))) * there_BK[..., None]
        queries = 1 if last else x_BKD.shape[1]
        if self.states is None or self.look is None:
            return x_BKD[:, -queries:]
        return self.look(self.states(x_BKD, there_BK), there_BK, queries)

    def followed(
        self, items_BKD: Tensor, actions_BK: Tensor, times_BK: Tensor, there_BK: Tensor
    ) -> tuple[Tensor, Again | None]:
        if self.states is None or self.look is None or self.training or there_BK.shape[1] <= NEWEST:
            return super().followed(items_BKD, actions_BK, times_BK, there_BK)
        states, look, older = self.states, self.look, there_BK.shape[1] - NEWEST
        x_BKD = self.entered(items_BKD, actions_BK, times_BK, there_BK)
        read = []
        for layer in self.layers:
            read.append(x_BKD)
            x_BKD = (x_BKD + layer(x_BKD)) * there_BK[..., None]
        old_BPD, state = read_on(states.net, x_BKD[:, :older], there_BK[:, :older])
        new_BWD, _ = read_on(states.net, x_BKD[:, older:], there_BK[:, older:], state)
        suffix = Suffix.of(there_BK)

        def again() -> Tensor:
            x_XSD = suffix.entered(self, items_BKD, actions_BK, times_BK)
            for layer, before_BKD in zip(self.layers, read, strict=True):
                assert isinstance(layer, Convolution)
                x_XSD = (x_XSD + layer.on(suffix.context(before_BKD, layer.pad), x_XSD)) * suffix.there_XS1
            new_XSD, _ = read_on(states.net, x_XSD, suffix.there_XS1[..., 0], suffix.repeated(state))
            return self.out(self.norm(suffix.looked(look, old_BPD, new_XSD))) * suffix.there_BVS[:, :, -1:]

        newest_BD = look.of(old_BPD, new_BWD[:, None], there_BK[:, :older], there_BK[:, None, older:])[:, 0]
        return self.out(self.norm(newest_BD)) * there_BK[:, -1:], again


class Convolution(nn.Module):
    """ReLU of a convolution over a position and what is up to `2 * skip` places before it."""

    def __init__(self, dim: int, skip: int) -> None:
        super().__init__()
        self.pad = (WIDTH - 1) * skip
        self.conv = nn.Conv1d(dim, dim, WIDTH, dilation=skip)

    def forward(self, x_BKD: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x_BKD.transpose(1, 2), (self.pad, 0)))).transpose(1, 2)

    def on(self, before_BPD: Tensor, x_BKD: Tensor) -> Tensor:
        """`forward` of positions that stand behind others, `pad` of them."""
        return F.relu(self.conv(torch.cat([before_BPD, x_BKD], 1).transpose(1, 2))).transpose(1, 2)
