"""SAC: reward and entropy at once; a squashed Gaussian against the least of twin critics, at a temperature it learns.

`fit` is the algorithm. In: targets, losses, the loop, for S learners at once, with actions in [-1, 1] (`Learner`) or
numbered ones (`DiscreteLearner`), whose expectations are sums. Not in: the world's bounds (envs/scaled.py), memory,
networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.acting.explore import Choose, Explorer
from onepolicy.core.check import fraction
from onepolicy.data.replay import Floats, Transitions
from onepolicy.errors import ConfigError, nearest
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stacked import StackedOptimizer
from onepolicy.nn.actors import StackedGaussian
from onepolicy.nn.discrete import StackedSoftmax, StackedVectorCritic
from onepolicy.nn.heads import draw_categorical
from onepolicy.nn.legal import legal_of
from onepolicy.nn.stacked import StackedCritic, follow, target_of
from onepolicy.nn.state_noise import SdeOptions, StackedStateNoise
from onepolicy.run.seeding import derive_rng


@dataclass(frozen=True)
class Config:
    """What SAC decides. Everything that counts, counts environment steps of one learner, over all its worlds.

    learning_starts: steps before the first update, with random actions. train_every: steps between updates.
    gradient_steps: updates each time. temperature: what a nat of entropy is worth, in reward; None learns it, from 1.
    target_entropy: that a learnt temperature aims at, nats of actions in [-1, 1]; None for -1 for each of their
    numbers. tau: how far the target moves at each update. hold: steps of a world for which its noise is kept when it
    plays; each action is still drawn from the policy, but exploration pushes one way for a while. sde: noise that
    depends on the state, its matrix drawn each time that it learns, and for acting every train_every steps.

    Of numbered actions alone: entropy_share: the entropy aimed at, where target_entropy is None, as a share of that of
    drawing alike among the legal ones; 0.98 is the paper's, 0.89 CleanRL's for Atari. critics: which of the twins
    counts, the lesser or their mean. q_clip: reward units the critics may move away from the target's without being
    held back; None for no bound. entropy_penalty: on half the squared change of entropy against the slow copy of the
    actor; 0 for none.
    """

    batch_size: int = 256
    learning_starts: int = 100
    train_every: int = 1
    gradient_steps: int = 1
    temperature: float | None = None
    target_entropy: float | None = None
    tau: float = 0.005
    hold: int = 1
    sde: SdeOptions = field(default_factory=SdeOptions)
    entropy_share: float = 0.98
    critics: Literal["min", "mean"] = "min"
    q_clip: float | None = None
    entropy_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name in ("batch_size", "train_every", "gradient_steps", "hold"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1. Set {name} >= 1.")
        if self.temperature is not None and not self.temperature > 0.0:
            raise ConfigError(f"temperature is {self.temperature}; it is positive, or None to learn it.")
        if not 0.0 < self.tau <= 1.0:
            raise ConfigError(f"tau is {self.tau}; it is a share, in (0, 1].")
        if self.sde.use and self.hold != 1:
            raise ConfigError(f"hold is {self.hold} with sde.use, whose noise is held by itself. Set hold to 1.")
        fraction("entropy_share", self.entropy_share)
        if self.critics not in ("min", "mean"):
            raise ConfigError(f"critics is {self.critics!r}. {nearest(self.critics, ('min', 'mean'))}")
        if self.q_clip is not None and not self.q_clip > 0.0:
            raise ConfigError(f"q_clip is {self.q_clip}; it is positive, 0.5 say, or None for no bound.")
        if self.entropy_penalty < 0.0:
            raise ConfigError(f"entropy_penalty is {self.entropy_penalty}; it is at least 0, which is none.")


def soft_target(q: Tensor, logp: Tensor, temperature: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
    """r + discount (min_k Q_k(s', a') - alpha log pi(a'|s')), a' drawn.

    q [S, K, B]; logp, reward, discount [S, B]; temperature alpha [S, 1]. Source: Haarnoja et al. 2018 (arXiv
    1812.05905), equations 2, 3 and 5; the least of two as in Fujimoto et al. 2018.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> soft_target(torch.tensor([[[3.0], [2.0]]]), -0.5 * one, 0.2 * one, one, 0.9 * one)
    tensor([[2.8900]])
    """
    return torch.addcmul(reward, discount, q.amin(dim=1) - temperature * logp)


def critic_loss(q: Tensor, target: Tensor) -> Tensor:
    """sum_k mean_b (Q_k - y)^2 / 2, of each learner. q [S, K, B], target [S, B]. Returns: [S]."""
    return 0.5 * (q - target.unsqueeze(1)).square().mean(dim=2).sum(dim=1)


def actor_loss(q: Tensor, logp: Tensor, temperature: Tensor) -> Tensor:
    """mean_b alpha log pi(a|s) - min_k Q_k(s, a). q [S, K, B], logp [S, B], temperature [S, 1]. Returns: [S]."""
    return (temperature * logp - q.amin(dim=1)).mean(dim=1)


def temperature_loss(log_temperature: Tensor, logp: Tensor, target_entropy: float) -> Tensor:
    """-log alpha mean_b (log pi(a|s) + H): its gradient is the lack of entropy, at every temperature the same.

    log_temperature [S]; logp [S, B], not differentiated. Returns: [S].
    The paper (equation 18) has alpha in place of log alpha, which learns slowly where alpha is small; stable-baselines3
    and the authors' code have the logarithm.
    """
    return -log_temperature * (logp.detach().mean(dim=1) + target_entropy)


def expectation(logits: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """sum_a pi(a|s) Q(s, a) and the entropy -sum_a pi(a|s) log pi(a|s), of pi = softmax(logits).

    logits [S, B, A], LOWEST where an action is illegal; q [S, B, A]. Returns: [S, B] each; with them the
    numbered actions' target is r + discount (E[Q'] + alpha H) and the actor's loss -(E[Q] + alpha H), without a draw.
    Source: Christodoulou 2019 (arXiv 1910.07207), equations 10 to 12.
    """
    logp = torch.log_softmax(logits, dim=-1)
    p = logp.exp()
    return (p * q).sum(dim=-1), -(p * logp).sum(dim=-1)


def clipped_critic_loss(q: Tensor, q_target: Tensor, target: Tensor, q_clip: float) -> Tensor:
    """sum_k mean_b max((Q_k - y)^2, (Q'_k + clip(Q_k - Q'_k, -c, c) - y)^2) / 2, of each learner.

    q, q_target [S, K, B]: of the actions taken, by the critics and their slow copies. target [S, B]. Returns: [S].
    Source: Zhou et al. 2022 (Revisiting discrete SAC, arXiv 2209.10081), the Q-clip.
    """
    held = q_target + (q - q_target).clamp(-q_clip, q_clip)
    y = target.unsqueeze(1)
    return 0.5 * torch.maximum((q - y).square(), (held - y).square()).mean(dim=2).sum(dim=1)


@final
class Learner:
    """Actors and critics of S learners, with all they learn by: what acts and what learns. A checkpoint part.

    seeds: one a learner, of its first weights and of the actions its updates draw. Actions are in [-1, 1].
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
        self.actor: StackedGaussian | StackedStateNoise
        if config.sde.use:
            start = -3.0 if config.sde.log_std is None else config.sde.log_std
            self.actor = StackedStateNoise(
                seeds, obs_dim, action_dim, hidden, log_std=start, full_std=config.sde.full_std
            )
        else:
            self.actor = StackedGaussian(seeds, obs_dim, action_dim, hidden)
        self.critic = StackedCritic(seeds, obs_dim, action_dim, hidden)
        self.target_critic = target_of(self.critic)
        self.log_temperature = nn.Parameter(torch.full((len(seeds),), math.log(config.temperature or 1.0)))
        self.target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.actor_optimizer = StackedOptimizer(self.actor.parameters(), tuple(seeds), optim)
        self.critic_optimizer = StackedOptimizer(self.critic.parameters(), tuple(seeds), optim)
        self.temperature_optimizer = StackedOptimizer([self.log_temperature], tuple(seeds), optim)
        self.rngs = [derive_rng(seed, "policy noise") for seed in seeds]
        self.held: tuple[int, Floats] = (0, np.zeros(0, np.float32))
        self.metrics: dict[str, Tensor] = {}
        self.view = self.actor.numpy_view()

    def explore(self, steps: int) -> Choose:
        """Draws from the policy; at all `steps` the same."""
        del steps
        actor = self.actor
        if isinstance(actor, StackedStateNoise):
            return lambda obs, rngs: self._by_state(actor, obs, rngs)

        def choose(obs: Floats, rngs: Sequence[np.random.Generator]) -> Floats:
            mean, log_std = self.view(obs)
            if self.held[0] == 0:
                noise = np.stack([rng.standard_normal(mean.shape[1:], dtype=np.float32) for rng in rngs])
                self.held = 0, noise
            self.held = (self.held[0] + 1) % self.config.hold, self.held[1]
            return np.tanh(mean + np.exp(log_std) * self.held[1])

        return choose

    def _by_state(self, actor: StackedStateNoise, obs: Floats, rngs: Sequence[np.random.Generator]) -> Floats:
        """Actions [S, N, A] with the noise's matrices [S, N, H, A] of now, new ones where their time has come."""
        rows, (age, matrices) = obs.shape[1], self.held
        often = (max(1, self.config.train_every // rows), self.config.sde.sample_freq)
        if not len(matrices) or any(every and age % every == 0 for every in often):
            matrices = actor.matrices(rows, rngs)
        self.held = age + 1, matrices
        mean, features = self.view(obs)
        return np.tanh(mean + np.matmul(features[:, :, None], matrices)[:, :, 0])

    def greedy(self, obs: Floats) -> Floats:
        """tanh of the means [S, N, A] for observations [S, N, D]."""
        return np.tanh(self.view(obs)[0])

    def update(self, batch: Transitions) -> None:
        """One step of temperature, critics and actor, and the target's move."""
        noise, ahead = self._noise(batch.action.shape)
        temperature = self.log_temperature.detach().exp().unsqueeze(1)
        action, logp = self.actor.draw(batch.obs, noise)
        with torch.no_grad():
            next_action, next_logp = self.actor.draw(batch.next_obs, ahead)
            q = self.target_critic(batch.next_obs, next_action)
            target = soft_target(q, next_logp, temperature, batch.reward, batch.discount)
        q = self.critic(batch.obs, batch.action)
        self.metrics |= {
            "value/loss": self.critic_optimizer.step(critic_loss(q, target)),
            "value/q": q.detach().mean(dim=(1, 2)),
            "policy/entropy": -logp.detach().mean(dim=1),
            "policy/temperature": temperature.squeeze(1),
        }
        if self.config.temperature is None:
            self.temperature_optimizer.step(temperature_loss(self.log_temperature, logp, self.target_entropy))
        climb = self.critic(batch.obs, action, learn=False)
        self.metrics["policy/loss"] = self.actor_optimizer.step(actor_loss(climb, logp, temperature))
        follow(self.target_critic, self.critic, self.config.tau)

    def _noise(self, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Two standard normal draws of shape [S, B, A], each learner's from its own stream; of noise that depends on
        the state twice the same matrix [S, H, A]."""
        if isinstance(self.actor, StackedStateNoise):
            width = self.actor.log_std.shape[1], shape[-1]
            matrix = torch.from_numpy(np.stack([rng.standard_normal(width, dtype=np.float32) for rng in self.rngs]))
            return matrix, matrix
        found = np.stack([rng.standard_normal((2, *shape[1:]), dtype=np.float32) for rng in self.rngs], axis=1)
        first, second = torch.from_numpy(found)
        return first, second

    def state_dict(self) -> dict[str, Any]:
        """Networks, temperatures, optimizers, the noise's random streams and the last metrics."""
        found: dict[str, Any] = {name: getattr(self, name).state_dict() for name in _PARTS}
        return found | {
            "log_temperature": self.log_temperature.detach().clone(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "metrics": self.metrics,
            "held": self.held,
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.copy_(state["log_temperature"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.metrics, self.held = dict(state["metrics"]), tuple(state["held"])


_PARTS = ("actor", "critic", "target_critic", "actor_optimizer", "critic_optimizer", "temperature_optimizer")


@final
class DiscreteLearner:
    """The same for `actions` numbered actions: softmax actors, critics that are vectors. A checkpoint part.

    masked: the last `actions` numbers of an observation say which are legal; the others are neither drawn nor counted,
    also in the entropy that is aimed at.
    Raises: ConfigError for a `hold` and for `sde`, which numbered actions have no noise for.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        actions: int,
        hidden: Sequence[int],
        config: Config,
        optim: OptimConfig,
        *,
        masked: bool = False,
    ) -> None:
        if config.hold != 1 or config.sde.use:
            raise ConfigError(
                f"hold is {config.hold}, sde.use {config.sde.use}; numbered actions are drawn anew at each step. Set "
                "hold to 1 and sde.use to False."
            )
        self.config, self.obs_dim, self.actions = config, obs_dim, actions
        self.actor = StackedSoftmax(seeds, obs_dim, actions, hidden, masked=masked)
        self.critic = StackedVectorCritic(seeds, obs_dim, actions, hidden, bits=self.actor.bits)
        self.target_critic, self.target_actor = target_of(self.critic), target_of(self.actor)
        self.log_temperature = nn.Parameter(torch.full((len(seeds),), math.log(config.temperature or 1.0)))
        self.actor_optimizer = StackedOptimizer(self.actor.parameters(), tuple(seeds), optim)
        self.critic_optimizer = StackedOptimizer(self.critic.parameters(), tuple(seeds), optim)
        self.temperature_optimizer = StackedOptimizer([self.log_temperature], tuple(seeds), optim)
        self.metrics: dict[str, Tensor] = {}
        self.view = self.actor.numpy_view()

    def explore(self, steps: int) -> Choose:
        """Draws from the policy; at all `steps` the same."""
        del steps
        return lambda obs, rngs: np.stack(
            [draw_categorical(mine, rng).action for mine, rng in zip(self.view(obs), rngs, strict=True)]
        )

    def greedy(self, obs: Floats) -> NDArray[np.int64]:
        """The most probable actions [S, N] for observations [S, N, D]."""
        return self.view(obs).argmax(axis=-1)

    def update(self, batch: Transitions) -> None:
        """One step of temperature, critics and actor, and the target's move."""
        temperature = self.log_temperature.detach().exp().unsqueeze(1)
        with torch.no_grad():
            ahead, entropy = expectation(self.actor(batch.next_obs), self._one(self.target_critic(batch.next_obs)))
            target = torch.addcmul(batch.reward, batch.discount, ahead + temperature * entropy)
        values = self.critic(batch.obs)
        q = _taken(values, batch.action)
        if self.config.q_clip is None:
            loss = critic_loss(q, target)
        else:
            with torch.no_grad():
                slow = _taken(self.target_critic(batch.obs), batch.action)
            loss = clipped_critic_loss(q, slow, target, self.config.q_clip)
        worth, entropy = expectation(self.actor(batch.obs), self._one(values.detach()))
        climb = -(worth + temperature * entropy)
        if self.config.entropy_penalty > 0.0:
            with torch.no_grad():
                before = expectation(self.target_actor(batch.obs), self._one(values))[1]
            climb = climb + 0.5 * self.config.entropy_penalty * (before - entropy).square()
        self.metrics |= {
            "value/loss": self.critic_optimizer.step(loss),
            "value/q": q.detach().mean(dim=(1, 2)),
            "policy/entropy": entropy.detach().mean(dim=1),
            "policy/temperature": temperature.squeeze(1),
        }
        if self.config.temperature is None:
            lack = self._target_entropy(batch.obs) - entropy.detach()
            self.temperature_optimizer.step(temperature_loss(self.log_temperature, lack, 0.0))
        self.metrics["policy/loss"] = self.actor_optimizer.step(climb.mean(dim=1))
        follow(self.target_critic, self.critic, self.config.tau)
        if self.config.entropy_penalty > 0.0:
            follow(self.target_actor, self.actor, self.config.tau)

    def _one(self, q: Tensor) -> Tensor:
        """Of the twins' values [S, 2, B, A] those that count, [S, B, A]."""
        return q.amin(dim=1) if self.config.critics == "min" else q.mean(dim=1)

    def _target_entropy(self, obs: Tensor) -> Tensor:
        """What the entropy at each observation [S, B, D] should be, nats, [S, B] or []."""
        if self.config.target_entropy is not None:
            return torch.tensor(self.config.target_entropy)
        legal = legal_of(obs, self.actor.bits)
        choices = torch.tensor(float(self.actions)) if legal is None else legal.sum(dim=-1).float()
        return self.config.entropy_share * choices.log()

    def state_dict(self) -> dict[str, Any]:
        """Networks, temperatures, optimizers and the last metrics."""
        found: dict[str, Any] = {name: getattr(self, name).state_dict() for name in (*_PARTS, "target_actor")}
        return found | {"log_temperature": self.log_temperature.detach().clone(), "metrics": self.metrics}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        for name in (*_PARTS, "target_actor"):
            getattr(self, name).load_state_dict(state[name])
        self.log_temperature.copy_(state["log_temperature"])
        self.metrics = dict(state["metrics"])


def _taken(q: Tensor, action: Tensor) -> Tensor:
    """The values [S, K, B] of the actions taken [S, B] among all [S, K, B, A]."""
    index = action[:, None, :, None].expand(*q.shape[:-1], 1)
    return q.gather(-1, index).squeeze(-1)


def fit(
    learner: Learner | DiscreteLearner,
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
