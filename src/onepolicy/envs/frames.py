"""The last few observations of a world seen as one, so that what moves can be told from what stands."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor

from onepolicy.batch import EnvStep, Layout
from onepolicy.envs.vector import ControlEnv
from onepolicy.errors import ConfigError


@final
class FrameStack:
    """`env` with observations [N, stack * D]: the last `stack` of its own, the oldest first; of masks of actions, which
    stay at the end of a row, the newest alone.

    An episode's first observation stands in for those before it, as in gymnasium (stable-baselines3 has zeros there).
    The observation that ended an episode is stacked with those of its own episode.
    Source: Mnih et al. 2015, methods.
    """

    def __init__(self, env: ControlEnv, stack: int) -> None:
        if stack < 1:
            raise ConfigError(f"frame_stack is {stack}; a stack has at least the newest observation. Set it to 1.")
        self.env, self.stack = env, stack
        self.num_envs, self.env_id, self.actions = env.num_envs, env.env_id, env.actions
        self.bits, self.frame = env.actions.bits, env.obs_dim - env.actions.bits
        self.obs_dim = stack * self.frame + self.bits
        self.layout: Layout | None = env.layout and replace(env.layout, stack=stack * env.layout.stack)
        self._obs = self._first(env.obs)

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, stack * D]."""
        return self._obs.clone()

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies; the first observations [N, stack * D]."""
        self._obs = self._first(self.env.reset(seed))
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy."""
        step = self.env.step(action)
        final_obs = torch.cat([self._obs[:, self.frame : self.stack * self.frame], step.final_obs], dim=1)
        ended = step.terminated | step.truncated
        self._obs = final_obs
        if bool(ended.any()):
            self._obs = torch.where(ended[:, None], self._first(step.obs), final_obs)
        return replace(step, obs=self._obs.clone(), final_obs=final_obs)

    def state_dict(self) -> dict[str, Any]:
        """The world and the stacks."""
        return {"env": self.env.state_dict(), "obs": self._obs.numpy().copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. A copy that could not be saved and starts anew has a stack of its first."""
        self.env.load_state_dict(state["env"])
        newest, kept = self.env.obs, torch.from_numpy(state["obs"].copy())
        same = (kept[:, -self.env.obs_dim :] == newest).all(dim=1)
        self._obs = torch.where(same[:, None], kept, self._first(newest))

    def _first(self, obs: Tensor) -> Tensor:
        return torch.cat([obs[:, : self.frame]] * (self.stack - 1) + [obs], dim=1)
