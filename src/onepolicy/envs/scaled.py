"""Worlds whose actions run from -1 to 1 in every number, whatever their own bounds are."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.vector import ActionSpace, Box, ControlEnv
from onepolicy.errors import ConfigError


def bounds(env: ControlEnv) -> tuple[Tensor, Tensor]:
    """The least and the most of each number of an action, [A] float32 each.

    Raises: ConfigError for numbered actions, and for numbers without a bound on both sides.
    """
    if not isinstance(env.actions, Box):
        raise ConfigError(
            f"{env.env_id} has numbered actions, {' x '.join(map(str, env.actions.sizes))} of them; this algorithm "
            "takes real numbers. Use a world with a Box of actions, or an algorithm for numbered ones, as dqn or sac."
        )
    low, high = torch.tensor(env.actions.low), torch.tensor(env.actions.high)
    if not bool((torch.isfinite(low) & torch.isfinite(high) & (low < high)).all()):
        raise ConfigError(
            f"{env.env_id} takes actions from {list(env.actions.low)} to {list(env.actions.high)}; an actor that ends "
            "in tanh needs finite bounds. Wrap the world in one that has them."
        )
    return low, high


@final
class Scaled:
    """`env` with actions in [-1, 1], mapped onto its bounds as it is stepped. All else is the world's own, `inner`.

    Raises: ConfigError as `bounds`.
    """

    def __init__(self, env: ControlEnv) -> None:
        low, high = bounds(env)
        self.inner, self._middle, self._half = env, (low + high) / 2, (high - low) / 2
        self.actions: ActionSpace = Box((-1.0,) * len(low), (1.0,) * len(low))
        self.env_id, self.obs_dim, self.num_envs, self.layout = env.env_id, env.obs_dim, env.num_envs, env.layout

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        return self.inner.obs

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies; the first observations [N, D]."""
        return self.inner.reset(seed)

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy. action [N, A] float32; held within [-1, 1]."""
        return self.inner.step(self._middle + self._half * action.clamp(-1.0, 1.0))

    def state_dict(self) -> dict[str, Any]:
        """The world's."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict."""
        self.inner.load_state_dict(state)
