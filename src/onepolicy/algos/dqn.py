"""DQN: Q-learning with a network, a memory of transitions and a target that lags behind; double by default.

With dueling streams, priorities and n-step returns, which the memory makes, it has Rainbow's parts but for the
distributions and the noise.

`fit` is the algorithm. In: what Q moves to, the loss, the loop, for S learners at once. Not in: memory, networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from onepolicy.acting.explore import Explorer, epsilon_greedy
from onepolicy.batch import Layout
from onepolicy.core.check import fraction
from onepolicy.data.frames import FrameReplay
from onepolicy.data.replay import Floats, Replay, Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stacked import StackedOptimizer
from onepolicy.nn.q_gradient import QGradient, QValues, by_hand, huber
from onepolicy.nn.stacked import StackedQ, follow, target_of

ROWS = 512
"""Transitions drawn at once where several updates follow each other: the target, at rest, sees them in one pass."""


@dataclass(frozen=True)
class Config:
    """What DQN decides. Everything that counts, counts environment steps of one learner, over all its worlds.

    double: the online network chooses the next action, the target says what it is worth; else the target does both.
    dueling: of the network's last layer.
    learning_starts: steps before the first update, with random actions. train_every: steps between updates.
    gradient_steps: updates each time. target_every, tau: the target moves by tau every so many steps; tau 1 is a copy.
    epsilon falls linearly from 1 to epsilon_end within epsilon_steps. beta: of the weights of a memory with priorities,
    rises linearly to 1 within beta_steps.
    """

    batch_size: int = 32
    double: bool = True
    dueling: bool = False
    learning_starts: int = 100
    train_every: int = 4
    gradient_steps: int = 1
    target_every: int = 10_000
    tau: float = 1.0
    epsilon_end: float = 0.05
    epsilon_steps: int = 10_000
    beta: float = 0.4
    beta_steps: int = 100_000

    def __post_init__(self) -> None:
        for name in ("batch_size", "train_every", "gradient_steps", "target_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1. Set {name} >= 1.")
        fraction("epsilon_end", self.epsilon_end)
        fraction("beta", self.beta)
        if not 0.0 < self.tau <= 1.0:
            raise ConfigError(f"tau is {self.tau}; it is a share, in (0, 1].")

    def epsilon(self, steps: int) -> float:
        """The share of random actions after `steps` steps.

        >>> [round(Config(epsilon_steps=100).epsilon(steps), 9) for steps in (0, 50, 200)]
        [1.0, 0.525, 0.05]
        """
        return _between(1.0, self.epsilon_end, steps, self.epsilon_steps)

    def weight_exponent(self, steps: int) -> float:
        """Beta of the importance weights after `steps` steps."""
        return _between(self.beta, 1.0, steps, self.beta_steps)


def _between(first: float, last: float, steps: int, within: int) -> float:
    return first + (last - first) * min(1.0, steps / max(within, 1))


def q_target(q_online: Tensor, q_target: Tensor, reward: Tensor, discount: Tensor, *, double: bool) -> Tensor:
    """r + discount Q_target(s', argmax_a Q(s', a)), with Q the online network where double, else the target itself.

    q_online, q_target [..., A]: at s'. reward, discount [...]. Source: Mnih et al. 2015; van Hasselt et al. 2016.

    >>> import torch
    >>> q_target(torch.tensor([1.0, 2.0]), torch.tensor([5.0, 3.0]), torch.tensor(1.0), torch.tensor(0.5), double=True)
    tensor(2.5000)
    """
    best = (q_online if double else q_target).argmax(dim=-1, keepdim=True)
    return reward + discount * q_target.gather(-1, best).squeeze(-1)


@final
class Learner:
    """Q of S learners, its target and its optimizer: what acts and what learns. A checkpoint part.

    seeds: one a learner, of its first weights. layout: of rows of bytes, where worlds show images. masked: worlds say
    which actions are legal; the others are neither taken nor valued. The optimizer's max_grad_norm is each learner's
    own. metrics: of the last update, [S] each.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        obs_dim: int,
        actions: int,
        hidden: Sequence[int],
        config: Config,
        optim: OptimConfig,
        layout: Layout | None = None,
        *,
        masked: bool = False,
    ) -> None:
        self.config, self.obs_dim = config, obs_dim
        self.q = StackedQ(seeds, obs_dim, actions, hidden, dueling=config.dueling, layout=layout, masked=masked)
        self.target = target_of(self.q)
        self.optimizer = StackedOptimizer(self.q.parameters(), tuple(seeds), optim)
        self.view = self.q.numpy_view()
        hand = by_hand(self.q)
        self.gradient = QGradient(self.q, config.batch_size) if hand else None
        self.ahead = QValues(self.target, max(ROWS, config.batch_size)) if hand else None
        self.metrics: dict[str, Tensor] = {}

    def explore(self, steps: int) -> Callable[[Floats, Sequence[np.random.Generator]], NDArray[np.int64]]:
        """Epsilon-greedy after `steps` steps."""
        epsilon = self.config.epsilon(steps)
        return lambda obs, rngs: epsilon_greedy(self.view(obs), epsilon, rngs)

    def greedy(self, obs: Floats) -> NDArray[np.int64]:
        """The best actions [S, N] for observations [S, N, D]."""
        return self.view(obs).argmax(axis=-1)

    @torch.no_grad()
    def look_ahead(self, batch: Transitions) -> Tensor:
        """What the target says of all actions [S, B, A] in what followed; by hand, the next call overwrites it."""
        if self.ahead is not None and batch.row.shape[1] <= self.ahead.rows:
            return torch.from_numpy(self.ahead.forward(batch.next_obs))
        return cast(Tensor, self.target(batch.next_obs))

    def update(self, batch: Transitions, ahead: Tensor) -> Tensor:
        """One step on a batch: mean Huber loss of the TD error, bound 1, weighted where the batch has weights.

        ahead: from look_ahead. Returns the sizes of the errors [S, B], of before the step.
        """
        if self.gradient is not None and batch.row.shape[1] == self.gradient.batch:
            return self._update_by_hand(self.gradient, batch, ahead)
        with torch.no_grad():
            online = self.q(batch.next_obs) if self.config.double else ahead
            goal = q_target(online, ahead, batch.reward, batch.discount, double=self.config.double)
        q = self.q(batch.obs).gather(-1, batch.action.unsqueeze(-1)).squeeze(-1)
        loss = nn.functional.smooth_l1_loss(q, goal, reduction="none")
        if batch.weight is not None:
            loss = loss * batch.weight
        q = q.detach()
        self.metrics = {"learner/loss": self.optimizer.step(loss.mean(dim=-1)), "value/q": q.mean(dim=-1)}
        return (q - goal).abs_()

    def _update_by_hand(self, gradient: QGradient, batch: Transitions, ahead: Tensor) -> Tensor:
        """The same without autograd, in numbers equal to rounding."""
        worth, action, rows = ahead.numpy(), batch.action.numpy(), gradient.batch
        if self.config.double:
            values = gradient.forward(batch.obs, batch.next_obs)
            following = worth[(*gradient.places, values[:, rows:].argmax(axis=-1))]
        else:
            values, following = gradient.forward(batch.obs), worth.max(axis=-1)
        goal = batch.reward.numpy() + batch.discount.numpy() * following
        q = values[(*gradient.places, action)]
        loss, slope = huber(q - goal)
        if batch.weight is not None:
            loss, slope = loss * batch.weight.numpy(), slope * batch.weight.numpy()
        share = np.float32(1.0 / rows)
        losses, slope = torch.from_numpy(np.add.reduce(loss, axis=-1) * share), slope * share
        self.metrics = {
            "learner/loss": self.optimizer.apply(losses, lambda: gradient.backward(action, slope)),
            "value/q": torch.from_numpy(np.add.reduce(q, axis=-1) * share),
        }
        return torch.from_numpy(np.abs(q - goal))

    def state_dict(self) -> dict[str, Any]:
        """Networks and optimizer; and the metrics, which a line of the log may ask for before the next update."""
        return {name: getattr(self, name).state_dict() for name in _PARTS} | {"metrics": self.metrics}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])
        self.metrics = state["metrics"]


