"""Several learners' worlds as one, so that S times N copies take one step together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.batched import Batched
from onepolicy.envs.scaled import Scaled
from onepolicy.envs.vector import ControlEnv
from onepolicy.errors import ConfigError


def joined(envs: Sequence[ControlEnv]) -> ControlEnv:
    """`envs`, alike but for their seeds, as one; the copies of the first come first, and each copy stays its own.

    One world is that world itself. Worlds of arrays become one of longer arrays, also `Scaled`; others are stepped in
    turn. `reset` of what is returned is by one
    seed for all, as of any world.
    Raises: ConfigError for worlds of different names.
    """
    if len({env.env_id for env in envs}) != 1:
        raise ConfigError(f"{sorted({env.env_id for env in envs})} cannot be joined; all must be the same world.")
    if len(envs) == 1:
        return envs[0]
    scaled = [env.inner for env in envs if isinstance(env, Scaled)]
    if len(scaled) == len(envs):
        return Scaled(joined(scaled))
    batched = [env for env in envs if isinstance(env, Batched)]
    if len(batched) < len(envs) or len({env.max_steps for env in batched}) != 1:
        return Joined(envs)
    together = Batched(batched[0].dynamics, 1, 0, max_steps=batched[0].max_steps)
    together.num_envs = sum(env.num_envs for env in batched)
    together.rngs = [rng for env in batched for rng in env.rngs]
    together.state = np.concatenate([env.state for env in batched], axis=1)
    together.elapsed = np.concatenate([env.elapsed for env in batched])
    together._never = np.zeros(together.num_envs, dtype=bool)
    return together


@final
class Joined:
    """Worlds stepped in turn as if they were one."""

    def __init__(self, envs: Sequence[ControlEnv]) -> None:
        self.envs = list(envs)
        first = self.envs[0]
        self.env_id, self.obs_dim, self.actions, self.layout = first.env_id, first.obs_dim, first.actions, first.layout
        self.num_envs = sum(env.num_envs for env in self.envs)
        self._sizes = [env.num_envs for env in self.envs]

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        return torch.cat([env.obs for env in self.envs])

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies, copy i of them all seeded `seed + i`; the first observations [N, D]."""
        starts = np.cumsum([0, *self._sizes[:-1]]).tolist()
        return torch.cat([env.reset(seed + start) for env, start in zip(self.envs, starts, strict=True)])

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy."""
        parts = zip(self.envs, action.split(self._sizes), strict=True)
        found = [env.step(part) for env, part in parts]
        raw = [step.raw_reward for step in found if step.raw_reward is not None]
        return EnvStep(
            **{
                name: torch.cat([getattr(step, name) for step in found])
                for name in ("obs", "reward", "terminated", "truncated", "final_obs")
            },
            raw_reward=torch.cat(raw) if raw else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """The worlds'."""
        return {"envs": [env.state_dict() for env in self.envs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        for env, saved in zip(self.envs, state["envs"], strict=True):
            env.load_state_dict(saved)
