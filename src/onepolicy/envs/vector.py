"""Worlds stepped N at a time: what they promise, what their actions are, and how to get one by name.

In: the seam every control algorithm acts through, the kinds of action, how a world is asked for, `make`. Not in: any
world. Batched ones are in classic.py, everything gymnasium knows comes through gym.py, in processes of its own by
workers.py; frames.py stacks what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from onepolicy.batch import Layout, VectorEnv
from onepolicy.core.check import fraction
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


@dataclass(frozen=True)
class AtariOptions:
    """How Atari's games (`ALE/Pong-v5`) are played; on the command line `--world.atari.sticky 0`."""

    sticky: float = 0.25
    """Chance that the console repeats the last action, whatever was chosen; Mnih et al. 2015 have 0."""
    noop_max: int = 30
    """A game begins with up to so many steps of doing nothing; 0 for none."""
    frame_skip: int = 4
    """Frames that an action is held for; the greater of the last two is seen, pixel by pixel."""
    screen: int = 84
    """Height and width of what is seen, in grey."""
    episodic_life: bool = True
    """In training a lost life ends the episode, and the game goes on in the next."""
    clip_reward: bool = True
    """In training only the sign of a reward counts."""
    fire_reset: bool = True
    """FIRE is pressed at the start of a game and of a life, in the games that wait for it."""

    def __post_init__(self) -> None:
        fraction("sticky", self.sticky)
        if self.noop_max < 0 or self.frame_skip < 1 or self.screen < 1:
            raise ConfigError(f"{self}: noop_max is at least 0, frame_skip and screen are at least 1.")


@dataclass(frozen=True)
class WorldOptions:
    """How a world is played and seen; on the command line `--world.frame-stack 4`."""

    workers: int = 0
    """Processes that share the worlds; 0 plays them in this one."""
    frame_stack: int = 1
    """Last observations that are seen as one; an episode's first is repeated."""
    flat: bool = False
    """Images are seen as plain vectors of numbers."""
    atari: AtariOptions = field(default_factory=AtariOptions)
    """Atari: skipped frames, lives, sticky actions."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.frame_stack < 1:
            raise ConfigError(
                f"workers is {self.workers} and frame_stack {self.frame_stack}; workers are counted from 0, a stack "
                "has at least the newest observation. Set workers >= 0 and frame_stack >= 1."
            )


class ControlEnv(VectorEnv, Protocol):
    """A `batch.VectorEnv` whose observations are rows of numbers and whose state can be saved between steps.

    env_id: its name. obs_dim: length D of an observation, its mask of actions included (`actions.bits` numbers at the
    end). layout: where rows are of bytes, the images in them; None for float32 numbers. actions: what may be done in
    it. An action tensor is [N] int64 for Discrete, [N, choices] int64 for MultiDiscrete, [N, dim] float32 for Box.
    `reset` makes everything that follows a function of its seed.
    """

    @property
    def env_id(self) -> str: ...

    @property
    def obs_dim(self) -> int: ...

    @property
    def layout(self) -> Layout | None: ...

    @property
    def actions(self) -> ActionSpace: ...

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32, or uint8 where there is a layout."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def make(
    env_id: str, num_envs: int, seed: int, options: WorldOptions | None = None, *, training: bool = False
) -> ControlEnv:
    """`num_envs` copies of the world `env_id`, just reset; copy i has the seed `seed + i`.

    env_id: one of ours (batched, many times faster: benchmarks/worlds.py), else whatever gymnasium has registered.
    training: a world to learn in, where Atari's rewards are clipped and its lives are episodes, if so asked for.
    Raises: ConfigError for an unknown id (offering the nearest), a missing extra package, a space we cannot act in,
    or fewer than one copy.
    """
    if num_envs < 1:
        raise ConfigError(f"num_envs is {num_envs}; a world needs at least 1 copy. Set num_envs >= 1.")
    from onepolicy.envs.atari import PREFIX, Signed
    from onepolicy.envs.frames import FrameStack

    options = options or WorldOptions()
    env = _plain(env_id, num_envs, seed, options, training)
    if training and options.atari.clip_reward and env_id.startswith(PREFIX):
        env = Signed(env)
    return env if options.frame_stack == 1 else FrameStack(env, options.frame_stack)


def _plain(env_id: str, num_envs: int, seed: int, options: WorldOptions, training: bool) -> ControlEnv:
    """The world before its observations are stacked."""
    from onepolicy.envs.batched import Batched
    from onepolicy.envs.classic import WORLDS, dynamics_of
    from onepolicy.envs.gym import GymEnv

    if env_id in WORLDS:
        if options.workers:
            raise ConfigError(
                f"workers is {options.workers}; all copies of {env_id} are one batch in this process, many times "
                "faster than workers. Set workers to 0."
            )
        return Batched(dynamics_of(env_id), num_envs, seed)
    if options.workers:
        from onepolicy.envs.workers import WorkerEnv

        return WorkerEnv(env_id, num_envs, seed, options, training=training)
    return GymEnv(env_id, num_envs, seed, options, training=training)
