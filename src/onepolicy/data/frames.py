"""A memory for images: each frame is kept once, as bytes, and the stacks that a learner sees are rebuilt when drawn.

Stacks of four kept whole, before and after each step, would take eight times as much. In: one-step transitions of S
learners. Not in: n steps, priorities, networks for images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from onepolicy.core.check import fraction
from onepolicy.data.replay import Floats, Transitions
from onepolicy.errors import ConfigError
from onepolicy.run.seeding import derive_rng

Frame = NDArray[np.uint8]


@final
class FrameReplay:
    """The last `capacity` steps of S learners with `num_envs` worlds each, whose observations are `stack` frames.

    frame_shape: of one frame, as (84, 84). An episode's first observation is its first frame `stack` times. Once the
    memory is full, the oldest stack - 1 steps of each world serve as the past of others and are not drawn. A million
    frames of 84 x 84 take 7.1 GB. Source: Mnih et al. 2015, methods; the padding is gymnasium's.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        capacity: int,
        num_envs: int,
        frame_shape: Sequence[int],
        *,
        gamma: float,
        stack: int = 4,
    ) -> None:
        self.gamma, self.num_envs, self.stack = fraction("gamma", gamma), num_envs, stack
        self.capacity = capacity // num_envs * num_envs
        if stack < 1 or self.capacity < (stack + 1) * num_envs:
            raise ConfigError(
                f"capacity is {capacity} with {num_envs} worlds and stacks of {stack}; it must hold stack + 1 steps of "
                f"each. Set stack >= 1 and capacity >= {(max(stack, 1) + 1) * num_envs}."
            )
        shape = (len(seeds), self.capacity)
        self.frame: Frame = np.zeros((*shape, *frame_shape), np.uint8)
        self.action = np.zeros(shape, np.int64)
        self.reward: Floats = np.zeros(shape, np.float32)
        self.begins, self.terminated, self.ended = (np.zeros(shape, np.bool_) for _ in range(3))
        self.final: dict[tuple[int, int], Frame] = {}
        self.rngs = [derive_rng(seed, "replay") for seed in seeds]
        self.added = 0
        self._latest: Frame = np.zeros((len(seeds), num_envs, *frame_shape), np.uint8)
        self._fresh = np.ones((len(seeds), num_envs), np.bool_)

    def __len__(self) -> int:
        """Transitions of each learner that can be drawn."""
        return self.added if self.added <= self.capacity else self.capacity - (self.stack - 1) * self.num_envs

    @property
    def nbytes(self) -> int:
        """Memory taken once it is full, the last frames of the episodes that ended included."""
        kept: list[NDArray[Any]] = [getattr(self, name) for name in _KEPT]
        return sum(array.nbytes for array in [*kept, *self.final.values()])

    def add(
        self,
        frame: Frame,
        action: NDArray[np.int64],
        reward: Floats,
        next_frame: Frame,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """One step of every world, [S, N, ...]. frame: the newest of what was acted on; next_frame: before a reset."""
        first = self.added % self.capacity
        at = slice(first, first + self.num_envs)
        for learner, row in np.argwhere(self.ended[:, at]):
            self.final.pop((int(learner), first + int(row)), None)
        self.frame[:, at], self.action[:, at], self.reward[:, at] = frame, action, reward
        self.begins[:, at], self.terminated[:, at], self.ended[:, at] = self._fresh, terminated, terminated | truncated
        for learner, world in np.argwhere(self.ended[:, at]):
            self.final[int(learner), first + int(world)] = next_frame[learner, world].copy()
        self._fresh, self._latest = self.ended[:, at].copy(), next_frame.copy()
        self.added += self.num_envs

    def sample(self, batch_size: int) -> Transitions:
        """Transitions of each learner, drawn alike and with replacement; observations are uint8 [S, B, stack, ...].

        Raises: ConfigError while there are none.
        """
        if self.added == 0:
            raise ConfigError("the memory is empty; play before you learn.")
        drawn = np.stack([rng.integers(0, len(self), batch_size) for rng in self.rngs])
        return self.at((self.added - len(self) + drawn) % self.capacity)

    def at(self, row: NDArray[np.int64]) -> Transitions:
        """The transitions of `row` [S, B]; rows that cannot be drawn have a past that was overwritten."""
        each = np.arange(len(row))[:, None]
        places = [row]
        for _ in range(self.stack - 1):
            before = (places[0] - self.num_envs) % self.capacity
            places.insert(0, np.where(self.begins[each, places[0]], places[0], before))
        obs: Frame = np.stack([self.frame[each, place] for place in places], axis=2)
        newest: Frame = self.frame[each, (row + self.num_envs) % self.capacity]
        world = row - (self.added - self.num_envs) % self.capacity
        for learner, b in np.argwhere((world >= 0) & (world < self.num_envs)):
            newest[learner, b] = self._latest[learner, world[learner, b]]
        for learner, b in np.argwhere(self.ended[each, row]):
            newest[learner, b] = self.final[int(learner), int(row[learner, b])]
        discount = np.where(self.terminated[each, row], np.float32(0), np.float32(self.gamma))
        return Transitions(
            obs=torch.from_numpy(obs),
            action=torch.from_numpy(self.action[each, row]),
            reward=torch.from_numpy(self.reward[each, row]),
            next_obs=torch.from_numpy(np.concatenate([obs[:, :, 1:], newest[:, :, None]], axis=2)),
            discount=torch.from_numpy(discount),
            row=row,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that was kept, and the random streams."""
        kept = min(self.added, self.capacity)
        return {name: getattr(self, name)[:, :kept].copy() for name in _KEPT} | {
            "added": self.added,
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "final": [(*place, frame.copy()) for place, frame in self.final.items()],
            "latest": self._latest.copy(),
            "fresh": self._fresh.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict, for a memory of the same shape."""
        self.added = state["added"]
        for name in _KEPT:
            getattr(self, name)[:, : min(self.added, self.capacity)] = state[name]
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.final = {(learner, row): frame for learner, row, frame in state["final"]}
        self._latest, self._fresh = state["latest"].copy(), state["fresh"].copy()


_KEPT = ("frame", "action", "reward", "begins", "terminated", "ended")
