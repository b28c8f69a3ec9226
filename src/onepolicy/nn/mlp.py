"""Small tanh networks, made for being called often: several side by side cost one batched product per layer.

In: the stacked network, its numpy copy for acting, orthogonal initialisation. Not in: what features mean (heads.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.errors import ConfigError

Array = NDArray[np.float32]


def orthogonal(*shape: int, gain: float, rng: torch.Generator) -> nn.Parameter:
    """A random parameter whose last two axes are a (semi-)orthogonal matrix times `gain`.

    Source: Saxe et al. 2014; gains as in Huang et al. 2022, The 37 implementation details of PPO, detail 2.
    """
    weight = torch.empty(shape)
    for matrix in weight.view(-1, *shape[-2:]):
        nn.init.orthogonal_(matrix, gain, generator=rng)
    return nn.Parameter(weight)


class StackedMLP(nn.Module):
    """`count` tanh networks over the same input, a batched matrix product per layer.

    sizes: input, then hidden widths, the same for each network. Weights are orthogonal with gain sqrt(2), biases 0.
    forward: [M, sizes[0]] -> [count, M, sizes[-1]].
    """

    def __init__(self, count: int, sizes: Sequence[int], *, rng: torch.Generator) -> None:
        super().__init__()
        if len(sizes) < 2 or min(sizes) < 1:
            raise ConfigError(
                f"sizes is {tuple(sizes)}; a network has an input and at least one hidden layer, all >= 1."
            )
        pairs = list(pairwise(sizes))
        self.weights = nn.ParameterList([orthogonal(count, a, b, gain=math.sqrt(2), rng=rng) for a, b in pairs])
        self.biases = nn.ParameterList([nn.Parameter(torch.zeros(count, 1, b)) for _, b in pairs])

    def forward(self, x: Tensor) -> Tensor:
        h = x.expand(len(self.weights[0]), *x.shape)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            h = tanh(torch.baddbmm(bias, h, weight))
        return h

    def numpy_copy(self) -> Callable[[Array], Array]:
        """The network as it is now, in numpy: for few rows the call costs a third of torch's."""
        layers = [(numpy_copy(w), numpy_copy(b)) for w, b in zip(self.weights, self.biases, strict=True)]

        def forward(x: Array) -> Array:
            h = x
            for weight, bias in layers:
                h = np.matmul(h, weight)
                h += bias
                np.tanh(h, out=h)
            return h

        return forward


def numpy_copy(parameter: Tensor) -> Array:
    """A parameter's values as a numpy array of its own."""
    return parameter.detach().cpu().numpy().copy()


def tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2x) - 1, any shape: the same function at under half the cost on CPUs, where torch's sigmoid
    is four times faster than its tanh. The absolute error is below 2e-7 in float32. Differentiable twice."""
    result: Tensor = _FastTanh.apply(x)
    return result


class _FastTanh(torch.autograd.Function):
    """One node in the graph instead of three, with tanh's own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(x + x).mul_(2.0).sub_(1.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], y)
