"""The actor of a control policy as a function of one vector of its parameters, for second-order methods.

In: what it says at a parameter vector, the derivative of that along a direction and back, and the divergence between
two of its policies with its curvature. Not in: the critic, whose parameters lie in the same tensors and stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from onepolicy.core import kl
from onepolicy.core.distributions import categorical_logp, gaussian_logp
from onepolicy.errors import ModelError
from onepolicy.nn.legal import features, masked
from onepolicy.nn.mlp import tanh
from onepolicy.nn.multi import Choices, MultiCategoricalPolicy
from onepolicy.nn.policies import ActorCritic, CategoricalPolicy, GaussianPolicy
from onepolicy.nn.state_noise import StateNoisePolicy, state_log_std

Known = CategoricalPolicy | MultiCategoricalPolicy | GaussianPolicy | StateNoisePolicy
"""Policies whose curvature is known here."""


@dataclass(frozen=True)
class Family:
    """Distributions by their numbers for each state, out [M, K]: logits, or a Gaussian's mean and log-std.

    logp: (out, action [M] or [M, D]) -> [M], nats. kl: (out, other) -> KL(out || other) [M], nats. metric: (out,
    tangent [M, K]) -> the Fisher information of the numbers times the tangent, [M, K]: the curvature of `kl` where
    both are equal.
    """

    logp: Callable[[Tensor, Tensor], Tensor]
    kl: Callable[[Tensor, Tensor], Tensor]
    metric: Callable[[Tensor, Tensor], Tensor]


def _categorical_metric(logits: Tensor, tangent: Tensor) -> Tensor:
    p = torch.softmax(logits, -1)
    return p * (tangent - (p * tangent).sum(-1, keepdim=True))


def _gaussian_metric(out: Tensor, tangent: Tensor) -> Tensor:
    (_, log_std), (mean, spread) = out.chunk(2, -1), tangent.chunk(2, -1)
    return torch.cat([mean * torch.exp(-2.0 * log_std), 2.0 * spread], -1)


def _gaussian_logp(out: Tensor, action: Tensor) -> Tensor:
    mean, log_std = out.chunk(2, -1)
    return gaussian_logp(mean, log_std, action)


def _gaussian_kl(out: Tensor, other: Tensor) -> Tensor:
    (mean, log_std), (mean_other, log_std_other) = out.chunk(2, -1), other.chunk(2, -1)
    return kl.exact_gaussian(mean, log_std, mean_other, log_std_other)


CATEGORICAL = Family(categorical_logp, kl.exact, _categorical_metric)
GAUSSIAN = Family(_gaussian_logp, _gaussian_kl, _gaussian_metric)


def choices_family(choices: Choices) -> Family:
    """A softmax for each of several choices: their log-probabilities and divergences add up."""

    def logp(out: Tensor, action: Tensor) -> Tensor:
        return choices.evaluate(out, action)[0]

    def divergence(out: Tensor, other: Tensor) -> Tensor:
        return kl.exact(choices.heads(out), choices.heads(other)).sum(-1)

    def metric(out: Tensor, tangent: Tensor) -> Tensor:
        parts = zip(out.split(choices.sizes, -1), tangent.split(choices.sizes, -1), strict=True)
        return torch.cat([_categorical_metric(*part) for part in parts], -1)

    return Family(logp, divergence, metric)


@dataclass(frozen=True)
class Said:
    """What the actor says of M states: out [M, K], and what its derivative needs.

    layers: the parameters in their shapes. inputs: of each layer, [M, in]. spread: of a Gaussian, its parameter.
    """

    out: Tensor
    layers: list[tuple[Tensor, Tensor]]
    inputs: list[Tensor]
    spread: Tensor | None = None


@dataclass(frozen=True)
class Spread:
    """A Gaussian's log-std [M, D] as a function of its own parameter alone, at the last hidden features h [M, H].

    log_std: (parameter, h, mean) -> [M, D]. along: (parameter, h, log_std, direction) -> its derivative [M, D]. back:
    (parameter, h, log_std, cotangent [M, D]) -> the gradient, flat. What the log-std is through h has no part in the
    derivatives, as stable-baselines3's gSDE leaves it out (`learn_features=False`).
    """

    log_std: Callable[[Tensor, Tensor, Tensor], Tensor]
    along: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


SAME = Spread(
    lambda parameter, h, mean: parameter.expand_as(mean),
    lambda parameter, h, log_std, direction: direction.expand_as(log_std),
    lambda parameter, h, log_std, cotangent: cotangent.sum(0),
)
"""The same in all states."""


def _noise_along(parameter: Tensor, h: Tensor, log_std: Tensor, direction: Tensor) -> Tensor:
    """d log_std = h^2 (sigma^2 dL) / variance, L the logarithms of sigma [H, D] or [H, 1]."""
    return h.square() @ (torch.exp(2.0 * parameter) * direction) * torch.exp(-2.0 * log_std)


def _noise_back(parameter: Tensor, h: Tensor, log_std: Tensor, cotangent: Tensor) -> Tensor:
    found = torch.exp(2.0 * parameter) * (h.square().T @ (cotangent * torch.exp(-2.0 * log_std)))
    return found.sum_to_size(parameter.shape).reshape(-1)


BY_STATE = Spread(
    lambda parameter, h, mean: state_log_std(h.detach(), parameter).expand_as(mean),
    _noise_along,
    _noise_back,
)
"""That of gSDE."""


@final
class FlatActor:
    """The actor of `policy` at any parameter vector [P]: weights [in, out] and biases by layer, then any log-std.

    Raises: ModelError for a policy that is neither categorical nor Gaussian, and for networks other than tanh layers.
    """

    def __init__(self, policy: Known) -> None:
        if not isinstance(policy, Known):
            raise ModelError(
                f"a {type(policy).__name__} is not an actor whose curvature is known here. Use a CategoricalPolicy, a "
                "MultiCategoricalPolicy, a GaussianPolicy or a StateNoisePolicy."
            )
        networks = policy.networks
        if not isinstance(networks, ActorCritic) or networks.body.options.activation != "tanh":
            raise ModelError(
                f"the policy's networks are a {type(networks).__name__}, whose curvature is not known here. Use plain "
                'tanh layers (recurrent="none", no images, network.activation="tanh"), or ppo.'
            )
        found = [(getattr(networks.body, w)[0], getattr(networks.body, b)[0, 0]) for w, b in networks.body.layers]
        found.append((networks.actor.weight.T, networks.actor.bias))
        self._places = [part.detach() for layer in found for part in layer]
        self.family = choices_family(policy.choices) if isinstance(policy, MultiCategoricalPolicy) else CATEGORICAL
        self._bits = networks.bits
        self._spread: Spread | None = None
        if isinstance(policy, GaussianPolicy | StateNoisePolicy):
            self.family = GAUSSIAN
            self._spread = SAME if isinstance(policy, GaussianPolicy) else BY_STATE
            self._places.append(policy.log_std.detach())

    def vector(self) -> Tensor:
        """The policy's present parameters, [P], a copy."""
        return torch.cat([place.reshape(-1) for place in self._places])

    def assign(self, vector: Tensor) -> None:
        """Gives the policy the parameters [P]."""
        for place, part in zip(self._places, self._shaped(vector), strict=True):
            place.copy_(part)

    def forward(self, vector: Tensor, obs: Tensor) -> Said:
        """What the actor with parameters [P] says of obs [M, D]."""
        parts = self._shaped(vector)
        layers = list(zip(parts[0::2], parts[1::2], strict=False))
        inputs, h = [], features(obs, self._bits)
        for weight, bias in layers[:-1]:
            inputs.append(h)
            h = tanh(torch.addmm(bias, h, weight))
        inputs.append(h)
        out = masked(torch.addmm(layers[-1][1], h, layers[-1][0]), obs, self._bits)
        if self._spread is None:
            return Said(out, layers, inputs)
        return Said(torch.cat([out, self._spread.log_std(parts[-1], h, out)], -1), layers, inputs, parts[-1])

    def along(self, said: Said, direction: Tensor) -> Tensor:
        """The derivative J v of out along a direction [P], [M, K]."""
        parts = self._shaped(direction)
        rate = torch.zeros(())
        for k, ((weight, _), h) in enumerate(zip(said.layers, said.inputs, strict=True)):
            if k:
                rate = (rate * (1.0 - h * h)) @ weight
            rate = torch.addmm(parts[2 * k + 1], h, parts[2 * k]) + rate
        if self._spread is None or said.spread is None:
            return rate
        log_std = said.out.chunk(2, -1)[1]
        return torch.cat([rate, self._spread.along(said.spread, said.inputs[-1], log_std, parts[-1])], -1)

    def back(self, said: Said, cotangent: Tensor) -> Tensor:
        """The derivative J^T u, summed over states: from a gradient in out [M, K] to one in the parameters [P]."""
        tail = []
        if self._spread is not None and said.spread is not None:
            (cotangent, spread), log_std = cotangent.chunk(2, -1), said.out.chunk(2, -1)[1]
            tail.append(self._spread.back(said.spread, said.inputs[-1], log_std, spread))
        found: list[Tensor] = []
        for (weight, _), h in zip(reversed(said.layers), reversed(said.inputs), strict=True):
            found = [(h.T @ cotangent).reshape(-1), cotangent.sum(0), *found]
            cotangent = (cotangent @ weight.T) * (1.0 - h * h)
        return torch.cat([*found, *tail])

    def _shaped(self, vector: Tensor) -> list[Tensor]:
        parts = vector.split([place.numel() for place in self._places])
        return [part.view(place.shape) for part, place in zip(parts, self._places, strict=True)]
