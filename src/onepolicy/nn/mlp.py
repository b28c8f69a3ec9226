"""Small networks, made for being called often: several side by side cost one batched product per layer.

In: the stacked network, its numpy copy for acting, first weights. Not in: what features mean (heads.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.errors import ConfigError
from onepolicy.nn.products import linear

Array = NDArray[np.float32]


def orthogonal(*shape: int, gain: float, rng: torch.Generator) -> nn.Parameter:
    """A random parameter whose last two axes are a (semi-)orthogonal matrix times `gain`.

    Source: Saxe et al. 2014; gains as in Huang et al. 2022, The 37 implementation details of PPO, detail 2.
    """
    weight = torch.empty(shape)
    for matrix in weight.view(-1, *shape[-2:]):
        nn.init.orthogonal_(matrix, gain, generator=rng)
    return nn.Parameter(weight)


def uniform(*shape: int, inputs: int, rng: torch.Generator) -> nn.Parameter:
    """A random parameter within 1 / sqrt(inputs), as torch's own linear layers begin, weights and biases."""
    bound = 1.0 / math.sqrt(inputs)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=rng))


@dataclass(frozen=True)
class NetworkOptions:
    """What actor and critic are made of; on the command line `--network.activation relu`. Images have ReLU and
    orthogonal weights."""

    activation: Literal["tanh", "relu"] = "tanh"
    """Between the layers."""
    orthogonal: bool = True
    """First weights are orthogonal and biases 0; else both are uniform within 1 / sqrt(inputs), as torch's are."""


class _NumpyTanh(torch.autograd.Function):
    """tanh of a float32 CPU tensor by numpy, whose vector instructions take a tenth of torch's time for it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        h = torch.from_numpy(np.tanh(x.numpy()))
        ctx.save_for_backward(h)
        return h

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Differentiable itself: a Hessian-vector product goes through it."""
        return cast(Tensor, torch.ops.aten.tanh_backward(gradients[0], *ctx.saved_tensors))


def tanh(x: Tensor) -> Tensor:
    """torch.tanh, [...] -> [...]; on a CPU in float32 by numpy: the same to 1e-7, and exactly what numpy_copy does."""
    if x.dtype == torch.float32 and x.device.type == "cpu" and x.layout == torch.strided:
        return cast(Tensor, _NumpyTanh.apply(x))  # type: ignore[no-untyped-call]
    return torch.tanh(x)


class StackedMLP(nn.Module):
    """`count` networks over the same input, a batched matrix product per layer.

    sizes: input, then hidden widths, the same for each network. Layer k has weight{k} [count, in, out], orthogonal with
    gain sqrt(2), and bias{k} [count, 1, out], 0, unless `options` has them otherwise. forward: [M, sizes[0]] ->
    [count, M, sizes[-1]].
    """

    def __init__(
        self, count: int, sizes: Sequence[int], *, rng: torch.Generator, options: NetworkOptions | None = None
    ) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ConfigError(
                f"sizes is {tuple(sizes)}; a network has an input and at least one hidden layer, all >= 1."
            )
        self.count, self.options = count, options or NetworkOptions()
        self.layers = [(f"weight{k}", f"bias{k}") for k in range(len(sizes) - 1)]
        for (weight, bias), (before, after) in zip(self.layers, pairwise(sizes), strict=True):
            if self.options.orthogonal:
                self.register_parameter(weight, orthogonal(count, before, after, gain=math.sqrt(2), rng=rng))
                self.register_parameter(bias, nn.Parameter(torch.zeros(count, 1, after)))
            else:
                self.register_parameter(weight, uniform(count, before, after, inputs=before, rng=rng))
                self.register_parameter(bias, uniform(count, 1, after, inputs=before, rng=rng))

    def forward(self, x: Tensor) -> Tensor:
        parameters = cast("dict[str, Tensor]", self._parameters)  # a lookup costs a twentieth of a module's attribute
        h = x.expand(self.count, *x.shape)
        activate = tanh if self.options.activation == "tanh" else torch.relu_
        for weight, bias in self.layers:
            h = activate(linear(h, parameters[weight], parameters[bias]))
        return h

    def numpy_copy(self, network: int | None = None) -> Callable[[Array], Array]:
        """The networks as they are now, or one of them, in numpy: for few rows the call costs a third of torch's."""
        mine = slice(None) if network is None else network
        layers = [(numpy_copy(getattr(self, w))[mine], numpy_copy(getattr(self, b))[mine]) for w, b in self.layers]
        activate = IN_PLACE[self.options.activation]
        multiply = np.matmul if network is None else times

        def forward(x: Array) -> Array:
            h = x
            for weight, bias in layers:
                h = multiply(h, weight)
                h += bias
                activate(h)
            return h

        return forward


MANY = 64
"""Rows from which a product is torch's."""


def times(x: Array, weight: Array) -> Array:
    """x weight for x [N, in], weight [in, out]; of many rows by torch, which keeps to the threads a run has chosen."""
    if len(x) < MANY:
        return cast(Array, np.matmul(x, weight))
    return torch.mm(torch.from_numpy(x), torch.from_numpy(weight)).numpy()


IN_PLACE: dict[str, Callable[[Array], Array]] = {
    "tanh": lambda h: np.tanh(h, out=h),
    "relu": lambda h: np.maximum(h, np.float32(0.0), out=h),
    "silu": lambda h: np.divide(h, 1 + np.exp(-h), out=h),
}
"""Activations in numpy, in the place of what they are given."""


def numpy_copy(parameter: Tensor) -> Array:
    """A parameter's values as a numpy array of its own."""
    return parameter.detach().cpu().numpy().copy()
