"""Exploration by noise that is a function of the state (gSDE), linear in the last hidden features, drawn now and then.

    a = mean(s) + W^T h(s),   W_ij ~ N(0, sigma_ij^2),   so that   a | s ~ N(mean(s), diag(h(s)^2 sigma^2))

Between two draws of W equal states get equal noise: exploration is smooth and pushes one way for a while. In: the
distribution, a policy for rollouts (`StateNoisePolicy`), S learners' squashed actor (`StackedStateNoise`). Not in: when
off-policy learners draw W anew (algos/sac.py).
Source: Raffin, Kober and Stulp 2020 (arXiv 2005.05719), equations 4 to 8; constants as in stable-baselines3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from onepolicy.batch import Evaluation
from onepolicy.core.distributions import HALF_LOG_TWO_PI, gaussian_entropy, gaussian_logp, gaussian_sample
from onepolicy.errors import ConfigError
from onepolicy.nn.heads import Draw
from onepolicy.nn.mlp import Array, NetworkOptions, numpy_copy
from onepolicy.nn.policies import HIDDEN, PLAIN, ActorCritic, Greedy, Sampler
from onepolicy.nn.stacked import Stacked

EPS = 1e-6
"""Added to the variance, which is 0 where all features are."""
MEAN_BOUND = 2.0
"""Of a squashed actor's mean before the squashing."""


@dataclass(frozen=True)
class SdeOptions:
    """Exploration by noise that depends on the state (gSDE), for real-valued actions; as `--sde.use`."""

    use: bool = False
    """Whether it is used."""
    sample_freq: int = 0
    """Steps of each world between draws of the noise's matrix; 0 for one draw a rollout, in SAC one for each time that
    it learns. SB3's -1 is 0 here."""
    full_std: bool = True
    """A deviation for each feature and number of an action; else one for each feature."""
    log_std: float | None = None
    """Logarithm of these deviations at the start; None for `log_std`, in SAC for -3."""

    def __post_init__(self) -> None:
        if self.sample_freq < 0:
            raise ConfigError(f"sde.sample_freq is {self.sample_freq}; it counts steps. Set 0 for a draw a rollout.")


def state_log_std(features: Tensor, log_std: Tensor) -> Tensor:
    """log of the noise's standard deviation, log(h^2 sigma^2 + EPS) / 2. features h [..., B, H]; log_std [..., H, A].

    >>> import torch
    >>> round(float(state_log_std(torch.tensor([[3.0, 4.0]]), torch.zeros(2, 1)).exp()), 4)
    5.0
    """
    return 0.5 * torch.log(features.square() @ torch.exp(2.0 * log_std) + EPS)


