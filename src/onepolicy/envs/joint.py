"""Worlds with several choices at once as worlds with one: an action for each combination."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.vector import ActionSpace, ControlEnv, Discrete, MultiDiscrete
from onepolicy.errors import ConfigError

MOST = 4096
"""Combinations that can be actions: who values each of them needs an output for each."""


@final
class Joint:
    """`env`, which has several choices, with a number for each combination, the last choice changing fastest.

    Masks become those of combinations: legal where each choice is. All else is the world's own.
    Raises: ConfigError for more than MOST combinations.
    """

    def __init__(self, env: ControlEnv) -> None:
        assert isinstance(env.actions, MultiDiscrete)
        self.sizes, self._bits = env.actions.sizes, env.actions.bits
        count = int(np.prod(self.sizes, dtype=object))
        if count > MOST:
            raise ConfigError(
                f"{env.env_id} has {len(self.sizes)} choices at once, {count:,} combinations; at most {MOST:,} can be "
                "valued one by one. Use ppo, a2c, trpo or reinforce, which choose each on its own."
            )
        self.env, self.env_id, self.num_envs, self.layout = env, env.env_id, env.num_envs, env.layout
        self.actions: ActionSpace = Discrete(count, masked=env.actions.masked)
        self.obs_dim = env.obs_dim - self._bits + self.actions.bits

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        return self._seen(self.env.obs)

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies; the first observations [N, D]."""
        return self._seen(self.env.reset(seed))

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy. action: [N] int64. Raises: ConfigError for a number that no combination has."""
        chosen = action.numpy()
        if chosen.shape != (self.num_envs,) or (chosen < 0).any() or (chosen >= np.prod(self.sizes)).any():
            raise ConfigError(
                f"action is {action.tolist()}; {self.env_id} takes numbers from 0 to {np.prod(self.sizes) - 1}, one a "
                "world."
            )
        step = self.env.step(torch.from_numpy(np.stack(np.unravel_index(chosen, self.sizes), axis=1)))
        return replace(step, obs=self._seen(step.obs), final_obs=self._seen(step.final_obs))

    def state_dict(self) -> dict[str, Any]:
        """The world's."""
        return self.env.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.env.load_state_dict(state)

    def _seen(self, obs: Tensor) -> Tensor:
        return joint_masks(obs, self.sizes) if self._bits else obs


def joint_masks(obs: Tensor, sizes: Sequence[int]) -> Tensor:
    """Observations [..., D] with the masks of combinations in place of those of choices, their last sum(sizes)."""
    bits = sum(sizes)
    masks = obs[..., -bits:].split(tuple(sizes), dim=-1)
    joint = reduce(lambda left, right: (left.unsqueeze(-1) * right.unsqueeze(-2)).flatten(-2), masks)
    return torch.cat([obs[..., :-bits], joint], dim=-1)
