"""MBPO: learn what the world does, imagine short episodes from what was lived, and learn to act from those.

`fit` is the algorithm; who learns to act is any learner from memory, SAC in the paper. In: when what is learnt, and the
mixture of lived and imagined transitions, for S learners at once. Not in: the model, its training, the imagining.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from onepolicy.acting.explore import Choose, Explorer
from onepolicy.acting.imagine import Imagination
from onepolicy.core.check import fraction
from onepolicy.data.replay import Replay, Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.world_model import WorldModel


class Agent(Protocol):
    """Who learns to act, with actions in [-1, 1]: algos/sac.py's or algos/td3.py's learner. metrics [S]."""

    metrics: dict[str, Tensor]

    def explore(self, steps: int) -> Choose: ...

    def update(self, batch: Transitions) -> None: ...


@dataclass(frozen=True)
class Config:
    """What MBPO decides. Everything that counts, counts environment steps of one learner.

    learning_starts: steps before the first update, with random actions. gradient_steps: updates of the agent for every
    step. real_share: part of a batch that was lived. model_every: steps between trainings of the model.
    model_steps: its optimizer steps each time. length: imagined steps in a row at the start; final_length: from
    lengthen_until steps on, growing linearly in between.
    """

    batch_size: int = 256
    learning_starts: int = 250
    gradient_steps: int = 10
    real_share: float = 0.05
    model_every: int = 50
    model_steps: int = 200
    length: int = 1
    final_length: int = 1
    lengthen_until: int = 1

    def __post_init__(self) -> None:
        for name in ("batch_size", "learning_starts", "gradient_steps", "model_every", "model_steps", "length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it is at least 1. Set {name} >= 1.")
        if self.final_length < self.length:
            raise ConfigError(f"final_length is {self.final_length}, length {self.length}; it is at least as long.")
        fraction("real_share", self.real_share)

    def length_at(self, steps: int) -> int:
        """Imagined steps in a row after `steps` steps.

        >>> [Config(length=1, final_length=5, lengthen_until=1000).length_at(steps) for steps in (0, 500, 2000)]
        [1, 3, 5]
        """
        done = min(1.0, steps / max(self.lengthen_until, 1))
        return self.length + int(done * (self.final_length - self.length))


def mixed(lived: Replay, imagined: Replay, batch_size: int, real_share: float) -> Transitions:
    """A batch of each learner, the part `real_share` of it (rounded) from what was lived."""
    real = round(batch_size * real_share)
    if real == batch_size or len(imagined) == 0:
        return lived.sample(batch_size)
    other = imagined.sample(batch_size - real)
    if real == 0:
        return other
    own = lived.sample(real)
    tensors = {
        name: torch.cat([getattr(own, name), getattr(other, name)], dim=1)
        for name in ("obs", "action", "reward", "next_obs", "discount")
    }
    return Transitions(**tensors, row=np.concatenate([own.row, other.row], axis=1))


def fit(
    agent: Agent,
    model: WorldModel,
    imagination: Imagination,
    explorer: Explorer,
    config: Config,
    *,
    steps: int,
    after_step: Callable[[int, dict[str, Tensor]], bool],
) -> None:
    """Play, model, imagine and learn until every learner has played `steps` steps, or after_step says True."""
    lived = explorer.replay
    assert isinstance(lived, Replay), "a world model learns vectors, not images"
    while explorer.steps < steps:
        choose = agent.explore(explorer.steps)
        explorer.step(choose)
        if explorer.steps >= config.learning_starts:
            if explorer.passed(config.model_every) or len(imagination.replay) == 0:
                agent.metrics |= model.train(lived, config.model_steps)
                length = config.length_at(explorer.steps)
                agent.metrics |= imagination.play(model.dynamics, choose, lived, length)
            for _ in range(config.gradient_steps):
                agent.update(mixed(lived, imagination.replay, config.batch_size, config.real_share))
        if after_step(explorer.steps, agent.metrics):
            break
