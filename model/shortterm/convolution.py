"""`cnn` and `cnn-lstm-attention`: convolutions over the window, alone or before an LSTM with attention (system E).

A convolution ends at its position and skips 1, 2, 4, ... places a layer (NextItNet, Yuan et al. 2019), so that two
layers of width 3 see 7 interactions and four see 31; what is padded is zero for each of them.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.base import Look, ShortTerm
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


class Convolution(nn.Module):
    """ReLU of a convolution over a position and what is up to `2 * skip` places before it."""

    def __init__(self, dim: int, skip: int) -> None:
        super().__init__()
        self.pad = (WIDTH - 1) * skip
        self.conv = nn.Conv1d(dim, dim, WIDTH, dilation=skip)

    def forward(self, x_BKD: Tensor) -> Tensor:
        return F.relu(self.conv(F.pad(x_BKD.transpose(1, 2), (self.pad, 0)))).transpose(1, 2)
