"""Windows read again without one of their newest interactions, from where reading the whole had come.

Not an encoder: the parts of one that reads from the oldest on. What is older than what is left out was read already, so
a window of 32 is read again for a few of its positions and not for 31. A recurrent network passes over padding without
a state of its own (`read_on`), so rows stay at the right, where their newest interactions stand in one column.

Names as in `base.py`. The newest W = NEWEST places are counted from 0; way v leaves the place v out, and P pairs (v, t)
are the places t behind it, read anew. Z states are those of the whole, K of them, and then of what LSTMs read again; Q
of these are asked for: the last of the whole, and of each way.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.shortterm.base import NEWEST

PAIRS = [(v, t) for v in range(NEWEST) for t in range(v + 1, NEWEST)]
AT_ONCE = (range(4),)
IN_TURN = range(2), range(2, 4)
"""Ways that an LSTM reads together, from the oldest place that one of them leaves out: all in few operations, or in
more that read two thirds as much, for many users. Without the newest, nothing is to be read."""
MANY = 32
SHUT = -1e4
"""Of a gate: its sigmoid is 0."""
State = tuple[Tensor, Tensor]
"""Of an LSTM, f32[1,B,D] each."""


def shutting(net: nn.LSTM) -> list[Tensor]:
    """The weights of its one layer, with one more input that shuts the gate which lets anything in."""
    into, *others = (getattr(net, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    wide = into.new_zeros(4 * net.hidden_size, 1)
    wide[: net.hidden_size] = SHUT
    return [torch.cat([into, wide], 1), *others]


def read_on(weights: list[Tensor], x_BKD: Tensor, there_BK: Tensor, state: State | None) -> tuple[Tensor, State]:
    """The states of an LSTM over left-padded rows, f32[B,K,D], and the last. Padding does not move them from zero."""
    shut_BK1 = (~there_BK)[..., None].to(x_BKD.dtype)
    zero = x_BKD.new_zeros(1, len(x_BKD), x_BKD.shape[2])
    given = (zero, zero) if state is None else state
    out, h, c = torch.lstm(torch.cat([x_BKD, shut_BK1], 2), given, weights, True, 1, 0.0, False, False, True)
    return out, (h, c)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Ways that are read together, from place `first` on, each S places. at i64[V * S]: of the newest W and the pairs
    behind them, what each reads; places i64[V * S]: where that stands.
    """

    first: int
    ways: int
    at: Tensor
    places: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Ways:
    """What is read where, for windows of one length K. own i64[Q]: the states that are asked for; unseen, other
    bool[Q,Z]: which states each must not see, and which are not itself.
    """

    groups: tuple[Group, ...]
    places: Tensor
    own: Tensor
    unseen: Tensor
    other: Tensor

    @staticmethod
    def of(rows: int, length: int, device: torch.device) -> Ways:
        """For so many windows of so many positions, more than NEWEST."""
        return _ways(IN_TURN if rows >= MANY else AT_ONCE, length, device)

    def entered(self, x_BKD: Tensor, later_BXD: Tensor) -> Tensor:
        """`ShortTerm.entered` of the pairs, f32[B,P,D], from that of all, and of the newest W + 1 as if each came after
        the one before the last: behind the place that is left out comes a longer time.
        """
        at = _on(tuple(NEWEST + 1 + t if t == v + 1 else t for v, t in PAIRS), x_BKD.device)
        return torch.cat([x_BKD[:, -NEWEST:], later_BXD], 1).index_select(1, at)

    def near(self, x_BKD: Tensor, x_BPD: Tensor, steps: tuple[int, ...]) -> Tensor:
        """What stands so many steps before each pair, the furthest first: f32[B,P,len(steps),D]."""
        wide = NEWEST + steps[0]
        old_BXD = x_BKD[:, -wide:]
        missing = wide - old_BXD.shape[1]
        old_BXD = F.pad(old_BXD, (0, 0, missing, 0)) if missing else old_BXD
        # a step over the place that is left out goes one further
        at = tuple(
            wide + PAIRS.index((v, t - back)) if t - back > v else steps[0] + t - back - 1
            for v, t in PAIRS
            for back in steps
        )
        found = torch.cat([old_BXD, x_BPD], 1).index_select(1, _on(at, x_BKD.device))
        return found.unflatten(1, (len(PAIRS), len(steps)))

    def read(self, net: nn.LSTM, x_BKD: Tensor, x_BPD: Tensor, there_BK: Tensor) -> tuple[Tensor, Tensor]:
        """All states, f32[B,Z,D], and whether anything is there, bool[B,Z]."""
        weights, state, begin = shutting(net), None, 0
        whole, again = [], []
        x_BXD, newest_BW = torch.cat([x_BKD[:, -NEWEST:], x_BPD], 1), there_BK[:, -NEWEST:]
        for group in self.groups:
            end = x_BKD.shape[1] - NEWEST + group.first
            states, state = read_on(weights, x_BKD[:, begin:end], there_BK[:, begin:end], state)
            whole.append(states)
            shape = (len(x_BKD) * group.ways, -1)
            x_YSD = x_BXD.index_select(1, group.at).view(*shape, x_BXD.shape[2])
            there_YS = newest_BW.index_select(1, group.places).view(shape)
            from_here = state[0].repeat_interleave(group.ways, 1), state[1].repeat_interleave(group.ways, 1)
            again.append(read_on(weights, x_YSD, there_YS, from_here)[0].reshape(len(x_BKD), -1, x_BXD.shape[2]))
            begin = end
        whole.append(read_on(weights, x_BKD[:, begin:], there_BK[:, begin:], state)[0])
        return torch.cat([*whole, *again], 1), torch.cat([there_BK, newest_BW.index_select(1, self.places)], 1)

    def last(self, of_BZX: Tensor) -> Tensor:
        """Of the states that are asked for."""
        return of_BZX.index_select(1, self.own)

    def hidden(self, there_BZ: Tensor) -> Tensor:
        """bool[B,Q,Z]: what each of these must not see. Itself it always sees, as in `base.hidden`."""
        return (self.unseen | ~there_BZ[:, None]) & self.other


@lru_cache
@torch.inference_mode(False)  # kept for all: whoever computes gradients can use no tensor that was made in inference
def _ways(together: tuple[range, ...], length: int, device: torch.device) -> Ways:
    groups, read = [], []
    for ways in together:
        first = min(ways)
        kept = [(v, t) for v in ways for t in range(first, NEWEST) if t != v]
        at = [NEWEST + PAIRS.index((v, t)) if t > v else t for v, t in kept]
        groups.append(Group(first, len(ways), _on(tuple(at), device), _on(tuple(t for _, t in kept), device)))
        read += kept
    whole = [(NEWEST, place - length + NEWEST) for place in range(length)]  # as a way: without none of them
    own = [length - 1, *(length + read.index((v, NEWEST - 1)) for v in range(NEWEST - 1)), length - 2]
    seen = torch.tensor(
        [[t < q if of == NEWEST else of == q < t for of, t in [*whole, *read]] for q in (NEWEST, *range(NEWEST))]
    )
    itself = torch.zeros_like(seen).scatter_(1, torch.tensor(own)[:, None], True)
    places = _on(tuple(t for _, t in read), device)
    return Ways(tuple(groups), places, _on(tuple(own), device), ~seen.to(device), ~itself.to(device))


@lru_cache
@torch.inference_mode(False)
def _on(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """i64, made once for a device."""
    return torch.tensor(numbers, device=device)
