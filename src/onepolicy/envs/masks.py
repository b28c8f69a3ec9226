"""Which actions are legal, wherever a gymnasium world says it: in its observation, its info, or a method.

In: finding the mask and reading it as numbers that follow the features of an observation, so that it goes wherever the
observation goes: into rollouts, memories and checkpoints. Not in: what a policy does with it (nn/legal.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import gymnasium
import numpy as np
from numpy.typing import NDArray

from onepolicy.envs.vector import ActionSpace, Box, Discrete, MultiDiscrete
from onepolicy.errors import DataError

KEY = "action_mask"
"""Of a Dict observation (PettingZoo) and of the info (gymnasium's Taxi)."""
METHOD = "action_masks"
"""Of a world (sb3-contrib)."""


@dataclass(frozen=True)
class Masks:
    """Where a world's masks are. actions: its action space, which they belong to."""

    where: Literal["observation", "info", "method"]
    actions: Discrete | MultiDiscrete

    def read(self, env: Any, obs: Any, info: Mapping[str, Any], *, acted_on: bool = True) -> NDArray[np.float32]:
        """The mask as it is now, [sum of sizes] of 1 (legal) and 0; several choices' may come as a tuple of arrays.

        acted_on: whether an action is to be chosen; where an episode has ended, none need be legal.
        Raises: DataError for a mask that is missing, of another length, of other numbers, or without a legal action.
        """
        found = self._look(env, obs, info)
        parts = found if isinstance(found, tuple | list) else (found,)
        flat = np.concatenate([np.asarray(part).ravel() for part in parts])
        sizes = self.actions.sizes
        if len(flat) != sum(sizes):
            raise DataError(f"it has {len(flat)} numbers for {sum(sizes)} actions, of choices {list(sizes)}")
        if not np.isin(flat, (0, 1)).all():
            raise DataError(f"{flat.tolist()} has numbers other than 0 and 1")
        legal = flat.astype(np.float32)
        if acted_on:
            for choice, part in enumerate(np.split(legal, np.cumsum(sizes)[:-1])):
                if not part.any():
                    which = f" of choice {choice}" if len(sizes) > 1 else ""
                    raise DataError(f"{legal.astype(int).tolist()} leaves no legal action{which}")
        return legal

    def _look(self, env: Any, obs: Any, info: Mapping[str, Any]) -> Any:
        if self.where == "observation":
            return obs[KEY]
        if self.where == "method":
            return env.get_wrapper_attr(METHOD)()
        if KEY not in info:
            raise DataError(f"info has no {KEY!r}, which it had at the first reset")
        return info[KEY]


def find_masks(env: Any, actions: ActionSpace, info: Mapping[str, Any]) -> Masks | None:
    """Where the world's masks are, looked for in its observation space, the info of its first reset and its methods.

    None for a world without any, and for actions of real numbers.
    """
    if isinstance(actions, Box):
        return None
    masked = replace(actions, masked=True)
    space = env.observation_space
    if isinstance(space, gymnasium.spaces.Dict) and KEY in space.spaces:
        return Masks("observation", masked)
    if KEY in info:
        return Masks("info", masked)
    if env.has_wrapper_attr(METHOD):
        return Masks("method", masked)
    return None


def features_of(space: Any, actions: ActionSpace) -> Any:
    """An observation space without the mask of actions in it."""
    if isinstance(actions, Box) or not isinstance(space, gymnasium.spaces.Dict) or KEY not in space.spaces:
        return space
    return gymnasium.spaces.Dict([(name, part) for name, part in space.spaces.items() if name != KEY])
