"""N copies of a small world at a time: clocks, time limit, seeds, saving, and the reset within the step.

In: `Batched`, which plays any `Dynamics`. Each step ends in SAME_STEP fashion: a finished copy is reset within the step
and the observation that ended it is kept in `final_obs`. Not in: the dynamics (classic.py
and classic_compiled.py), rendering.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep, Layout
from onepolicy.envs.vector import Box, Discrete
from onepolicy.errors import ConfigError

State = NDArray[np.float64]
"""[K, N]: K numbers of each of N copies."""
Flags = NDArray[np.bool_]
"""[N] bool."""


@dataclass(frozen=True)
class Dynamics:
    """A world as three functions of arrays; `fresh` [N] is True in the copies that have not taken a step yet.

    env_id, obs_dim, actions: as in `ControlEnv`. max_steps: the time limit. start: one copy's first state [K], drawn
    from its generator. advance: (state [K, N], action, fresh) -> the state after, the reward [N] and what terminated
    [N]; action is [N] int64, or [N, dim] float32 within its bounds. observe: (state, fresh) -> [N, D] float32.
    """

    env_id: str
    obs_dim: int
    actions: Discrete | Box
    max_steps: int
    start: Callable[[np.random.Generator], NDArray[np.float64]]
    advance: Callable[[State, NDArray[Any], Flags], tuple[State, NDArray[Any], Flags]]
    observe: Callable[[State, Flags], NDArray[np.float32]]


def as_it_is(state: State, _: Flags) -> NDArray[np.float32]:
    """The state [K, N] as an observation [N, K]."""
    return np.ascontiguousarray(state.T, dtype=np.float32)


@final
class Batched:
    """`num_envs` copies of the world `dynamics`, as a `ControlEnv`.

    state: float64 [K, N]. elapsed: steps of the episodes under way, int64 [N]. truncated: max_steps were played, also
    where the episode terminated. seed: copy i draws its starts from numpy's generator seeded `seed + i`, as
    gymnasium's would. Actions of real numbers are clipped to their bounds here, at the world.
    """

    def __init__(self, dynamics: Dynamics, num_envs: int, seed: int, *, max_steps: int | None = None) -> None:
        self.dynamics, self.num_envs = dynamics, num_envs
        self.max_steps = dynamics.max_steps if max_steps is None else max_steps
        if self.max_steps < 1:
            raise ConfigError(f"max_steps is {max_steps}; an episode has at least 1 step. Set max_steps >= 1.")
        self.env_id, self.obs_dim, self.actions = dynamics.env_id, dynamics.obs_dim, dynamics.actions
        self.layout: Layout | None = None
        self._never = np.zeros(num_envs, dtype=bool)
        self.reset(seed)

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        return torch.from_numpy(self.dynamics.observe(self.state, self.elapsed == 0))

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies, copy i seeded `seed + i`; the first observations [N, D]."""
        self.rngs = [np.random.default_rng(seed + i) for i in range(self.num_envs)]
        self.state = np.stack([self.dynamics.start(rng) for rng in self.rngs], axis=1)
        self.elapsed = np.zeros(self.num_envs, dtype=np.int64)
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy. action: [N] int64 for Discrete, [N, dim] float32 for Box.

        Raises: ConfigError for an action of another shape or type, or that there is none of.
        """
        fresh = self.elapsed == 0
        self.state, reward, terminated = self.dynamics.advance(self.state, self._native(action), fresh)
        self.elapsed += 1
        truncated = self.elapsed >= self.max_steps
        final_obs = obs = self.dynamics.observe(self.state, self._never)
        ended = terminated | truncated
        if np.count_nonzero(ended):
            for i in ended.nonzero()[0]:
                self.state[:, i] = self.dynamics.start(self.rngs[i])
            self.elapsed[ended] = 0
            obs = self.dynamics.observe(self.state, ended)
        return EnvStep(
            obs=torch.from_numpy(obs),
            reward=torch.from_numpy(reward.astype(np.float32, copy=False)),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            final_obs=torch.from_numpy(final_obs),
        )

    def state_dict(self) -> dict[str, Any]:
        """State, clock and random generator of every copy."""
        return {
            "state": self.state.copy(),
            "elapsed": self.elapsed.copy(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict, for the same number of copies."""
        if len(state["rngs"]) != self.num_envs:
            raise ConfigError(
                f"the saved state is of {len(state['rngs'])} worlds, this {self.env_id} has {self.num_envs}. Make it "
                f"with num_envs={len(state['rngs'])}."
            )
        self.state, self.elapsed = state["state"].copy(), state["elapsed"].copy()
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved

    def _native(self, action: Tensor) -> NDArray[Any]:
        """The actions as an array: numbers below n, or reals held within their bounds."""
        chosen: NDArray[Any] = action.numpy()
        if isinstance(self.actions, Discrete):
            known = chosen.dtype == np.int64 and chosen.shape == self.elapsed.shape
            if known and np.maximum.reduce(chosen.view(np.uint64)) < self.actions.n:  # without its sign, -1 is large
                return chosen
            wanted = f"as many int64 numbers, each 0 to {self.actions.n - 1}"
        else:
            if chosen.dtype == np.float32 and chosen.shape == (self.num_envs, self.actions.dim):
                return np.clip(chosen, self.actions.low, self.actions.high).astype(np.float32, copy=False)
            wanted = f"float32 numbers of shape [{self.num_envs}, {self.actions.dim}]"
        raise ConfigError(
            f"action is {action.tolist()} ({action.dtype}); {self.env_id} with {self.num_envs} worlds takes {wanted}."
        )
