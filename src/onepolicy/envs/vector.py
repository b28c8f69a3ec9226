"""Worlds stepped N at a time: what they promise, what their actions are, and how to get one by name.

In: the seam every control algorithm acts through, the kinds of action, `make`. Not in: any world. Batched ones are in
classic.py, everything gymnasium knows comes through gym.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from onepolicy.batch import VectorEnv
from onepolicy.errors import ConfigError


@dataclass(frozen=True)
class Discrete:
    """The actions 0 to n - 1."""

    n: int


@dataclass(frozen=True)
class Box:
    """Actions of `dim` real numbers, each held within [low, high] by the world, not by the policy.

    low, high: one bound for each number, infinite where there is none.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def dim(self) -> int:
        """How many numbers an action has."""
        return len(self.low)


ActionSpace = Discrete | Box


class ControlEnv(VectorEnv, Protocol):
    """A `batch.VectorEnv` whose observations are vectors and whose state can be saved between steps.

    env_id: its name. obs_dim: length D of an observation. actions: what may be done in it. An action tensor is
    [N] int64 for Discrete, [N, dim] float32 for Box. `reset` makes everything that follows a function of its seed.
    """

    @property
    def env_id(self) -> str: ...

    @property
    def obs_dim(self) -> int: ...

    @property
    def actions(self) -> ActionSpace: ...

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make(env_id: str, num_envs: int, seed: int) -> ControlEnv:
    """`num_envs` copies of the world `env_id`, just reset; copy i has the seed `seed + i`.

    env_id: one of ours (batched, many times faster: benchmarks/worlds.py), else whatever gymnasium has registered.
    Raises: ConfigError for an unknown id (offering the nearest), a missing extra package, a space we cannot act in,
    or fewer than one copy.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}; a world needs at least 1 copy. Set num_envs >= 1.")
    from onepolicy.envs.batched import Batched
    from onepolicy.envs.classic import WORLDS, dynamics_of
    from onepolicy.envs.gym import GymEnv

    if env_id in WORLDS:
        return Batched(dynamics_of(env_id), num_envs, seed)
    return GymEnv(env_id, num_envs, seed)