_PARTS = ("q", "target", "optimizer")


def fit(
    learner: Learner,
    explorer: Explorer,
    config: Config,
    *,
    steps: int,
    after_step: Callable[[int, dict[str, Tensor]], bool],
) -> None:
    """Play and learn until every learner has played `steps` steps, or after_step(steps, metrics [S]) is True."""
    memory = explorer.replay
    while explorer.steps < steps:
        before = explorer.steps
        explorer.step(learner.explore(before))
        if explorer.steps >= config.learning_starts and explorer.passed(config.train_every):
            for count in _at_once(config, memory):
                drawn = memory.sample(count * config.batch_size, beta=config.weight_exponent(before))
                ahead = learner.look_ahead(drawn).split(config.batch_size, dim=1)
                for batch, values in zip(drawn.split(config.batch_size), ahead, strict=True):
                    memory.prioritise(batch.row, learner.update(batch, values))
        if explorer.passed(config.target_every):
            follow(learner.target, learner.q, config.tau)
        if after_step(explorer.steps, learner.metrics):
            break


def _at_once(config: Config, memory: Replay | FrameReplay) -> list[int]:
    """Updates whose batches are drawn together: with priorities one, as each changes what the next one draws."""
    most = 1 if memory.priorities is not None else max(1, ROWS // config.batch_size)
    whole, rest = divmod(config.gradient_steps, most)
    return [most] * whole + [rest] * (rest > 0)
