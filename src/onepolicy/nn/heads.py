"""Last layers: what a network's features mean, as torch modules that can be copied to numpy for acting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.core.distributions import HALF_LOG_TWO_PI
from onepolicy.nn.mlp import Array, numpy_copy, orthogonal, uniform


class Head(nn.Module):
    """A linear map of features, orthogonal with the given gain; 0.01 starts a policy near uniform, 1 is for values.

    gain None: weight and bias uniform within 1 / sqrt(features). forward: [..., H] -> [..., out].
    """

    def __init__(self, features: int, out: int, *, gain: float | None, rng: torch.Generator) -> None:
        super().__init__()
        if gain is None:
            self.weight = uniform(out, features, inputs=features, rng=rng)
            self.bias = uniform(out, inputs=features, rng=rng)
        else:
            self.weight = orthogonal(out, features, gain=gain, rng=rng)
            self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.linear(features, self.weight, self.bias)

    def numpy_copy(self) -> Callable[[Array], Array]:
        """The head as it is now, in numpy."""
        weight, bias = np.ascontiguousarray(numpy_copy(self.weight).T), numpy_copy(self.bias)
        return lambda features: features @ weight + bias


class Draw(NamedTuple):
    """Actions drawn for N rows: action [N] int64 or [N, D] float32, logp [N] nats."""

    action: NDArray[np.int64] | Array
    logp: Array


def draw_categorical(logits: Array, rng: np.random.Generator) -> Draw:
    """A draw from softmax(logits) by inverting its distribution function. logits [N, A], finite."""
    shifted = np.subtract(logits, logits.max(axis=1, keepdims=True), dtype=np.float32)
    mass: Array = np.exp(shifted).cumsum(axis=1, dtype=np.float32)
    total = mass[:, -1]
    action = (mass[:, :-1] <= (rng.random(len(logits), dtype=np.float32) * total)[:, None]).sum(axis=1)
    logp = np.subtract(shifted[np.arange(len(action)), action], np.log(total), dtype=np.float32)
    return Draw(action, logp)


def draw_gaussian(mean: Array, log_std: Array, rng: np.random.Generator) -> Draw:
    """A draw from a diagonal Gaussian. mean [N, D], log_std [D] or [N, D]."""
    noise: Array = rng.standard_normal(mean.shape, dtype=np.float32)
    logp: Array = -(_HALF * np.vecdot(noise, noise) + np.add.reduce(log_std + _CONSTANT, axis=-1))
    std: Array = np.exp(log_std)
    return Draw(mean + std * noise, logp)


_HALF, _CONSTANT = np.float32(0.5), np.float32(HALF_LOG_TWO_PI)
