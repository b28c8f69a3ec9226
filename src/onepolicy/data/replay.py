"""Replay: the transitions of S learners side by side, each with a memory and a random stream of its own.

In: the ring, draws, n-step returns made when drawn. Not in: priorities (priorities.py), a memory for images
(frames.py), who plays (acting/explore.py) and who learns (algos).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.core.check import fraction
from onepolicy.data.priorities import Priorities
from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.seeding import derive_rng

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Transitions:
    """B transitions for each of S learners.

    obs, next_obs [S, B, D]. action [S, B] int64 or [S, B, A] float32. reward [S, B]: of one step, or the discounted sum
    of up to n. discount [S, B]: what the value of next_obs counts, gamma^k after k steps, 0 where the episode
    terminated; a time limit leaves it. row [S, B]: places in the memory. weight [S, B]: of each one's loss, the
    greatest of a learner's being 1; None where all were drawn alike.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    next_obs: Tensor
    discount: Tensor
    row: NDArray[np.int64]
    weight: Tensor | None = None

    def split(self, rows: int) -> list[Transitions]:
        """Batches of `rows` each, in order; B is a multiple of it."""
        if self.row.shape[1] == rows:
            return [self]
        row = np.split(self.row, self.row.shape[1] // rows, axis=1)
        weight = [None] * len(row) if self.weight is None else self.weight.split(rows, dim=1)
        tensors = (self.obs, self.action, self.reward, self.next_obs, self.discount)
        parts = (tensor.split(rows, dim=1) for tensor in tensors)
        return [Transitions(*each) for each in zip(*parts, row, weight, strict=True)]


@final
class Replay:
    """The last `capacity` transitions of each of S learners that play `num_envs` worlds each.

    seeds: one a learner, of its draws. actions: None for whole numbers, else how many real numbers an action has.
    n_step: rewards summed up before the value of what follows counts; a sum ends early where the episode does, and at
    the newest transition. priority: exponent of the priorities; 0 for none. Memory is taken by the operating system as
    it fills.
    Source: Lin 1992; Mnih et al. 2015; for n steps Sutton and Barto 2018, section 7.1.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        capacity: int,
        num_envs: int,
        obs_dim: int,
        actions: int | None,
        *,
        gamma: float,
        n_step: int = 1,
        priority: float = 0.0,
    ) -> None:
        fraction("gamma", gamma)
        if capacity < num_envs:
            raise ConfigError(f"capacity is {capacity} with {num_envs} worlds; it must hold one step of each.")
        if n_step < 1:
            raise ConfigError(f"n_step is {n_step}; a return has at least 1 reward. Set n_step >= 1.")
        self.num_envs, self.gamma, self.n_step = num_envs, gamma, n_step
        self.capacity = capacity // num_envs * num_envs
        shape = (len(seeds), self.capacity)
        self.obs: Floats = np.zeros((*shape, obs_dim), np.float32)
        self.next_obs: Floats = np.zeros((*shape, obs_dim), np.float32)
        self.action: NDArray[Any] = (
            np.zeros(shape, np.int64) if actions is None else np.zeros((*shape, actions), np.float32)
        )
        self.reward: Floats = np.zeros(shape, np.float32)
        self.terminated: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.ended: NDArray[np.bool_] = np.zeros(shape, np.bool_)
        self.rngs = [derive_rng(seed, "replay") for seed in seeds]
        self.priorities = Priorities(len(seeds), self.capacity, priority) if priority > 0 else None
        self.added = 0

    def __len__(self) -> int:
        """Transitions of each learner that can be drawn."""
        return min(self.added, self.capacity)

    def add(
        self,
        obs: Floats,
        action: NDArray[Any],
        reward: Floats,
        next_obs: Floats,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """One step of every world, in place of the oldest once the memory is full. All [S, N, ...]; next_obs: before a
        reset."""
        first = self.added % self.capacity
        at = slice(first, first + self.num_envs)
        self.obs[:, at], self.next_obs[:, at], self.action[:, at] = obs, next_obs, action
        self.reward[:, at], self.terminated[:, at] = reward, terminated
        self.ended[:, at] = terminated | truncated
        if self.priorities is not None:
            self.priorities.add(first, self.num_envs)
        self.added += self.num_envs

    def sample(self, batch_size: int, *, beta: float = 1.0) -> Transitions:
        """Transitions of each learner, drawn with replacement: all alike, or by their priorities.

        beta: exponent of their weights, (size * probability)^-beta over the greatest of the batch; 0 for none.

        Raises: ConfigError while there are none.
        """
        if self.added == 0:
            raise ConfigError("the memory is empty; play before you learn.")
        if self.priorities is None:
            return self.at(np.stack([rng.integers(0, len(self), batch_size) for rng in self.rngs]))
        row, chance = self.priorities.draw(self.rngs, batch_size)
        return weighed(self.at(row), chance, beta)

    def prioritise(self, row: NDArray[np.int64], error: Tensor) -> None:
        """The sizes of the errors [S, B] found at `row` [S, B] become their priorities, if there are any."""
        if self.priorities is not None:
            self.priorities.set(row, error.numpy())

    def at(self, row: NDArray[np.int64]) -> Transitions:
        """The transitions that begin at `row` [S, B]."""
        reward, last, discount = ahead(self, row)
        return Transitions(
            obs=torch.from_numpy(take(self.obs, row)),
            action=torch.from_numpy(take(self.action, row)),
            reward=torch.from_numpy(reward),
            next_obs=torch.from_numpy(take(self.next_obs, last)),
            discount=torch.from_numpy(discount),
            row=row,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that was kept, and the random streams."""
        kept = {name: getattr(self, name)[:, : len(self)].copy() for name in _KEPT}
        if self.priorities is not None:
            kept |= self.priorities.state_dict(len(self))
        return kept | {"added": self.added, "rngs": [rng.bit_generator.state for rng in self.rngs]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Raises: CheckpointError for a memory of another shape."""
        kept = min(state["added"], self.capacity)
        for name in _KEPT:
            mine, saved = getattr(self, name), state[name]
            if saved.shape != (len(mine), kept, *mine.shape[2:]):
                raise CheckpointError(
                    f"the saved memory's {name} has shape {saved.shape}, this one takes "
                    f"{(len(mine), kept, *mine.shape[2:])}. Resume with the capacity, worlds and seeds of the run."
                )
            mine[:, :kept] = saved
        if self.priorities is not None:
            self.priorities.load_state_dict(state)
        self.added = state["added"]
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved


_KEPT = ("obs", "next_obs", "action", "reward", "terminated", "ended")


class Steps(Protocol):
    """A memory's steps: reward, terminated, ended [S, capacity]; those of a world lie num_envs rows apart."""

    reward: Floats
    terminated: NDArray[np.bool_]
    ended: NDArray[np.bool_]
    added: int
    capacity: int
    num_envs: int
    n_step: int
    gamma: float


def ahead(memory: Steps, row: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64], Floats]:
    """The discounted sum of up to n rewards from `row` on, the row of the last, and what counts of the value after it;
    all [S, B]. The sum ends where the episode does, and at the newest step."""
    reward, last = take(memory.reward, row), row
    discount = np.full(row.shape, memory.gamma, np.float32)
    newest = (memory.added - memory.num_envs) % memory.capacity
    for _ in range(memory.n_step - 1):
        goes_on = ~take(memory.ended, last) & ((last < newest) | (last >= newest + memory.num_envs))
        following = np.where(goes_on, (last + memory.num_envs) % memory.capacity, last)
        reward += np.where(goes_on, discount * take(memory.reward, following), np.float32(0))
        discount *= np.where(goes_on, np.float32(memory.gamma), np.float32(1))
        last = following
    return reward, last, np.where(take(memory.terminated, last), np.float32(0), discount)


def weighed(batch: Transitions, chance: NDArray[np.float64], beta: float) -> Transitions:
    """The batch with the weights that make up for having been drawn with these chances [S, B], to the power of beta."""
    weight = (chance / chance.min(axis=-1, keepdims=True)) ** -beta
    return replace(batch, weight=torch.from_numpy(weight.astype(np.float32)))


def take(kept: NDArray[Any], row: NDArray[np.int64]) -> NDArray[Any]:
    """kept [S, C, ...] at row [S, B]: [S, B, ...]."""
    return np.stack([np.take(mine, at, axis=0) for mine, at in zip(kept, row)])
