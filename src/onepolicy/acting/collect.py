"""Acting on control: a policy plays N worlds and what happened comes back as a Rollout.

`Collector` plays a fixed number of steps, episodes going on from one rollout to the next; `collect_episodes` makes it
play whole episodes. It is a checkpoint part: saved between two rollouts and loaded again, it goes on as if never
stopped, what a recurrent policy remembers included. Acting never sees advantages, and no gradient flows here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from onepolicy.data.rollout import Ended, Rollout, concatenate, first_episodes
from onepolicy.envs.vector import ActionSpace, Box, ControlEnv, Discrete, MultiDiscrete
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.mlp import Array
from onepolicy.nn.policies import ControlPolicy, Sampler
from onepolicy.run.seeding import derive_rng
from onepolicy.types import Metrics

WINDOW = 100
"""Last episodes that a collector's metrics are means over."""


@final
class Collector:
    """Plays `policy` in the worlds of `env`, `steps` steps a rollout, from wherever the last rollout left them.

    seed: of the draws of actions. env_steps: steps played so far, counted over all worlds. window: the last WINDOW
    episodes that ended.
    """

    def __init__(self, env: ControlEnv, policy: ControlPolicy, *, steps: int, seed: int) -> None:
        if steps < 1:
            raise ConfigError(f"n_steps is {steps}; a rollout has at least 1 step. Set n_steps >= 1.")
        self.env, self.policy, self.steps = env, policy, steps
        self.rng = derive_rng(seed, "act")
        self.env_steps = 0
        self.window: deque[Ended] = deque(maxlen=WINDOW)
        self._state: Array | None = None
        self._total = np.zeros(env.num_envs)
        self._length = np.zeros(env.num_envs, dtype=np.int64)

    def collect(self) -> Rollout:
        """The next `steps` steps of all worlds, with the policy as it is now.

        Raises: DataError for an observation or reward that is not finite, naming env, world and step.
        """
        sampler = self.policy.sampler(self.rng)
        if sampler.memory is not None and self._state is not None:
            sampler.memory.state = self._state
        tape = _Tape(self.env, sampler, self.steps)
        obs = self.env.obs.numpy()
        for t in range(self.steps):
            self._require_finite("observation", obs, t)
            obs = tape.play(t, obs)
        self._require_finite("observation", obs, self.steps)
        for t, final_obs in tape.cut:
            self._require_finite("observation", final_obs, t + 1)
        if not np.isfinite(tape.paid).all():
            t = int(np.argwhere(~np.isfinite(tape.paid).all(axis=0))[0, 0])
            self._require_finite("reward", tape.paid[:, t], t + 1)
        rollout = tape.rollout(obs, self._episodes(tape))
        self._state = sampler.memory and sampler.memory.state
        self.env_steps += self.env.num_envs * self.steps
        self.window.extend(rollout.ended)
        return rollout

    def restart(self, seed: int) -> None:
        """New episodes in all worlds; those under way are given up."""
        self.env.reset(seed)
        self._state = None
        self._total[:], self._length[:] = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        """The worlds, the generator of actions and the episodes under way."""
        return {
            "env": self.env.state_dict(),
            "obs": self.env.obs.numpy(),
            "rng": self.rng.bit_generator.state,
            "env_steps": self.env_steps,
            "window": [tuple(e) for e in self.window],
            "total": self._total.copy(),
            "length": self._length.copy(),
            "memory": self._state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where worlds could not be saved and start anew, so do returns and memory."""
        self.env.load_state_dict(state["env"])
        self.rng.bit_generator.state = state["rng"]
        self.env_steps = state["env_steps"]
        self.window = deque((Ended(*e) for e in state["window"]), maxlen=WINDOW)
        same = np.array_equal(self.env.obs.numpy(), state["obs"])
        self._total = state["total"].copy() if same else np.zeros(self.env.num_envs)
        self._length = state["length"].copy() if same else np.zeros(self.env.num_envs, dtype=np.int64)
        self._state = state["memory"] if same else None

    def _episodes(self, tape: _Tape) -> list[Ended]:
        """The episodes that ended on the tape; adds the rewards that the worlds paid to the returns under way."""
        ended = []
        over = tape.terminated | tape.truncated
        through = ~over.any(axis=1)
        self._total[through] += tape.paid[through].sum(axis=1, dtype=np.float64)
        self._length[through] += self.steps
        for world in np.flatnonzero(~through).tolist():
            since = 0
            for t in np.flatnonzero(over[world]).tolist():
                total = self._total[world] + tape.paid[world, since : t + 1].sum(dtype=np.float64)
                ended.append(Ended(world, t, float(total), int(self._length[world] + t + 1 - since)))
                self._total[world], self._length[world], since = 0.0, 0, t + 1
            self._total[world] = tape.paid[world, since:].sum(dtype=np.float64)
            self._length[world] = self.steps - since
        return sorted(ended, key=lambda episode: (episode.step, episode.world))

    def _require_finite(self, what: str, values: NDArray[Any], t: int) -> None:
        if np.isfinite(values).all():
            return
        world = int(np.argwhere(~np.isfinite(values))[0][0])
        step = self.env_steps // self.env.num_envs + t
        raise DataError(
            f"{self.env.env_id} gave the {what} {values[world].tolist()} in world {world} after {step} steps; it must "
            "be finite. Look for the cause in the environment, or for actions that are too large."
        )


def collect_episodes(collector: Collector, count: int, seed: int) -> Rollout:
    """`count` whole episodes, as many from each world, all started anew; the mask leaves out what followed them.

    Raises: ConfigError when count is no multiple of the number of worlds.
    """
    worlds = collector.env.num_envs
    if count < 1 or count % worlds:
        raise ConfigError(
            f"episodes is {count} with {worlds} worlds; each plays as many. Set episodes to a multiple of {worlds}."
        )
    collector.restart(seed)
    rollouts: list[Rollout] = []
    finished = np.zeros(worlds, dtype=np.int64)
    while finished.min() < count // worlds:
        rollouts.append(collector.collect())
        np.add.at(finished, [e.world for e in rollouts[-1].ended], 1)
    return first_episodes(concatenate(rollouts), count // worlds)


def episode_metrics(ended: Iterable[Ended]) -> Metrics:
    """Mean return (reward units) and length (steps) of episodes; nothing when none ended."""
    episodes = list(ended)
    if not episodes:
        return {}
    return {
        "rollout/return": float(np.mean([e.total for e in episodes])),
        "rollout/length": float(np.mean([e.length for e in episodes])),
    }


class _Tape:
    """The steps of a rollout as they are played, in arrays [N, T, ...] made once."""

    def __init__(self, env: ControlEnv, sampler: Sampler, steps: int) -> None:
        self.env, self.sampler = env, sampler
        shape = (env.num_envs, steps)
        self.obs: NDArray[Any] = np.empty((*shape, env.obs_dim), dtype=env.obs.numpy().dtype)
        self.action = np.empty((*shape, *_action_shape(env.actions)), _ACTION_TYPES[type(env.actions)])
        self.logp, self.value, self.reward = np.empty((3, *shape), dtype=np.float32)
        self.paid = self.reward
        """Rewards before any scaling."""
        self.terminated, self.truncated = np.empty((2, *shape), dtype=bool)
        self.cut: list[tuple[int, Array]] = []
        """Step and final observations [N, D] where any episode was truncated; 0 in the other worlds."""
        self.cut_value: list[Array] = []
        """Their values [N] by a recurrent policy, which knows them only while it remembers the episode."""
        self.judged = True
        """Whether values came with the draws; else they are asked of all steps at once."""
        self.state = None if sampler.memory is None else sampler.memory.of(env.num_envs)

    def play(self, t: int, obs: Array) -> Array:
        """Step t of all worlds from obs [N, D]; what to act on next."""
        (action, self.logp[:, t]), value = self.sampler.draw(obs)
        if value is not None:
            self.value[:, t] = value
        self.judged = value is not None
        self.obs[:, t], self.action[:, t] = obs, action
        step = self.env.step(torch.from_numpy(action))
        self.reward[:, t] = step.reward.numpy()
        if step.raw_reward is not None:
            self.paid = np.empty_like(self.reward) if self.paid is self.reward else self.paid
            self.paid[:, t] = step.raw_reward.numpy()
        self.terminated[:, t] = step.terminated.numpy()
        self.truncated[:, t] = truncated = step.truncated.numpy()
        if truncated.any():
            final_obs = step.final_obs.numpy()
            self.cut.append((t, np.where(truncated[:, None], final_obs, final_obs.dtype.type(0))))
            if self.sampler.memory is not None:
                self.cut_value.append(self.sampler.value(final_obs))
        if self.sampler.memory is not None:
            self.sampler.memory.forget(self.terminated[:, t] | truncated)
        return step.obs.numpy()

    def rollout(self, obs: Array, ended: list[Ended]) -> Rollout:
        """The tape as tensors; obs [N, D] is what followed its last step."""
        if not self.judged:
            self.value[:] = self.sampler.value(self.obs.reshape(self.value.size, -1)).reshape(self.value.shape)
        following = np.empty_like(self.value)
        following[:, :-1] = self.value[:, 1:]
        following[:, -1] = self.sampler.value(obs)
        for k, (t, final_obs) in enumerate(self.cut):
            truncated = self.truncated[:, t]
            known = self.cut_value[k][truncated] if self.cut_value else self.sampler.value(final_obs[truncated])
            following[truncated, t] = known
        following[self.terminated] = 0.0
        return Rollout(
            obs=torch.from_numpy(self.obs),
            action=torch.from_numpy(self.action),
            logp=torch.from_numpy(self.logp),
            value=torch.from_numpy(self.value),
            next_value=torch.from_numpy(following),
            reward=torch.from_numpy(self.reward),
            terminated=torch.from_numpy(self.terminated),
            truncated=torch.from_numpy(self.truncated),
            mask=torch.ones(self.value.shape, dtype=torch.bool),
            ended=tuple(ended),
            state=None if self.state is None else torch.from_numpy(self.state),
        )


def _action_shape(actions: ActionSpace) -> tuple[int, ...]:
    """Of one world's action."""
    if isinstance(actions, Discrete):
        return ()
    return (actions.dim,) if isinstance(actions, Box) else (len(actions.sizes),)


_ACTION_TYPES: dict[type[ActionSpace], type[np.float32] | type[np.int64]] = {
    Discrete: np.int64,
    MultiDiscrete: np.int64,
    Box: np.float32,
}
