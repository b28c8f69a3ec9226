"""Learning what the worlds of S learners do, from what they remember."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.data.replay import Replay, Transitions
from onepolicy.errors import ConfigError
from onepolicy.learning.optim import OptimConfig
from onepolicy.learning.stacked import StackedOptimizer
from onepolicy.nn.dynamics import Dynamics
from onepolicy.run.seeding import derive_rng

HELD_OUT = 10
"""Every tenth transition is never learnt from: by its errors there a member becomes an elite."""
MOST_HELD_OUT = 1000
"""Held-out transitions that a member is judged by."""


@dataclass(frozen=True)
class Config:
    """members, elites: networks of each learner, and how many of them are drawn from. hidden: their widths.
    batch_size: transitions that each member sees in a step, its own draw. lr, weight_decay: of AdamW.

    Source: Janner et al. 2019, table 1 (7 networks, 5 elites, batches of 256); the widths are for small worlds.
    """

    members: int = 7
    elites: int = 5
    hidden: tuple[int, ...] = (128, 128)
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size is {self.batch_size}; a step sees at least 1 transition.")


@final
class WorldModel:
    """An ensemble for each learner and what trains it. A checkpoint part."""

    def __init__(self, seeds: Sequence[int], obs_dim: int, action_dim: int, config: Config) -> None:
        self.config = config
        self.dynamics = Dynamics(
            seeds, obs_dim, action_dim, config.hidden, members=config.members, elites=config.elites
        )
        optim = OptimConfig(lr=config.lr, name="adamw", weight_decay=config.weight_decay, max_grad_norm=0.0)
        self.optimizer = StackedOptimizer(self.dynamics.parameters(), tuple(seeds), optim)
        self.rngs = [derive_rng(seed, "world model") for seed in seeds]

    def train(self, replay: Replay, steps: int) -> dict[str, Tensor]:
        """`steps` steps on what is remembered by now; then the elites are chosen anew. Metrics [S].

        model/loss: negative log-likelihood at the last step. model/error: mean squared error of the elites on held-out
        transitions, standardised: 1 is no better than the mean.
        Raises: ConfigError for n-step transitions, or fewer than two.
        """
        if replay.n_step != 1 or len(replay) < 2:
            raise ConfigError(f"{len(replay)} transitions of n_step {replay.n_step}; a model needs two of one step.")
        known = np.arange(len(replay))
        held, learnt = known[::HELD_OUT], known[known % HELD_OUT > 0]
        everything = replay.at(np.tile(learnt, (len(self.rngs), 1)))
        self.dynamics.set_scale(everything.obs, everything.action, everything.reward, everything.next_obs)
        loss = torch.zeros(len(self.rngs))
        for _ in range(steps):
            found = [_to_members(x, self.config.members) for x in _parts(replay.at(self._rows(learnt)))]
            loss = self.optimizer.step(self.dynamics.loss(*found).sum(1) + self.dynamics.bounds())
        test = replay.at(np.stack([rng.choice(held, min(len(held), MOST_HELD_OUT), False) for rng in self.rngs]))
        error = self.dynamics.error(test.obs, test.action, test.reward, test.next_obs)
        self.dynamics.choose(error)
        best = error.gather(1, self.dynamics.elites).mean(1)
        return {"model/loss": loss / self.config.members, "model/error": best}

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizer and random streams."""
        return {
            "dynamics": self.dynamics.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.dynamics.load_state_dict(state["dynamics"])
        self.optimizer.load_state_dict(state["optimizer"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved

    def _rows(self, learnt: NDArray[np.int64]) -> NDArray[np.int64]:
        """A draw for each member of each learner, [S, M * B]."""
        count = self.config.members * self.config.batch_size
        return np.stack([rng.choice(learnt, count) for rng in self.rngs])


def _parts(found: Transitions) -> tuple[Tensor, ...]:
    return found.obs, found.action, found.reward, found.next_obs, found.discount == 0


def _to_members(x: Tensor, members: int) -> Tensor:
    """[S, M * B, ...] -> [S, M, B, ...]."""
    return x.view(x.shape[0], members, -1, *x.shape[2:])