@final
class StateNoisePolicy(nn.Module):
    """pi(a|s) = N(mean(s), h(s)^2 sigma^2) with h the actor's last hidden layer, which the noise does not teach; a
    critic.

    Actions [..., dim] are not clipped, as GaussianPolicy's. sample_freq, full_std: see SdeOptions. log_std is [H, dim],
    or [H, 1] where not full_std. `act` draws each row on its own; a `sampler` keeps a matrix for each of its rows.
    """

    def __init__(
        self,
        obs_dim: int,
        dim: int,
        *,
        hidden: Sequence[int] = HIDDEN,
        log_std: float = 0.0,
        sample_freq: int = 0,
        full_std: bool = True,
        seed: int = 0,
        options: NetworkOptions = PLAIN,
    ) -> None:
        super().__init__()
        self.obs_dim, self.dim, self.sample_freq = obs_dim, dim, sample_freq
        self.networks = ActorCritic(obs_dim, dim, hidden, seed, options=options)
        self.log_std = nn.Parameter(torch.full((hidden[-1], dim if full_std else 1), log_std))

    @torch.no_grad()
    def act(self, inputs: Tensor, *, rng: torch.Generator | None = None) -> tuple[Tensor, Evaluation]:
        """Actions [..., dim] drawn for observations [..., D], and what the policy says of them."""
        mean, log_std, value = self._says(inputs)
        action = gaussian_sample(mean, log_std, rng or torch.default_generator)
        return action, _judged(mean, log_std, value, action)

    def evaluate(self, inputs: Tensor, action: Tensor) -> Evaluation:
        """Log-density, entropy (nats) and value of observations [..., D] and actions [..., dim]."""
        return _judged(*self._says(inputs), action)

    def forget(self, over: Tensor | None = None) -> None:
        """Nothing: it remembers nothing."""

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy as it is now, for acting; draws from rng, and new matrices every sample_freq calls."""
        networks = self.networks
        body, actor, critic = networks.body.numpy_copy(), networks.actor.numpy_copy(), networks.critic.numpy_copy()
        std: Array = np.broadcast_to(np.exp(numpy_copy(self.log_std)), (len(self.log_std), self.dim))
        drawn = np.zeros((0, *std.shape), np.float32)
        calls = 0

        def draw(obs: Array) -> tuple[Draw, Array]:
            nonlocal drawn, calls
            acting, judging = body(obs)
            if len(drawn) != len(obs) or (self.sample_freq and calls % self.sample_freq == 0):
                drawn = std * rng.standard_normal((len(obs), *std.shape), dtype=np.float32)
            calls += 1
            noise: Array = np.matmul(acting[:, None], drawn)[:, 0]
            variance = np.square(acting) @ np.square(std) + np.float32(EPS)
            each = 0.5 * np.square(noise) / variance + 0.5 * np.log(variance) + np.float32(HALF_LOG_TWO_PI)
            return Draw(actor(acting) + noise, -each.sum(axis=1)), critic(judging)[:, 0]

        return Sampler(draw, lambda obs: critic(body(obs)[1])[:, 0])

    def greedy(self) -> Greedy:
        """The policy's mean action, as it is now."""
        body, actor = self.networks.body.numpy_copy(), self.networks.actor.numpy_copy()
        return lambda obs: actor(body(obs)[0])

    def _says(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and log-deviation [..., dim] and value [...] of observations [..., D]."""
        lead, networks = obs.shape[:-1], self.networks
        acting, judging = networks.latent(obs)
        log_std = state_log_std(acting.detach(), self.log_std.expand(-1, self.dim))
        return networks.actor(acting).view(*lead, -1), log_std.view(*lead, -1), networks.critic(judging).view(lead)


def _judged(mean: Tensor, log_std: Tensor, value: Tensor, action: Tensor) -> Evaluation:
    return Evaluation(gaussian_logp(mean, log_std, action), gaussian_entropy(log_std), value)


class StackedStateNoise(nn.Module):
    """The same before a squashing by tanh, of S learners from memory: obs [S, B, D] to mean and log-std, [S, B, A].

    The mean is held within +-MEAN_BOUND; the features do learn from the noise, as stable-baselines3's SAC has it.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        *,
        log_std: float = -3.0,
        full_std: bool = True,
    ) -> None:
        super().__init__()
        if not hidden:
            raise ConfigError("hidden is () with sde.use, whose noise is linear in the last of them. Set hidden.")
        self.dim = action_dim
        self.body = Stacked(seeds, (obs_dim, *hidden), name="actor")
        self.head = Stacked(seeds, (hidden[-1], action_dim), name="mean")
        self.log_std = nn.Parameter(torch.full((len(seeds), hidden[-1], action_dim if full_std else 1), log_std))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        mean, features, log_std = self._says(obs)
        return mean, state_log_std(features, log_std)

    def draw(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Squashed actions [S, B, A] and their log-density [S, B] (nats), differentiable; noise: of one matrix for each
        learner, [S, H, A], standard normal."""
        mean, features, log_std = self._says(obs)
        pushed = torch.bmm(features, log_std.exp() * noise)
        u, spread = mean + pushed, state_log_std(features, log_std)
        slope = 2.0 * (np.log(2.0) - u - nn.functional.softplus(-2.0 * u))
        each = 0.5 * (pushed * torch.exp(-spread)).square() + HALF_LOG_TWO_PI + spread + slope
        return torch.tanh(u), -each.sum(-1)

    def matrices(self, rows: int, rngs: Sequence[np.random.Generator]) -> Array:
        """A matrix for each of a learner's worlds, [S, rows, H, A], each learner's from its own generator."""
        std = np.exp(numpy_copy(self.log_std))
        shape = (rows, std.shape[1], self.dim)
        return std[:, None] * np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in rngs])

    def numpy_view(self) -> Callable[[Array], tuple[Array, Array]]:
        """Mean [S, N, A] and features [S, N, H] in numpy, as they learn."""
        body, head = self.body.numpy_view(), self.head.numpy_view()

        def forward(obs: Array) -> tuple[Array, Array]:
            features = np.maximum(body(obs), 0.0)
            return np.clip(head(features), -MEAN_BOUND, MEAN_BOUND), features

        return forward

    def _says(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean [S, B, A], features [S, B, H] and the deviations' logarithms [S, H, A]."""
        features = torch.relu(cast(Tensor, self.body(obs)))
        mean: Any = self.head(features)
        return mean.clamp(-MEAN_BOUND, MEAN_BOUND), features, self.log_std.expand(-1, -1, self.dim)
