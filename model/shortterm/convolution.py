"""`cnn` and `cnn-lstm-attention`: convolutions over the window, alone or before an LSTM with attention (system E).

A convolution ends at its position and skips 1, 2, 4, ... places a layer (NextItNet, Yuan et al. 2019), so that two
layers of width 3 see 7 interactions and four see 31; what is padded is zero for each of them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.again import Ways
from model.shortterm.base import NEWEST, Look, ShortTerm
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
    ) -> tuple[Tensor, Tensor | None]:
        if self.states is None or self.look is None or self.training or there_BK.shape[1] <= NEWEST:
            return super().followed(items_BKD, actions_BK, times_BK, there_BK)
        net = self.states.net
        assert isinstance(net, nn.LSTM)
        given = items_BKD, actions_BK, times_BK, there_BK
        x_BKD, ways = self.entered(*given), Ways.of(len(there_BK), there_BK.shape[1], there_BK.device)
        x_BPD = ways.entered(x_BKD, self.entered(*(part[:, -NEWEST - 1 :] for part in given), back=2))
        for layer in self.layers:
            assert isinstance(layer, Convolution)
            x_BPD = x_BPD + layer.on(ways.near(x_BKD, x_BPD, layer.steps))
            x_BKD = (x_BKD + layer(x_BKD)) * there_BK[..., None]
        states_BZD, there_BZ = ways.read(net, x_BKD, x_BPD, there_BK)
        last_BQD, there_BQ1 = ways.last(states_BZD), ways.last(there_BZ[..., None])
        found_BQD = self.look.at(last_BQD, states_BZD, ways.hidden(there_BZ))
        h_BQD = self.out(self.norm(found_BQD)) * there_BQ1
        return h_BQD[:, 0], h_BQD[:, 1:]


class Convolution(nn.Module):
    """ReLU of a convolution over a position and those `skip` and `2 * skip` places before it."""

    def __init__(self, dim: int, skip: int) -> None:
        super().__init__()
        self.steps = tuple(range((WIDTH - 1) * skip, -1, -skip))
        self.conv = nn.Conv1d(dim, dim, WIDTH, dilation=skip)

    def forward(self, x_BKD: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x_BKD.transpose(1, 2), (self.steps[0], 0)))).transpose(1, 2)

    def on(self, near_BPWD: Tensor) -> Tensor:
        """`forward` of P positions, f32[B,P,D], from those that it is over, the furthest first. For a few positions of
        many rows, one product costs less than a convolution does.
        """
        return F.relu(F.linear(near_BPWD.flatten(2), self.conv.weight.transpose(1, 2).flatten(1), self.conv.bias))
