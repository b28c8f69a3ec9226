"""Acting for learners with a memory: S of them play side by side, one step at a time, and all of it is kept.

Not in: what is learnt, and when. Nothing here sees the other learners' worlds, draws or memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.acting.collect import WINDOW
from onepolicy.data.frames import FrameReplay
from onepolicy.data.replay import Floats, Replay
from onepolicy.envs.joined import joined
from onepolicy.envs.vector import Box, ControlEnv, Discrete
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.legal import LOWEST
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

Choose = Callable[[Floats, Sequence[np.random.Generator]], NDArray[Any]]
"""Actions [S, N] or [S, N, A] for observations [S, N, D]; learner s draws from its own generator."""


@final
class Explorer:
    """Plays learner s in envs[s], all with as many worlds, and puts each step into the memory. The worlds are stepped
    as one, `env`; those that were given may stand still.

    seeds: one a learner, of the draws of its actions. random_steps: steps each learner begins with that any action is
    as good for. steps: environment steps of each learner so far, over all its worlds.
    """

    def __init__(
        self,
        envs: Sequence[ControlEnv],
        replay: Replay | FrameReplay,
        seeds: Sequence[int],
        *,
        random_steps: int = 0,
    ) -> None:
        worlds = {env.num_envs for env in envs}
        if len(envs) != len(seeds) or worlds != {replay.num_envs}:
            raise ConfigError(f"{len(envs)} sets of {sorted(worlds)} worlds for {len(seeds)} learners; each needs one.")
        self.env, self.replay, self.seeds, self.random_steps = joined(envs), replay, tuple(seeds), random_steps
        self.rngs = [derive_rng(seed, "act") for seed in seeds]
        self.steps = 0
        self.obs: NDArray[Any] = self._rows(self.env.obs).copy()
        shape = self.obs.shape[:2]
        self._total, self._length = np.zeros(shape), np.zeros(shape, np.int64)
        self.windows: list[deque[tuple[float, int]]] = [deque(maxlen=WINDOW) for _ in envs]

    def step(self, choose: Choose) -> None:
        """One step of every world, by `choose` once the random steps are over.

        Raises: DataError for an observation or reward that is not finite, naming env, seed, world and step.
        """
        action = self._any() if self.steps < self.random_steps else choose(self.obs, self.rngs)
        found = self.env.step(torch.from_numpy(action.reshape(-1, *action.shape[2:])))
        reward, next_obs, terminated, truncated = (
            self._rows(part) for part in (found.reward, found.final_obs, found.terminated, found.truncated)
        )
        obs = self._rows(found.obs).copy()  # the world may write over its own
        self.steps += self.replay.num_envs
        if not math.isfinite(_square(next_obs) + _square(obs) + _square(reward)):
            self._refuse(next_obs, obs, reward)
        self.replay.add(self.obs, action, reward, next_obs, terminated, truncated)
        self.obs = obs
        self._total += reward if found.raw_reward is None else self._rows(found.raw_reward)
        self._length += 1
        ended = terminated | truncated
        if np.count_nonzero(ended):
            for learner, world in zip(*ended.nonzero(), strict=True):
                self.windows[learner].append((float(self._total[learner, world]), int(self._length[learner, world])))
            self._total[ended], self._length[ended] = 0.0, 0

    def passed(self, every: int) -> bool:
        """Whether the last step reached or went past a multiple of `every` steps."""
        return self.steps // every > (self.steps - self.replay.num_envs) // every

    def metrics(self) -> list[Metrics]:
        """Of each learner: mean return and length over its last episodes; nothing before the first ended."""
        return [
            {
                "rollout/return": float(np.mean([total for total, _ in window])),
                "rollout/length": float(np.mean([length for _, length in window])),
            }
            if window
            else {}
            for window in self.windows
        ]

    def state_dict(self) -> dict[str, Any]:
        """The worlds, the memory, the generators and the episodes under way."""
        return {
            "env": self.env.state_dict(),
            "obs": self.obs.copy(),
            "replay": self.replay.state_dict(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "steps": self.steps,
            "total": self._total.copy(),
            "length": self._length.copy(),
            "windows": [list(window) for window in self.windows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where worlds could not be saved and start anew, so do their returns."""
        self.env.load_state_dict(state["env"])
        self.replay.load_state_dict(state["replay"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.steps = state["steps"]
        self.obs = self._rows(self.env.obs).copy()
        same = (self.obs == state["obs"]).all(axis=-1)
        self._total, self._length = np.where(same, state["total"], 0.0), np.where(same, state["length"], 0)
        self.windows = [deque(map(tuple, window), maxlen=WINDOW) for window in state["windows"]]

    def _rows(self, values: Tensor) -> NDArray[Any]:
        """What all worlds gave, [S N, ...], as each learner's, [S, N, ...]."""
        return values.numpy().reshape(len(self.seeds), self.replay.num_envs, *values.shape[1:])

    def _any(self) -> NDArray[Any]:
        """Actions alike over all that are legal; in a box without bounds, from the unit cube around 0."""
        actions, worlds = self.env.actions, self.replay.num_envs
        if not isinstance(actions, Box):
            if actions.masked:
                legal = self.obs[..., -actions.bits :] > 0.5
                return np.stack([any_legal(mine, rng) for mine, rng in zip(legal, self.rngs, strict=True)])
            assert isinstance(actions, Discrete)
            return np.stack([rng.integers(0, actions.n, worlds) for rng in self.rngs])
        low, high = (
            np.nan_to_num(np.array(b, np.float32), neginf=-1.0, posinf=1.0) for b in (actions.low, actions.high)
        )
        return np.stack([rng.uniform(low, high, (worlds, actions.dim)).astype(np.float32) for rng in self.rngs])

    def _refuse(self, next_obs: Floats, obs: Floats, reward: Floats) -> None:
        """Raises for the first value that is not finite; there is none where a sum was merely too large."""
        for what, values in (("reward", reward), ("observation", next_obs), ("observation", obs)):
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                learner, world = bad[0][:2]
                raise DataError(
                    f"{self.env.env_id} gave the {what} {values[learner, world].tolist()} in world {world} of "
                    f"seed {self.seeds[learner]} at step {self.steps}; it must be finite. Look for the cause in the "
                    "environment, or for actions that are too large."
                )


def _square(values: NDArray[Any]) -> float:
    """The sum of all squares, finite only where all values are; in a fifth of the time of np.isfinite(...).all()."""
    flat = values.reshape(-1)
    return float(np.dot(flat, flat))


def any_legal(legal: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    """One of the legal actions of each row, all alike. legal [N, A] -> [N]."""
    counts = legal.cumsum(axis=1)
    drawn = (rng.random(len(legal)) * counts[:, -1]).astype(np.int64)
    return (counts <= drawn[:, None]).sum(axis=1)


def epsilon_greedy(q: Floats, epsilon: float, rngs: Sequence[np.random.Generator]) -> NDArray[np.int64]:
    """The first best action of each row, or with probability epsilon any. q [S, N, A] -> [S, N].

    Actions whose value is LOWEST are illegal and never taken.
    """
    _, worlds, actions = q.shape
    best = q.argmax(axis=-1)
    if epsilon <= 0:
        return best
    for k, rng in enumerate(rngs):
        explore: NDArray[np.bool_] = np.less(rng.random(worlds), epsilon)
        if explore.any():
            allowed, count = q[k] > LOWEST, int(explore.sum())
            best[k, explore] = rng.integers(0, actions, count) if allowed.all() else any_legal(allowed[explore], rng)
    return best
