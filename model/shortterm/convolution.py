"""`cnn` and `cnn-lstm-attention`: convolutions over the window, alone or before an LSTM with attention (system E).

A convolution ends at its position and skips 1, 2, 4, ... places a layer (NextItNet, Yuan et al. 2019), so that two
layers of width 3 see 7 interactions and four see 31; what is padded is zero for each of them.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.again import AT_ONCE, IN_TURN, MANY, Ends, looked, read_on
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
        net, look = self.states.net, self.look
        assert isinstance(net, nn.LSTM)
        x_BKD = self.entered(items_BKD, actions_BK, times_BK, there_BK)
        layers: list[tuple[Convolution, Tensor]] = []
        for layer in self.layers:
            assert isinstance(layer, Convolution)
            layers.append((layer, x_BKD))
            x_BKD = (x_BKD + layer(x_BKD)) * there_BK[..., None]
        ways = IN_TURN if len(x_BKD) >= MANY else AT_ONCE
        cuts = [x_BKD.shape[1] - newest for newest, _ in ways if newest > 1]
        parts, state, ends = [], None, []
        for start, end in pairwise([0, *cuts, x_BKD.shape[1]]):
            states, state = read_on(net, x_BKD[:, start:end], there_BK[:, start:end], state)
            parts.append(states)
            if end in cuts:
                ends.append(Ends.of(*ways[len(ends)], state, there_BK))
        states_BKD = torch.cat(parts, 1)

        def again() -> Tensor:
            new = []
            for end in ends:
                x_XSD, there_XS1 = end.entered(self, items_BKD, actions_BK, times_BK), end.there_XS[..., None]
                for layer, before_BKD in layers:
                    x_XSD = (x_XSD + layer.on(end.context(before_BKD, layer.pad), x_XSD)) * there_XS1
                new.append(end.read(net, x_XSD))
            found_BVD, there_BV1 = looked(look, states_BKD, there_BK, ends, new)
            return self.out(self.norm(found_BVD)) * there_BV1

        return self.out(self.norm(look(states_BKD, there_BK, 1)))[:, 0] * there_BK[:, -1:], again


class Convolution(nn.Module):
    """ReLU of a convolution over a position and what is up to `2 * skip` places before it."""

    def __init__(self, dim: int, skip: int) -> None:
        super().__init__()
        self.pad = (WIDTH - 1) * skip
        self.conv = nn.Conv1d(dim, dim, WIDTH, dilation=skip)

    def forward(self, x_BKD: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x_BKD.transpose(1, 2), (self.pad, 0)))).transpose(1, 2)

    def on(self, before_BPD: Tensor, x_BKD: Tensor) -> Tensor:
        """`forward` of positions that stand behind others, `pad` of them. For a few positions of many rows, one product
        costs less than a convolution does.
        """
        all_BXD = torch.cat([before_BPD, x_BKD], 1)
        skip, size = self.pad // (WIDTH - 1), x_BKD.shape[1]
        near_BKE = torch.cat([all_BXD[:, at * skip : at * skip + size] for at in range(WIDTH)], 2)
        return F.relu(F.linear(near_BKE, self.conv.weight.permute(0, 2, 1).flatten(1), self.conv.bias))
