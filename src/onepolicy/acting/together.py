"""S learners on their own rollouts, playing side by side: one forward and one step of all worlds at a time.

What each learner plays is what a `Collector` of its own would: its worlds, its generator of actions, its last
episodes. A checkpoint part, as the Collector is. Not in: whole episodes only, whose number of steps differs by learner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from onepolicy.acting.collect import WINDOW
from onepolicy.data.rollout import Rollout
from onepolicy.envs.joined import joined
from onepolicy.envs.vector import Box, ControlEnv
from onepolicy.errors import DataError
from onepolicy.nn.mlp import Array
from onepolicy.nn.stacked_policy import StackedPolicy, Streams
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics


@final
class Together:
    """Plays the s-th of `policy` in envs[s], all with as many worlds, `steps` steps a rollout.

    seeds: one a learner. env_steps: of each learner so far, over all its worlds. The arrays of a rollout are made once
    and used again: a rollout is to be learnt from before the next.
    """

    def __init__(self, envs: Sequence[ControlEnv], policy: StackedPolicy, *, steps: int, seeds: Sequence[int]) -> None:
        self.env, self.policy, self.steps, self.seeds = joined(envs), policy, steps, tuple(seeds)
        self.worlds = self.env.num_envs // len(envs)
        self.rngs = [derive_rng(seed, "act") for seed in seeds]
        self.env_steps = 0
        self.windows: list[deque[tuple[float, int]]] = [deque(maxlen=WINDOW) for _ in seeds]
        rows, actions = self.env.num_envs, self.env.actions
        self._total, self._length = np.zeros(rows), np.zeros(rows, np.int64)
        self._obs = np.empty((rows, steps, self.env.obs_dim), np.float32)
        self._action: NDArray[Any] = (
            np.empty((rows, steps, actions.dim), np.float32)
            if isinstance(actions, Box)
            else np.empty((rows, steps), np.int64)
        )
        self._logp, self._reward, self._following = np.empty((3, rows, steps), np.float32)
        self._value = np.empty((rows, steps + 1), np.float32)
        self._terminated, self._truncated = np.empty((2, rows, steps), bool)

    def collect(self) -> Rollout:
        """The next `steps` steps of all worlds, [S N, T], with the policies as they are now.

        Raises: DataError for an observation or reward that is not finite, naming env, seed, world and step.
        """
        draw, forward = self.policy.sampler(Streams(self.rngs)), self.policy.numpy_view()
        obs, cut = self.env.obs.numpy(), list[tuple[int, Array]]()
        for t in range(self.steps):
            self._obs[:, t] = obs
            action, self._logp[:, t], self._value[:, t] = draw(obs)
            self._action[:, t] = action
            step = self.env.step(torch.from_numpy(action))
            self._reward[:, t], obs = step.reward.numpy(), step.obs.numpy()
            self._terminated[:, t], self._truncated[:, t] = step.terminated.numpy(), step.truncated.numpy()
            if self._truncated[:, t].any():
                cut.append((t, step.final_obs.numpy()))
            self._count(step.reward.numpy() if step.raw_reward is None else step.raw_reward.numpy(), t)
        self._check("observation", self._obs)
        self._check("observation", obs[:, None])
        self._check("reward", self._reward)
        self._value[:, -1] = forward(obs)[1]
        self._following[:] = self._value[:, 1:]
        for t, final_obs in cut:
            there = self._truncated[:, t]
            self._check("observation", final_obs[:, None])
            self._following[there, t] = forward(final_obs)[1][there]
        self._following[self._terminated] = 0.0
        self.env_steps += self.worlds * self.steps
        return Rollout(
            obs=torch.from_numpy(self._obs),
            action=torch.from_numpy(self._action),
            logp=torch.from_numpy(self._logp),
            value=torch.from_numpy(self._value[:, :-1].copy()),
            next_value=torch.from_numpy(self._following),
            reward=torch.from_numpy(self._reward),
            terminated=torch.from_numpy(self._terminated),
            truncated=torch.from_numpy(self._truncated),
            mask=torch.ones(self._reward.shape, dtype=torch.bool),
        )

    def metrics(self) -> list[Metrics]:
        """Of each learner: mean return and length over its last episodes; nothing before the first ended."""
        return [window_metrics(window) for window in self.windows]

    def state_dict(self) -> dict[str, Any]:
        """The worlds, the generators of actions and the episodes under way."""
        return {
            "env": self.env.state_dict(),
            "obs": self.env.obs.numpy(),
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "env_steps": self.env_steps,
            "windows": [list(window) for window in self.windows],
            "under_way": (self._total.copy(), self._length.copy()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where worlds could not be saved and start anew, so do their returns."""
        self.env.load_state_dict(state["env"])
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.env_steps = state["env_steps"]
        self.windows = [deque(map(tuple, window), maxlen=WINDOW) for window in state["windows"]]
        same = (self.env.obs.numpy() == state["obs"]).all(axis=-1)
        self._total, self._length = (np.where(same, saved, 0) for saved in state["under_way"])

    def _count(self, paid: Array, t: int) -> None:
        """Adds a step to the episodes under way, and those that ended to their learner's window."""
        self._total += paid
        self._length += 1
        for row in np.flatnonzero(self._terminated[:, t] | self._truncated[:, t]).tolist():
            self.windows[row // self.worlds].append((float(self._total[row]), int(self._length[row])))
            self._total[row], self._length[row] = 0.0, 0

    def _check(self, what: str, values: Array) -> None:
        """Raises DataError for the first of [S N, T, ...] that is not finite."""
        if np.isfinite(values).all():
            return
        row = int(np.argwhere(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0, 0])
        raise DataError(
            f"{self.env.env_id} gave a non-finite {what} in world {row % self.worlds} of seed "
            f"{self.seeds[row // self.worlds]} within {self.steps} steps after step {self.env_steps // self.worlds}. "
            "Look for the cause in the environment, or for actions that are too large."
        )


def window_metrics(window: Sequence[tuple[float, int]] | deque[tuple[float, int]]) -> Metrics:
    """Mean return (reward units) and length (steps) of episodes; nothing for none."""
    if not window:
        return {}
    totals, lengths = zip(*window, strict=True)
    return {"rollout/return": float(np.mean(totals)), "rollout/length": float(np.mean(lengths))}
