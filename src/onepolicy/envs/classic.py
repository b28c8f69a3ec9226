"""Classic control, N worlds at a time in numpy: the dynamics of gymnasium's, to the last bit, without its call cost.

In: CartPole-v1. Each step ends in SAME_STEP fashion: a finished world is reset within the step and the observation
that ended it is kept in `final_obs`. Not in: rendering.
"""

from __future__ import annotations

from typing import Any, ClassVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs.vector import Discrete
from onepolicy.errors import ConfigError

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
TOTAL_MASS = POLE_MASS + CART_MASS
POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH
LIMITS = np.array([[2.4], [12 * 2 * np.pi / 360]])
PUSH = np.array([-FORCE, FORCE])


@final
class CartPole:
    """CartPole-v1: +1 for each step a pole stays up on a cart that is pushed left (0) or right (1).

    The state x, x', theta, theta' is float64 [4, N]; the observation is the same as float32 [N, 4]. terminated: the
    pole is over 12 degrees or the cart over 2.4 from the middle. truncated: max_steps were played. Both can be true.
    num_envs: N. seed: world i draws its starts from numpy's generator seeded `seed + i`, as gymnasium's would.
    Source: Barto, Sutton and Anderson 1983; constants and Euler step of gymnasium `classic_control/cartpole.py`.
    """

    env_id: ClassVar[str] = "CartPole-v1"
    obs_dim: ClassVar[int] = 4
    actions: ClassVar[Discrete] = Discrete(2)

    def __init__(self, num_envs: int, seed: int, *, max_steps: int = 500) -> None:
        if max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps}; an episode has at least 1 step. Set max_steps >= 1.")
        self.num_envs = num_envs
        self.max_steps = max_steps
        self.reset(seed)

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, 4] float32."""
        return torch.from_numpy(self.state.T.astype(np.float32))

    def reset(self, seed: int) -> Tensor:
        """New episodes in all worlds, world i seeded `seed + i`; the first observations [N, 4]."""
        self.rngs = [np.random.default_rng(seed + i) for i in range(self.num_envs)]
        self.state = np.empty((4, self.num_envs))
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        for i in range(self.num_envs):
            self._start(i)
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """One step of 0.02 s. action [N] int64: 0 pushes left, 1 right.

        Raises: ConfigError for any other action.
        """
        self.state = accelerate(self.state, self._force(action))
        self.elapsed += 1
        away, fallen = np.abs(self.state[::2]) > LIMITS
        terminated = away | fallen
        truncated = self.elapsed >= self.max_steps
        final_obs = obs = self.state.T.astype(np.float32)
        ended = terminated | truncated
        if ended.any():
            for i in ended.nonzero()[0]:
                self._start(i)
            obs = self.state.T.astype(np.float32)
        return EnvStep(
            obs=torch.from_numpy(obs),
            reward=torch.ones(self.num_envs),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            final_obs=torch.from_numpy(final_obs),
        )

    def state_dict(self) -> dict[str, Any]:
        """State, clock and random generator of every world."""
        return {
            "state": self.state.copy(),
            "elapsed": self.elapsed.copy(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict, for the same number of worlds."""
        if len(state["rngs"]) != self.num_envs:
            raise ConfigError(
                f"the saved state is of {len(state['rngs'])} worlds, this CartPole has {self.num_envs}. Make it with "
                f"num_envs={len(state['rngs'])}."
            )
        self.state, self.elapsed = state["state"].copy(), state["elapsed"].copy()
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved

    def _force(self, action: Tensor) -> NDArray[np.float64]:
        """Newtons on each cart, [N]."""
        chosen = action.numpy()
        if chosen.dtype == np.int64 and chosen.shape == self.elapsed.shape and not (chosen >> 1).any():
            return PUSH[chosen]
        raise ConfigError(
            f"action is {action.tolist()} ({action.dtype}); CartPole-v1 with {self.num_envs} worlds takes as many "
            "int64 numbers, each 0 (left) or 1 (right)."
        )

    def _start(self, i: int) -> None:
        self.state[:, i] = self.rngs[i].uniform(-0.05, 0.05, 4)
        self.elapsed[i] = 0


def accelerate(state: NDArray[np.float64], force: NDArray[np.float64]) -> NDArray[np.float64]:
    """The state 0.02 s later, by one Euler step.

    state [4, N]: position (m), velocity, angle (rad), angular velocity. force [N]: newtons. Returns: [4, N].
    The order of operations is gymnasium's, so that results agree to the bit.
    Source: Florian 2007, Correct equations for the dynamics of the cart-pole system, equations 23 and 24.
    """
    _, x_dot, theta, theta_dot = state
    cos, sin = np.cos(theta), np.sin(theta)
    push = (force + POLE_MASS_LENGTH * np.square(theta_dot) * sin) / TOTAL_MASS
    theta_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * np.square(cos) / TOTAL_MASS))
    x_acc = push - POLE_MASS_LENGTH * theta_acc * cos / TOTAL_MASS
    rate = np.empty_like(state)
    rate[0], rate[1], rate[2], rate[3] = x_dot, x_acc, theta_dot, theta_acc
    return state + TAU * rate
