"""TD3: a deterministic actor and twin critics, of which the lesser counts; DDPG is TD3 without its three ideas.

`fit` is the algorithm. In: exploration, targets, losses, the loop, for S learners at once, with actions in [-1, 1]. Not
in: the world's bounds (envs/scaled.py), memory, networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from onepolicy.acting.explore import Choose, Explorer
from onepolicy.data.replay import Floats, Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stacked import StackedOptimizer
from onepolicy.nn.actors import StackedActor
from onepolicy.nn.stacked import StackedCritic, follow, target_of
from onepolicy.run.seeding import derive_rng


@dataclass(frozen=True)
class Config:
    """What TD3 decides. Everything that counts, counts environment steps of one learner, over all its worlds.

    learning_starts: steps before the first update, with random actions. train_every: steps between updates.
    gradient_steps: updates each time. noise: std of what is added to an action to explore; drifting: it is an
    Ornstein-Uhlenbeck process instead, that wanders off and slowly returns (see `drift`). target_noise, target_clip:
    std and bound of what is added to the target's action. All three in units in which actions run from -1 to 1.
    critics: whose least counts. delay: updates of the critics for each of the actor and the targets. tau: how far the
    targets move.
    """

    batch_size: int = 256
    learning_starts: int = 100
    train_every: int = 1
    gradient_steps: int = 1
    noise: float = 0.1
    drifting: bool = False
    target_noise: float = 0.2
    target_clip: float = 0.5
    critics: int = 2
    delay: int = 2
    tau: float = 0.005

    def __post_init__(self) -> None:
        for name in ("batch_size", "train_every", "gradient_steps", "critics", "delay"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1. Set {name} >= 1.")
        for name in ("noise", "target_noise", "target_clip"):
            if not getattr(self, name) >= 0.0:
                raise ConfigError(f"{name} is {getattr(self, name)}; a spread is at least 0. Set {name} >= 0.")
        if not 0.0 < self.tau <= 1.0:
            raise ConfigError(f"tau is {self.tau}; it is a share, in (0, 1].")


def smoothed(action: Tensor, noise: Tensor, std: float, clip: float) -> Tensor:
    """clip(a + clip(std noise, -c, c), -1, 1). action, noise [..., A]. Source: Fujimoto et al. 2018, equation 14.

    >>> import torch
    >>> smoothed(torch.tensor([0.9, 0.0]), torch.tensor([1.0, -9.0]), 0.2, 0.5)
    tensor([ 1.0000, -0.5000])
    """
    return (action + (std * noise).clamp(-clip, clip)).clamp(-1.0, 1.0)


def drift(before: Floats, noise: Floats, std: float) -> Floats:
    """The step of an Ornstein-Uhlenbeck process, x - theta dt x + std sqrt(dt) noise, with theta 0.15 and dt 0.01.

    Source: Lillicrap et al. 2015 (arXiv 1509.02971), section 7; its time step as in stable-baselines3.
    """
    return np.asarray((1.0 - 0.15 * 0.01) * before + 0.1 * std * noise, np.float32)


def least_target(q: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """r + discount min_k Q_k(s', a'). q [S, K, B]; reward, discount [S, B].

    Source: Fujimoto et al. 2018 (arXiv 1802.09477), equation 10.
    """
    return torch.addcmul(reward, discount, q.amin(dim=1))


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """sum_k mean_b (Q_k - y)^2 / 2, of each learner. q [S, K, B], target [S, B]. Returns: [S]."""
    return 0.5 * (q - target.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


@final
class Learner:
    """Actors and critics of S learners, their targets and optimizers: what acts and what learns. A checkpoint part.

    seeds: one a learner, of its first weights and of the noise in its targets. Actions are in [-1, 1].
    metrics: [S] each, of the last updates.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        action_dim: int,
        hidden: Sequence[int],
        config: Config,
        optim: OptimConfig,
    ) -> None:
        self.config, self.obs_dim = config, obs_dim
        self.actor = StackedActor(seeds, obs_dim, action_dim, hidden)
        self.critic = StackedCritic(seeds, obs_dim, action_dim, hidden, count=config.critics)
        self.target_actor, self.target_critic = target_of(self.actor), target_of(self.critic)
        slower = replace(optim, total_steps=-(-optim.total_steps // config.delay))
        self.actor_optimizer = StackedOptimizer(self.actor.parameters(), tuple(seeds), slower)
        self.critic_optimizer = StackedOptimizer(self.critic.parameters(), tuple(seeds), optim)
        self.rngs = [derive_rng(seed, "target noise") for seed in seeds]
        self.wandered: Floats = np.zeros((len(seeds), 1, action_dim), np.float32)
        self.metrics: dict[str, Tensor] = {}
        self.view = self.actor.numpy_view()

    def explore(self, steps: int) -> Choose:
        """The actor with noise; at all `steps` the same."""
        del steps

        def choose(obs: Floats, rngs: Sequence[np.random.Generator]) -> Floats:
            best = self.view(obs)
            noise = np.stack([rng.standard_normal(best.shape[1:], dtype=np.float32) for rng in rngs])
            if self.config.drifting:
                noise = self.wandered = drift(self.wandered, noise, self.config.noise)
            else:
                noise *= self.config.noise
            return np.clip(best + noise, -1.0, 1.0)

        return choose

    def greedy(self, obs: Floats) -> Floats:
        """The actor's actions [S, N, A] for observations [S, N, D]."""
        return self.view(obs)

    def update(self, batch: Transitions) -> None:
        """One step of the critics, and at every delay-th one of the actor and the targets."""
        with torch.no_grad():
            action = self.target_actor(batch.next_obs)
            if self.config.target_noise > 0:
                noise = np.stack([rng.standard_normal(action.shape[1:], dtype=np.float32) for rng in self.rngs])
                action = smoothed(action, torch.from_numpy(noise), self.config.target_noise, self.config.target_clip)
            target = least_target(self.target_critic(batch.next_obs, action), batch.reward, batch.discount)
        q = self.critic(batch.obs, batch.action)
        self.metrics |= {
            "value/loss": self.critic_optimizer.step(critic_loss(q, target)),
            "value/q": q.detach().mean(dim=(1, 2)),
        }
        if self.critic_optimizer.steps % self.config.delay == 0:
            climb = self.critic.first(batch.obs, self.actor(batch.obs), learn=False)
            self.metrics["policy/loss"] = self.actor_optimizer.step(-climb.mean(dim=1))
            follow(self.target_actor, self.actor, self.config.tau)
            follow(self.target_critic, self.critic, self.config.tau)

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizers, the noises and the last metrics."""
        found: dict[str, Any] = {name: getattr(self, name).state_dict() for name in _PARTS}
        return found | {
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "metrics": self.metrics,
            "wandered": self.wandered,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.metrics, self.wandered = dict(state["metrics"]), state["wandered"]


_PARTS = ("actor", "critic", "target_actor", "target_critic", "actor_optimizer", "critic_optimizer")


def fit(
    learner: Learner,
    explorer: Explorer,
    config: Config,
    *,
    steps: int,
    after_step: Callable[[int, dict[str, Tensor]], bool],
) -> None:
    """Play and learn until every learner has played `steps` steps, or after_step(steps, metrics [S]) is True."""
    while explorer.steps < steps:
        explorer.step(learner.explore(explorer.steps))
        if explorer.steps > config.learning_starts and explorer.passed(config.train_every):
            for _ in range(config.gradient_steps):
                learner.update(explorer.replay.sample(config.batch_size))
        if after_step(explorer.steps, learner.metrics):
            break
