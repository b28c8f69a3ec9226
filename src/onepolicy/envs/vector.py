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
    """The actions 0 to n - 1.

    masked: the last n numbers of every observation are not features: 1 where the action of that place is legal, else 0.
    """

    n: int
    masked: bool = False

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each of its choices has; it is one choice."""
        return (self.n,)

    @property
    def bits(self) -> int:
        """Numbers at the end of an observation that say which actions are legal."""
        return self.n if self.masked else 0


@dataclass(frozen=True)
class MultiDiscrete:
    """Several choices at once: the k-th from 0 to sizes[k] - 1. A MultiBinary is one with sizes 2.

    masked: the last sum(sizes) numbers of every observation say which values are legal, choice after choice.
    """

    sizes: tuple[int, ...]
    masked: bool = False

    @property
    def bits(self) -> int:
        """Numbers at the end of an observation that say which values are legal."""
        return sum(self.sizes) if self.masked else 0


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

    @property
    def bits(self) -> int:
        """None: real numbers are bounded, not masked."""
        return 0


ActionSpace = Discrete | MultiDiscrete | Box


class ControlEnv(VectorEnv, Protocol):
    """A `batch.VectorEnv` whose observations are vectors and whose state can be saved between steps.

    env_id: its name. obs_dim: length D of an observation, its mask of actions included (`actions.bits` numbers at the
    end). actions: what may be done in it. An action tensor is [N] int64 for Discrete, [N, choices] int64 for
    MultiDiscrete, [N, dim] float32 for Box. `reset` makes everything that follows a function of its seed.
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
