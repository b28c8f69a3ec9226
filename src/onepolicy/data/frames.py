"""A memory for images: each frame is kept once, as bytes, and the stacks that a learner sees are rebuilt when drawn.

Stacks of four kept whole, before and after each step, would take eight times as much. In: `data.replay.Replay`'s draws,
n steps and priorities on such frames; a checkpoint of the frames that needs no second copy of them. Not in: networks
for images, who stacks (envs/frames.py).
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.core.check import fraction
from onepolicy.data.priorities import Priorities
from onepolicy.data.replay import Floats, Transitions, ahead, take, weighed
from onepolicy.errors import CheckpointError, ConfigError
from onepolicy.run.seeding import derive_rng

Rows = NDArray[np.uint8]
BLOCK = 4096
"""Frames compressed at a time."""


@final
class FrameReplay:
    """The last `capacity` steps of S learners with `num_envs` worlds each, whose rows are `stack` frames of bytes.

    obs_dim: bytes of a row, oldest frame first, `bits` of a mask of actions at the end. An episode's first row is its
    first frame `stack` times (envs/frames.py). Once the memory is full, the oldest stack - 1 steps of each world serve
    as the past of others and are not drawn. A million frames of 84 x 84 take 7.1 GB, which the operating system gives
    as they come. seeds, gamma, n_step, priority: as in `Replay`. `state_dict` has all but the frames, `save_to` these.
    Source: Mnih et al. 2015, methods.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        capacity: int,
        num_envs: int,
        obs_dim: int,
        *,
        gamma: float,
        stack: int = 4,
        bits: int = 0,
        n_step: int = 1,
        priority: float = 0.0,
    ) -> None:
        self.gamma, self.num_envs, self.stack = fraction("gamma", gamma), num_envs, stack
        self.capacity = capacity // num_envs * num_envs
        if stack < 1 or self.capacity < (stack + 1) * num_envs:
            raise ConfigError(
                f"capacity is {capacity} with {num_envs} worlds and stacks of {stack}; it must hold stack + 1 steps of "
                f"each. Set stack >= 1 and capacity >= {(max(stack, 1) + 1) * num_envs}."
            )
        if n_step < 1 or (obs_dim - bits) % stack:
            raise ConfigError(f"n_step is {n_step}, obs_dim {obs_dim}; n_step is at least 1, a row is {stack} frames.")
        self.n_step, self.bits, self.width = n_step, bits, (obs_dim - bits) // stack
        shape = (len(seeds), self.capacity)
        self.frame: Rows = np.zeros((*shape, self.width + bits), np.uint8)
        self.action = np.zeros(shape, np.int64)
        self.reward: Floats = np.zeros(shape, np.float32)
        self.begins, self.terminated, self.ended = (np.zeros(shape, np.bool_) for _ in range(3))
        self.final: dict[tuple[int, int], Rows] = {}
        self.rngs = [derive_rng(seed, "replay") for seed in seeds]
        self.priorities = Priorities(len(seeds), self.capacity, priority) if priority > 0 else None
        self.added = 0
        self._latest: Rows = np.zeros((len(seeds), num_envs, self.width + bits), np.uint8)
        self._fresh = np.ones((len(seeds), num_envs), np.bool_)

    def __len__(self) -> int:
        """Transitions of each learner that can be drawn."""
        return self.added if self.added <= self.capacity else self.capacity - (self.stack - 1) * self.num_envs

    @property
    def nbytes(self) -> int:
        """Memory taken once it is full, the last frames of the episodes that ended included."""
        kept: list[NDArray[Any]] = [getattr(self, name) for name in (*_KEPT, "frame")]
        return sum(array.nbytes for array in [*kept, *self.final.values()])

    def add(
        self,
        obs: Rows,
        action: NDArray[np.int64],
        reward: Floats,
        next_obs: Rows,
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> None:
        """One step of every world, [S, N, ...]. obs, next_obs: whole rows, next_obs before a reset."""
        first = self.added % self.capacity
        at = slice(first, first + self.num_envs)
        newest = (self.stack - 1) * self.width
        for learner, row in np.argwhere(self.ended[:, at]):
            self.final.pop((int(learner), first + int(row)), None)
        self.frame[:, at], self.action[:, at], self.reward[:, at] = obs[..., newest:], action, reward
        self.begins[:, at], self.terminated[:, at], self.ended[:, at] = self._fresh, terminated, terminated | truncated
        self._latest = next_obs[..., newest:].copy()
        for learner, world in np.argwhere(self.ended[:, at]):
            self.final[int(learner), first + int(world)] = self._latest[learner, world].copy()
        self._fresh = self.ended[:, at].copy()
        self.added += self.num_envs
        if self.priorities is not None:
            self.priorities.add(first, self.num_envs)
            if self.added > self.capacity and self.stack > 1:
                past = np.arange((self.stack - 1) * self.num_envs)
                self.priorities.drop((self.added + past) % self.capacity)

    def sample(self, batch_size: int, *, beta: float = 1.0) -> Transitions:
        """Transitions of each learner, drawn with replacement, all alike or by their priorities; rows are uint8.

        beta: exponent of their weights, as in `Replay`. Raises: ConfigError while there are none.
        """
        if self.added == 0:
            raise ConfigError("the memory is empty; play before you learn.")
        if self.priorities is not None:
            row, chance = self.priorities.draw(self.rngs, batch_size)
            return weighed(self.at(row), chance, beta)
        drawn = np.stack([rng.integers(0, len(self), batch_size) for rng in self.rngs])
        return self.at((self.added - len(self) + drawn) % self.capacity)

    def prioritise(self, row: NDArray[np.int64], error: Tensor) -> None:
        """The sizes of the errors [S, B] found at `row` [S, B] become their priorities, if there are any."""
        if self.priorities is not None:
            self.priorities.set(row, error.numpy())

    def at(self, row: NDArray[np.int64]) -> Transitions:
        """The transitions of `row` [S, B]; rows that cannot be drawn have a past that was overwritten."""
        reward, last, discount = ahead(self, row)
        frames = self._stack(row)
        before = frames if self.n_step == 1 else self._stack(last)
        return Transitions(
            obs=torch.from_numpy(np.concatenate(frames, axis=-1)),
            action=torch.from_numpy(take(self.action, row)),
            reward=torch.from_numpy(reward),
            next_obs=torch.from_numpy(np.concatenate([*self._past(before), self._after(last)], axis=-1)),
            discount=torch.from_numpy(discount),
            row=row,
        )

    def _stack(self, row: NDArray[np.int64]) -> list[Rows]:
        """The frames seen at `row`, oldest first, each [S, B, width], the last with its mask."""
        places = [row]
        for _ in range(self.stack - 1):
            before = (places[0] - self.num_envs) % self.capacity
            places.insert(0, np.where(take(self.begins, places[0]), places[0], before))
        found = [take(self.frame, place) for place in places]
        return [*(frame[..., : self.width] for frame in found[:-1]), found[-1]]

    def _past(self, frames: list[Rows]) -> list[Rows]:
        """All but the oldest of a stack, without masks."""
        return [frame[..., : self.width] for frame in frames[1:]]

    def _after(self, row: NDArray[np.int64]) -> Rows:
        """The frame, and mask, that followed `row`: the next row's, or the last of its episode, or of all."""
        found: Rows = take(self.frame, (row + self.num_envs) % self.capacity)
        world = row - (self.added - self.num_envs) % self.capacity
        for learner, b in np.argwhere((world >= 0) & (world < self.num_envs)):
            found[learner, b] = self._latest[learner, world[learner, b]]
        for learner, b in np.argwhere(take(self.ended, row)):
            found[learner, b] = self.final[int(learner), int(row[learner, b])]
        return found

    def state_dict(self) -> dict[str, Any]:
        """All that was kept but the frames, and the random streams."""
        kept = min(self.added, self.capacity)
        found: dict[str, Any] = {name: getattr(self, name)[:, :kept].copy() for name in _KEPT}
        if self.priorities is not None:
            found |= self.priorities.state_dict(kept)
        return found | {
            "added": self.added,
            "rngs": [rng.bit_generator.state for rng in self.rngs],
            "latest": self._latest.copy(),
            "fresh": self._fresh.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Raises: CheckpointError for a memory of another shape."""
        kept = min(state["added"], self.capacity)
        shapes = (state["latest"].shape, state["action"].shape)
        if shapes != (self._latest.shape, (len(self.frame), kept)):
            raise CheckpointError(
                f"the saved memory has shapes {shapes}, this one takes {(self._latest.shape, (len(self.frame), kept))}."
                " Resume with the capacity, worlds and seeds of the run."
            )
        for name in _KEPT:
            getattr(self, name)[:, :kept] = state[name]
        if self.priorities is not None:
            self.priorities.load_state_dict(state)
        for rng, saved in zip(self.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = saved
        self.added, self._latest, self._fresh = state["added"], state["latest"].copy(), state["fresh"].copy()

    def save_to(self, directory: Path) -> None:
        """The frames, whole and compressed: each checkpoint has all of them, and none needs another."""
        kept = min(self.added, self.capacity)
        index = {"kept": kept, "final": sorted(self.final)}
        (directory / "frames.json").write_text(json.dumps(index), encoding="utf-8")
        with (directory / "frames.gz").open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
            for block in self._blocks(kept):
                file.write(block.reshape(-1).data)
            for place in sorted(self.final):
                file.write(self.final[place].data)

    def load_from(self, directory: Path) -> None:
        """The inverse of save_to. Raises: CheckpointError where it ends early."""
        index = json.loads((directory / "frames.json").read_text(encoding="utf-8"))
        self.final = {(k, row): np.empty(self.width + self.bits, np.uint8) for k, row in index["final"]}
        with gzip.open(directory / "frames.gz", "rb") as file:
            for part in [*self._blocks(index["kept"]), *self.final.values()]:
                flat = part.reshape(-1)
                done = 0
                while done < flat.size:
                    more = file.readinto(flat[done:].data)  # type: ignore[attr-defined]
                    if not more:
                        raise CheckpointError(f"{directory} has too few frames for a memory of {self.frame.shape}.")
                    done += more

    def _blocks(self, kept: int) -> Iterator[Rows]:
        for mine in self.frame:
            for first in range(0, kept, BLOCK):
                yield mine[first : min(first + BLOCK, kept)]


_KEPT = ("action", "reward", "begins", "terminated", "ended")
