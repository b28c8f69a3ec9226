"""Actors for real-valued actions: S learners' as one network, with actions in [-1, 1], and what they leave behind.

In: a tanh actor, a squashed Gaussian, and the policies of one learner, whose actions are in the world's own units. Not
in: losses, and who draws the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast, final

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import HALF_LOG_TWO_PI, tanh_gaussian_entropy, tanh_gaussian_sample
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import Greedy
from onepolicy.nn.stacked import Stacked
from onepolicy.nn.state_noise import StackedStateNoise

LOG_STD = (-20.0, 2.0)
"""Bounds of a squashed Gaussian's log standard deviation."""


class StackedActor(nn.Module):
    """tanh(mu(s)) of S learners: forward maps obs [S, B, D] to actions [S, B, A] in [-1, 1]."""

    def __init__(self, seeds: Sequence[int], obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body = Stacked(seeds, (obs_dim, *hidden, action_dim), name="actor")

    def forward(self, obs: Tensor) -> Tensor:
        return torch.tanh(self.body(obs))

    def numpy_view(self) -> Callable[[Array], Array]:
        """The actors in numpy, [S, N, D] -> [S, N, A], as they learn."""
        view = self.body.numpy_view()
        return lambda obs: np.tanh(view(obs))


class StackedGaussian(nn.Module):
    """The Gaussian before the squashing of S learners: obs [S, B, D] to mean and log-std, [S, B, A] each.

    The log-std is clamped to [-20, 2]; beyond, it gets no gradient.
    """

    def __init__(self, seeds: Sequence[int], obs_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body = Stacked(seeds, (obs_dim, *hidden, 2 * action_dim), name="actor")

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = cast(Tensor, self.body(obs)).chunk(2, dim=-1)
        return mean, log_std.clamp(*LOG_STD)

    def draw(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Squashed actions [S, B, A] and their log-density [S, B] for standard normal noise [S, B, A]; `squashed`."""
        return squashed(*self.forward(obs), noise)

    def numpy_view(self) -> Callable[[Array], tuple[Array, Array]]:
        """The Gaussians in numpy, [S, N, D] -> mean and log-std [S, N, A], as they learn."""
        view = self.body.numpy_view()

        def forward(obs: Array) -> tuple[Array, Array]:
            mean, log_std = np.split(view(obs), 2, axis=-1)
            return mean, log_std.clip(*LOG_STD)

        return forward


def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """The action tanh(u), u = mean + std noise, and its log-density, both differentiable in mean and log-std.

    log pi = log N(u; mean, std) - sum_d 2 (log 2 - u - softplus(-2 u)): no 1 - tanh(u)^2 that could round to 0, and
    the Gaussian's part is known from the noise. mean, log_std, noise [..., A]. Returns: [..., A] and [...], nats.
    Source: Haarnoja et al. 2018 (arXiv 1801.01290), appendix C.
    """
    u = torch.addcmul(mean, log_std.exp(), noise)
    slope = 2.0 * (math.log(2.0) - u - nn.functional.softplus(-2.0 * u))
    return torch.tanh(u), -(0.5 * noise.square() + HALF_LOG_TWO_PI + log_std + slope).sum(-1)


class Bounded(nn.Module):
    """Maps [-1, 1] onto a world's bounds, low and high [A]."""

    middle: Tensor
    reach: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("reach", (high - low) / 2)

    def forward(self, action: Tensor) -> Tensor:
        return self.middle + self.reach * action

    def greedy(self, act: Callable[[Array], Array]) -> Greedy:
        """`act` [1, N, D] -> [1, N, A] as a function of rows, in the world's units."""
        middle, reach = self.middle.numpy(), self.reach.numpy()
        return lambda obs: middle + reach * act(obs[None])[0]


@final
class ActorPolicy(nn.Module):
    """A tanh actor of one learner in the world's units. Actions are [..., A] for observations [..., D]."""

    def __init__(self, actor: StackedActor, obs_dim: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.actor, self.obs_dim, self.bounded = actor, obs_dim, Bounded(low, high)

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """The actions; certain, so that log-prob and entropy are 0. rng: not used."""
        del rng
        action = self.actor(inputs.reshape(1, -1, self.obs_dim)).view(*inputs.shape[:-1], -1)
        certain = torch.zeros(inputs.shape[:-1])
        return self.bounded(action), Evaluation(certain, certain)

    def greedy(self) -> Greedy:
        """The same in numpy, [N, D] -> [N, A]."""
        return self.bounded.greedy(self.actor.numpy_view())


@final
class SquashedPolicy(nn.Module):
    """A squashed Gaussian of one learner in the world's units. Actions are [..., A] for observations [..., D]."""

    def __init__(self, actor: StackedGaussian | StackedStateNoise, obs_dim: int, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.actor, self.obs_dim, self.bounded = actor, obs_dim, Bounded(low, high)

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions drawn, their log-density and the entropy (nats, of the world's units)."""
        mean, log_std = (part.view(*inputs.shape[:-1], -1) for part in self.actor(inputs.reshape(1, -1, self.obs_dim)))
        action, logp = tanh_gaussian_sample(mean, log_std, rng or torch.default_generator)
        stretch = self.bounded.reach.log().sum()
        return self.bounded(action), Evaluation(logp - stretch, tanh_gaussian_entropy(mean, log_std) + stretch)

    def greedy(self) -> Greedy:
        """tanh of the mean, in numpy, [N, D] -> [N, A]."""
        view = self.actor.numpy_view()
        return self.bounded.greedy(lambda obs: np.tanh(view(obs)[0]))
