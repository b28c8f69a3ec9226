"""Acting in a learnt model: imagined steps from remembered states into a memory of their own, and planning ahead.

Not in: the model (nn/dynamics.py) and its training (learning/world_model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.acting.explore import Choose
from onepolicy.core.cem import Search, cross_entropy
from onepolicy.data.replay import Floats, Replay
from onepolicy.errors import ConfigError
from onepolicy.nn.dynamics import Dynamics
from onepolicy.run.seeding import derive_rng, derive_seed


@final
class Imagination:
    """Short imagined episodes from remembered states. A checkpoint part, its memory included.

    seeds: one a learner, of its draws. capacity: imagined transitions kept. width: imagined side by side.
    """

    def __init__(
        self, seeds: Sequence[int], obs_dim: int, action_dim: int, *, capacity: int, width: int, gamma: float
    ) -> None:
        self.replay = Replay(
            [derive_seed(seed, "imagined") for seed in seeds], capacity, width, obs_dim, action_dim, gamma=gamma
        )
        self.width = width
        self.rngs = [derive_rng(seed, "imagination") for seed in seeds]

    @torch.no_grad()
    def play(self, dynamics: Dynamics, choose: Choose, memory: Replay, length: int) -> dict[str, Tensor]:
        """`length` steps from `width` remembered states, by elites drawn anew for each; where it ends another begins.

        Metrics [S]. Raises: ConfigError for a width that the elites cannot share.
        Source: Janner et al. 2019, algorithm 2 (branched rollouts).
        """
        learners, elites = dynamics.elites.shape
        if self.width % elites:
            raise ConfigError(f"width is {self.width} with {elites} elites; each imagines as many. Set a multiple.")
        obs = self._begin(memory)
        ends, rewards = np.zeros(learners), np.zeros(learners)
        for step in range(length):
            action = choose(obs, self.rngs).astype(np.float32, copy=False)
            drawn = [self._draw(rng, dynamics) for rng in self.rngs]
            noise, order = (np.stack(part) for part in zip(*drawn, strict=True))
            rows = np.arange(learners)[:, None], order
            mixed = (torch.from_numpy(x[rows]).view(learners, elites, -1, x.shape[-1]) for x in (obs, action, noise))
            ahead = dynamics.imagine(*mixed)
            next_obs, reward, over = (
                np.empty_like(obs),
                np.empty(obs.shape[:2], np.float32),
                np.empty(obs.shape[:2], bool),
            )
            next_obs[rows] = ahead.next_obs.view(obs.shape).numpy()
            reward[rows] = ahead.reward.view(learners, -1).numpy()
            over[rows] = ahead.terminated.view(learners, -1).numpy()
            cut = np.full_like(over, step == length - 1)
            self.replay.add(obs, action, reward, next_obs, over, cut)
            obs = np.where(over[..., None], self._begin(memory), next_obs)
            ends += over.mean(1)
            rewards += reward.mean(1)
        found = {"model/imagined_reward": rewards, "model/imagined_ends": ends}
        return {name: torch.from_numpy(total / length) for name, total in found.items()}

    def state_dict(self) -> dict[str, Any]:
        """The memory and the random streams."""
        return {"replay": self.replay.state_dict(), "rngs": [rng.bit_generator.state for rng in self.rngs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.replay.load_state_dict(state["replay"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved

    def _begin(self, memory: Replay) -> Floats:
        """Remembered states, drawn alike, [S, width, D]."""
        if len(memory) == 0:
            raise ConfigError("nothing is remembered to begin from; play before you imagine.")
        return np.stack(
            [np.take(obs, rng.integers(0, len(memory), self.width), axis=0) for obs, rng in zip(memory.obs, self.rngs)]
        )

    def _draw(self, rng: np.random.Generator, dynamics: Dynamics) -> tuple[Floats, NDArray[np.int64]]:
        """Noise [width, D + 1], and the order [width] in which the elites share the rows, the same number each."""
        noise = rng.standard_normal((self.width, dynamics.obs_dim + 1), dtype=np.float32)
        return noise, rng.permutation(self.width)


@dataclass(frozen=True)
class PlanAhead:
    """horizon: steps that are looked ahead. search: of the cross-entropy method, over sequences of actions.
    std: the deviation a search begins with.

    Source: Chua et al. 2018 (PETS), section 5; one particle for each elite here, where it has 20 of random members.
    """

    horizon: int = 15
    search: Search = field(default_factory=lambda: Search(population=200, elites=20, rounds=4))
    std: float = 0.5

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise ConfigError(f"horizon is {self.horizon}; a plan has at least 1 step. Set horizon >= 1.")


@final
class Planner:
    """Model-predictive control: plan by the cross-entropy method, do the first action, plan again from there.

    The search begins at the last plan, moved on by a step. A plan is worth the mean over elites of its discounted
    rewards, by their means, until they say it ends. It plans for one world a learner. A checkpoint part.
    """

    def __init__(self, seeds: Sequence[int], action_dim: int, config: PlanAhead, *, gamma: float) -> None:
        self.config, self.gamma = config, gamma
        self.rngs = [torch.Generator().manual_seed(derive_seed(seed, "plan")) for seed in seeds]
        self.plan = torch.zeros(len(seeds), config.horizon, action_dim)

    @torch.no_grad()
    def act(self, dynamics: Dynamics, obs: Floats) -> Floats:
        """Actions [S, 1, A] in [-1, 1] for observations [S, 1, D]."""
        if obs.shape[1] != 1:
            raise ConfigError(f"{obs.shape[1]} worlds; a planner keeps one plan a seed. Set num_envs to 1.")
        begin = torch.from_numpy(obs)

        def worth(plans: Tensor) -> Tensor:
            return self._worth(dynamics, begin, plans)

        std = torch.full_like(self.plan, self.config.std)
        mean, _ = cross_entropy(worth, self.plan, std, self.config.search, self.rngs)
        self.plan = torch.cat([mean[:, 1:], torch.zeros_like(mean[:, :1])], dim=1)
        return mean[:, :1].numpy()

    def forget(self) -> None:
        """Begin the next search at 0."""
        self.plan = torch.zeros_like(self.plan)

    def state_dict(self) -> dict[str, Any]:
        """The plan under way and the random streams."""
        return {"plan": self.plan.clone(), "rngs": [rng.get_state() for rng in self.rngs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.plan = state["plan"].clone()
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.set_state(saved)

    def _worth(self, dynamics: Dynamics, begin: Tensor, plans: Tensor) -> Tensor:
        """Discounted rewards [S, P] of plans [S, P, H, A] from begin [S, 1, D]."""
        learners, population = plans.shape[:2]
        elites = dynamics.elites.shape[1]
        nothing = torch.zeros(learners, elites, population, dynamics.obs_dim + 1)
        obs = begin.unsqueeze(1).expand(learners, elites, population, begin.shape[-1])
        total, counts = torch.zeros(obs.shape[:3]), torch.ones(obs.shape[:3])
        for step in range(plans.shape[2]):
            action = plans[:, None, :, step].expand(learners, elites, population, plans.shape[-1])
            ahead = dynamics.imagine(obs, action, nothing)
            total += counts * ahead.reward
            counts = counts * self.gamma * ~ahead.terminated
            obs = ahead.next_obs
        return total.mean(1)
