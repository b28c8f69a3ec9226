"""Policies for control: an actor and a critic, separate tanh networks evaluated side by side.

Both implement `batch.Policy`. For acting step by step they give a numpy copy of themselves (`sampler`, `greedy`):
with few rows a torch call costs three times as much as its arithmetic. Its log-probabilities agree with `evaluate`
to float32 rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import (
    categorical_evaluate,
    categorical_sample,
    gaussian_entropy,
    gaussian_logp,
    gaussian_sample,
)
from onepolicy.errors import ConfigError
from onepolicy.nn.heads import Draw, Head, draw_categorical, draw_gaussian
from onepolicy.nn.mlp import Array, StackedMLP, numpy_copy

HIDDEN = (64, 64)
Greedy = Callable[[Array], NDArray[np.int64] | Array]
"""The best action for each row of observations: [N, D] -> [N] or [N, A]."""


@dataclass(frozen=True)
class Sampler:
    """A policy frozen for acting: draws actions and values states, for rows of observations [N, D] float32.

    draw: actions, their log-probs (nats) and the values V(s) [N], from one pass. value: V(s) [N].
    """

    draw: Callable[[Array], tuple[Draw, Array]]
    value: Callable[[Array], Array]


class ControlPolicy(Protocol):
    """What acting, learning and evaluation on control need of a policy. obs_dim: D of its observations."""

    @property
    def obs_dim(self) -> int: ...

    def evaluate(self, inputs: Tensor, action: Tensor) -> Evaluation: ...

    def sampler(self, rng: np.random.Generator) -> Sampler: ...

    def greedy(self) -> Greedy: ...


class ActorCritic(nn.Module):
    """The two networks: forward maps obs [..., D] to the actor's output [..., out] and the value [...].

    seed: of the initial weights. hidden: widths, the same for actor and critic.
    """

    def __init__(self, obs_dim: int, out: int, hidden: Sequence[int], seed: int) -> None:
        super().__init__()
        if obs_dim < 1 or out < 1:
            raise ConfigError(f"a policy from {obs_dim} numbers to {out}; both must be at least 1.")
        rng = torch.Generator().manual_seed(seed)
        self.body = StackedMLP(2, (obs_dim, *hidden), rng=rng)
        self.actor = Head(hidden[-1], out, gain=0.01, rng=rng)
        self.critic = Head(hidden[-1], 1, gain=1.0, rng=rng)

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        lead = obs.shape[:-1]
        acting, judging = self.body(obs.reshape(-1, obs.shape[-1])).unbind(0)
        return self.actor(acting).view(*lead, -1), self.critic(judging).view(lead)

    def numpy_copy(self) -> Callable[[Array], tuple[Array, Array]]:
        """The networks as they are now: obs [N, D] -> the actor's output [N, out] and the value [N]."""
        body, actor, critic = self.body.numpy_copy(), self.actor.numpy_copy(), self.critic.numpy_copy()

        def forward(obs: Array) -> tuple[Array, Array]:
            acting, judging = body(obs)
            return actor(acting), critic(judging)[:, 0]

        return forward


@final
class CategoricalPolicy(nn.Module):
    """pi(a|s) = softmax(logits(s)) over `actions` actions, with a critic. Action tensors are [...] int64."""

    def __init__(self, obs_dim: int, actions: int, *, hidden: Sequence[int] = HIDDEN, seed: int = 0) -> None:
        super().__init__()
        self.obs_dim = obs_dim
        self.networks = ActorCritic(obs_dim, actions, hidden, seed)

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [...] drawn for observations [..., D], and what the policy says of them."""
        logits, value = self.networks(inputs)
        action = categorical_sample(logits, rng or torch.default_generator)
        return action, Evaluation(*categorical_evaluate(logits, action), value)

    def evaluate(self, inputs: Tensor, action: Tensor) -> Evaluation:
        """Log-prob, entropy (nats) and value of observations [..., D] and actions [...]."""
        logits, value = self.networks(inputs)
        return Evaluation(*categorical_evaluate(logits, action), value)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        forward = self.networks.numpy_copy()

        def draw(obs: Array) -> tuple[Draw, Array]:
            logits, value = forward(obs)
            return draw_categorical(logits, rng), value

        return Sampler(draw, lambda obs: forward(obs)[1])

    def greedy(self) -> Greedy:
        """The policy's most probable action, as it is now."""
        forward = self.networks.numpy_copy()
        return lambda obs: forward(obs)[0].argmax(axis=1)


@final
class GaussianPolicy(nn.Module):
    """pi(a|s) = N(mean(s), exp(log_std)^2), one log_std for each of `dim` numbers, the same in all states; a critic.

    Actions [..., dim] are not clipped: the world clips what it is given, the log-prob is that of what was drawn.
    Source: Huang et al. 2022, The 37 implementation details of PPO, continuous details 1 to 4.
    """

    def __init__(
        self, obs_dim: int, dim: int, *, hidden: Sequence[int] = HIDDEN, log_std: float = 0.0, seed: int = 0
    ) -> None:
        super().__init__()
        self.obs_dim = obs_dim
        self.networks = ActorCritic(obs_dim, dim, hidden, seed)
        self.log_std = nn.Parameter(torch.full((dim,), log_std))

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [..., dim] drawn for observations [..., D], and what the policy says of them."""
        mean, value = self.networks(inputs)
        action = gaussian_sample(mean, self.log_std, rng or torch.default_generator)
        return action, self._says(mean, value, action)

    def evaluate(self, inputs: Tensor, action: Tensor) -> Evaluation:
        """Log-density, entropy (nats) and value of observations [..., D] and actions [..., dim]."""
        mean, value = self.networks(inputs)
        return self._says(mean, value, action)

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng."""
        forward, log_std = self.networks.numpy_copy(), numpy_copy(self.log_std)

        def draw(obs: Array) -> tuple[Draw, Array]:
            mean, value = forward(obs)
            return draw_gaussian(mean, log_std, rng), value

        return Sampler(draw, lambda obs: forward(obs)[1])

    def greedy(self) -> Greedy:
        """The policy's mean action, as it is now."""
        forward = self.networks.numpy_copy()
        return lambda obs: forward(obs)[0]

    def _says(self, mean: Tensor, value: Tensor, action: Tensor) -> Evaluation:
        entropy = gaussian_entropy(self.log_std).expand(value.shape)
        return Evaluation(gaussian_logp(mean, self.log_std, action), entropy, value)
