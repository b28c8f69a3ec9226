"""Forward and backward of networks side by side, by hand: a tenth to a third less time than torch's own on a CPU.

A narrow layer (a critic's one number, a few actions) costs a batched product as much as a wide one, unless its smaller
factor lies transposed in memory; activations are made and undone in place. In: the function. Not in: who owns weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from onepolicy.nn.products import product

Activation = Literal["relu", "tanh", "silu"]
NARROW = 16
"""Widths up to which a layer's output is narrow."""


class _Layers(torch.autograd.Function):
    """x [G, B, in], then weight [G, in, out] and bias [G, 1, out] of each layer -> [G, B, out]."""

    @staticmethod
    def forward(ctx: Any, activation: Activation, learn: bool, x: Tensor, *parameters: Tensor) -> Tensor:
        into, known = [x], []  # what each layer sees; what the derivative of each activation is known from
        for place in range(0, len(parameters) - 2, 2):
            h = affine(into[-1], parameters[place], parameters[place + 1])
            known.append(h)
            into.append(_ACTIVATE[activation](h))
        ctx.activation, ctx.learn = activation, learn
        ctx.save_for_backward(*into, *known, *parameters[::2])
        return affine(into[-1], *parameters[-2:])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rate,) = gradients
        depth = (len(ctx.saved_tensors) + 1) // 3
        into, known, weights = (
            ctx.saved_tensors[first:last] for first, last in ((0, depth), (depth, 2 * depth - 1), (2 * depth - 1, None))
        )
        found: list[Tensor | None] = [None] * (2 * depth)
        for place in reversed(range(depth)):
            if ctx.learn:
                found[2 * place] = outer(into[place], rate)
                found[2 * place + 1] = rate.sum(1, keepdim=True)
            if place == 0 and not ctx.needs_input_grad[2]:
                return None, None, None, *found
            back = weights[place].transpose(1, 2)
            rate = rate * back if back.shape[1] == 1 else product(rate, back)
            if place:
                _UNDO[ctx.activation](rate, known[place - 1])
        return None, None, rate, *found


def layers(x: Tensor, parameters: Sequence[Tensor], *, activation: Activation, learn: bool = True) -> Tensor:
    """G networks of affine layers with an activation between them: x [G, B, in] -> [G, B, out].

    parameters: weight [G, in, out] and bias [G, 1, out] of each layer. learn: whether the parameters get gradients; x
    gets one either way. Can be differentiated once.
    """
    return cast(Tensor, _Layers.apply(activation, learn, x, *parameters))  # type: ignore[no-untyped-call]


def tanh_in_place(x: Tensor) -> Tensor:
    """tanh of x, in its place; on a CPU in float32 by numpy, in a tenth of torch's time."""
    if x.dtype == torch.float32 and x.device.type == "cpu":
        array = x.numpy()
        np.tanh(array, out=array)
        return x
    return torch.tanh_(x)


def tanh_back(rate: Tensor, h: Tensor) -> None:
    """The gradient before a tanh that gave h from that after it, in its place."""
    _aten.tanh_backward.grad_input(rate, h, grad_input=rate)


_ACTIVATE: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "tanh": tanh_in_place,
    "silu": torch.nn.functional.silu,
}
_aten = torch.ops.aten
_UNDO: dict[Activation, Callable[[Tensor, Tensor], object]] = {
    "relu": lambda rate, h: _aten.threshold_backward.grad_input(rate, h, 0, grad_input=rate),
    "tanh": tanh_back,
    "silu": lambda rate, h: _aten.silu_backward.grad_input(rate, h, grad_input=rate),
}
"""The gradient before each activation from that after it, in its place."""


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight + bias, a new tensor."""
    networks, _, width = weight.shape
    if width > NARROW or x.device.type != "cpu":
        return product(x, weight, bias)
    if width == 1 and networks > 1:
        return torch.stack([torch.addmm(bias[k], x[k], weight[k]) for k in range(networks)])
    return torch.baddbmm(bias, x, weight.transpose(1, 2).contiguous().transpose(1, 2))


def outer(x: Tensor, rate: Tensor) -> Tensor:
    """The weights' gradient x^T rate, summed over rows."""
    if rate.shape[2] > NARROW:
        return product(x.transpose(1, 2), rate)
    return torch.bmm(rate.transpose(1, 2), x).transpose(1, 2).contiguous()
