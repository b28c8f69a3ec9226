"""Acting in a learnt model: imagined steps from remembered states into a memory of their own.

Not in: the model (nn/dynamics.py), its training (learning/world_model.py), planning in it (acting/planning.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.acting.explore import Choose
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
