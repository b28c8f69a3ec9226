"""LSTM and GRU: over sequences with resets inside by torch, one step for acting by numpy.

torch runs a cell over a rectangle of steps several times as fast as a loop that masks, but knows no resets. So
sequences are cut where episodes begin, and the pieces, a batch of their own, run side by side. In: the cut, the step.
Not in: actor and critic (recurrent.py).
"""

from __future__ import annotations

from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.nn.mlp import Array, numpy_copy, orthogonal

Cell = Literal["lstm", "gru"]
TORCH: dict[Cell, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
PARTS: dict[Cell, int] = {"lstm": 2, "gru": 1}
"""Vectors that a cell remembers: what it puts out, and the LSTM's inner state."""


def make(cell: Cell, inputs: int, size: int, rng: torch.Generator) -> nn.RNNBase:
    """A cell with orthogonal weights, gain 1, and biases 0. Source: Huang et al. 2022, LSTM detail 1."""
    found = TORCH[cell](inputs, size)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.zero_()
            if parameter.dim() > 1:
                parameter.copy_(orthogonal(*parameter.shape, gain=1.0, rng=rng))
    return found


def sequence(cell: nn.RNNBase, x: Tensor, start: Tensor, state: Tensor) -> Tensor:
    """What the cell puts out at every step, [B, T, H].

    x [B, T, I]. start [B, T] bool: nothing is remembered before this step. state [parts, B, H]: what is remembered
    before the first.
    """
    rows, steps = start.shape
    if not bool(start[:, 1:].any()):
        kept = torch.where(start[:, :1], torch.zeros_like(state), state)
        return _run(cell, x.transpose(0, 1), kept).transpose(0, 1)
    flat, begins = x.reshape(rows * steps, -1), start.clone()
    begins[:, 0] = True
    place = begins.view(-1).nonzero().squeeze(1)
    length = torch.diff(place, append=place.new_tensor([rows * steps]))
    kept = torch.zeros(len(state), len(place), state.shape[2], dtype=state.dtype)
    carried = (place % steps == 0) & ~start.reshape(-1)[place]
    kept[:, carried] = state[:, place[carried] // steps]
    outs, places = [], []
    sort = torch.log2(length.double()).ceil()  # pieces of alike lengths run together: at most half is padding
    for kind in sort.unique().tolist():
        mine = (sort == kind).nonzero().squeeze(1)
        ahead = torch.arange(int(length[mine].max()))[:, None]
        real = ahead < length[mine]
        index = torch.where(real, place[mine] + ahead, place[mine])
        out = _run(cell, flat.index_select(0, index.view(-1)).view(*index.shape, -1), kept[:, mine])
        outs.append(out[real])
        places.append(index[real])
    return torch.cat(outs)[torch.cat(places).argsort()].view(rows, steps, -1)


def _run(cell: nn.RNNBase, x: Tensor, state: Tensor) -> Tensor:
    """Steps [T, n, I] from state [parts, n, H]: what is put out, [T, n, H]."""
    parts = tuple(part.unsqueeze(0).contiguous() for part in state)
    return cast(Tensor, cell(x.contiguous(), parts if isinstance(cell, nn.LSTM) else parts[0])[0])


class Step:
    """One step of cells of one kind side by side, as they are now: inputs [2, N, I] and state [parts, 2, N, H]."""

    def __init__(self, cells: list[nn.RNNBase]) -> None:
        self.inner = isinstance(cells[0], nn.LSTM)
        weights = [[numpy_copy(parameter) for parameter in cell.parameters()] for cell in cells]
        self.weight, self.past = (np.stack([np.ascontiguousarray(w[k].T) for w in weights]) for k in (0, 1))
        self.bias, self.past_bias = (np.stack([w[k][None] for w in weights]) for k in (2, 3))

    def __call__(self, x: Array, state: Array) -> Array:
        """The state after it."""
        h = state[0]
        z, past = np.matmul(x, self.weight) + self.bias, np.matmul(h, self.past) + self.past_bias
        if self.inner:
            i, f, g, o = np.split(z + past, 4, axis=-1)
            c = _sigmoid(f) * state[1] + _sigmoid(i) * np.tanh(g)
            return np.stack([_sigmoid(o) * np.tanh(c), c])
        width = h.shape[-1]
        r, u = np.split(_sigmoid(z[..., : 2 * width] + past[..., : 2 * width]), 2, axis=-1)
        n = np.tanh(z[..., 2 * width :] + r * past[..., 2 * width :])
        return cast(Array, (n + u * (h - n))[None])


def _sigmoid(x: Array) -> Array:
    """By tanh, which numpy has vector instructions for."""
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
