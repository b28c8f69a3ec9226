"""Layers whose operands are bound once to arrays that every call overwrites, forward and backward by hand.

What autograd does, without it: for small networks its bookkeeping takes longer than their arithmetic. In: G networks of
affine layers side by side, with ReLU or tanh. Not in: what their outputs mean (q_gradient.py, policy_gradient.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, final

import numpy as np
import torch
from torch import Tensor

from onepolicy.nn.products import Product
from onepolicy.nn.stacked_layers import NARROW, tanh_back

Stage = Callable[[], object]


@final
class Bound:
    """G networks of affine layers on up to `rows` rows each.

    parameters: weight [G, in, out] and bias [G, 1, out] of each layer, float32 on a CPU, seen as they are at each call.
    each: how many networks, one after the other, see the same rows. last: whether the activation follows the last layer
    as well. seen: where those rows go, [G / each, rows, in]. rooms: what each layer sees, [G, rows, in], and what comes
    out of the last. learn: the rows that are learnt from, the first of a forward pass; 0 for none. rates: the gradient
    in what each layer gives, [G, learn, out]. gradients: of each parameter, in their order; made here if not given.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        rows: int,
        activation: Literal["relu", "tanh"],
        *,
        each: int = 1,
        learn: int = 0,
        last: bool = False,
        gradients: Sequence[Tensor] = (),
    ) -> None:
        seen = [parameter.detach() for parameter in parameters]
        self.weights, self.biases = seen[::2], seen[1::2]
        self.activation, self.learn, self.last = activation, learn, last
        networks, width, _ = self.weights[0].shape
        self.seen = torch.empty(networks // each, rows, width)
        beside = self.seen.unsqueeze(1).expand(-1, each, -1, -1)
        into = beside.reshape(networks, rows, width)
        known = into.data_ptr() == self.seen.data_ptr()  # a view, not a copy: of one row of networks, or each its own
        self._spread = None if known else partial(into.view(beside.shape).copy_, beside)
        made = [torch.empty(networks, rows, weight.shape[2]) for weight in self.weights]
        self.rooms = [into, *made]
        self.gradients = list(gradients)
        if learn and not gradients:
            self.gradients = [torch.empty_like(parameter) for parameter in seen]
        self.rates = [torch.empty(networks, learn, weight.shape[2]) for weight in self.weights] if learn else []
        self._forward: dict[int, list[Stage]] = {}
        self._backward = self._back() if learn else []

    def forward(self, rows: int) -> Tensor:
        """What comes out [G, rows, out] of the first `rows` rows that are in `seen`."""
        if rows not in self._forward:
            self._forward[rows] = self._ahead(rows)
        if self._spread is not None:
            self._spread()
        for stage in self._forward[rows]:
            stage()
        return self.rooms[-1][:, :rows]

    def backward(self) -> list[Tensor]:
        """The gradients, from the last of the rates (with `last`: that after the activation, which is overwritten)."""
        for stage in self._backward:
            stage()
        return self.gradients

    def _ahead(self, rows: int) -> list[Stage]:
        found: list[Stage] = []
        for place, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x, out = self.rooms[place][:, :rows], self.rooms[place + 1][:, :rows]
            active = self.last or place < len(self.weights) - 1
            if weight.shape[2] <= NARROW:
                across = weight.transpose(1, 2).contiguous()  # a narrow layer's weight, the other way round
                found.append(partial(across.copy_, weight.transpose(1, 2)))
                weight = across.transpose(1, 2)
            found.append(Product(x, weight, out, bias, relu=active and self.activation == "relu"))
            if active and self.activation == "tanh":
                found.append(partial(np.tanh, out.numpy(), out=out.numpy()))
        return found

    def _back(self) -> list[Stage]:
        """From the rate of the last layer, the gradients of all, last layer first."""
        found: list[Stage] = []
        for place in reversed(range(len(self.weights))):
            into, rate, weight = self.rooms[place][:, : self.learn], self.rates[place], self.weights[place]
            mine, bias = self.gradients[2 * place : 2 * place + 2]
            if self.last or place < len(self.weights) - 1:
                found.append(self._undo(rate, self.rooms[place + 1][:, : self.learn]))
            if weight.shape[2] > NARROW:
                found.append(Product(into.transpose(1, 2), rate, mine))
            else:
                across = torch.empty(len(weight), weight.shape[2], weight.shape[1])
                found += [Product(rate.transpose(1, 2), into, across), partial(mine.copy_, across.transpose(1, 2))]
            found.append(partial(torch.sum, rate, 1, keepdim=True, out=bias))
            if place:
                found.append(Product(rate, weight.transpose(1, 2), self.rates[place - 1]))
        return found

    def _undo(self, rate: Tensor, h: Tensor) -> Stage:
        """The gradient before an activation that gave h, in the place of that after it."""
        if self.activation == "tanh":
            return partial(tanh_back, rate, h)
        return partial(torch.ops.aten.threshold_backward.grad_input, rate, h, 0, grad_input=rate)
