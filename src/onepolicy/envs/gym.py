"""Any gymnasium world, N copies stepped in this process, as a `ControlEnv`.

Each step ends in SAME_STEP fashion by our own loop (a finished copy is reset within the step, the observation that
ended it is kept), because gymnasium's vector worlds reset a step late by default and would put rows without a choice
into the data. In: Discrete, MultiDiscrete, MultiBinary and Box actions. Not in: how observations become rows
(spaces.py), masks of actions (masks.py), how a world is saved (saving.py), Atari's games (atari.py), processes
(workers.py).
"""

from __future__ import annotations

from typing import Any, final

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.envs import atari
from onepolicy.envs.masks import Masks, features_of, find_masks
from onepolicy.envs.saving import load_copies, restore, snapshot
from onepolicy.envs.spaces import Rows
from onepolicy.envs.vector import ActionSpace, Box, Discrete, MultiDiscrete, WorldOptions
from onepolicy.errors import ConfigError, DataError, nearest

Several = gymnasium.spaces.MultiDiscrete | gymnasium.spaces.MultiBinary


@final
class GymEnv:
    """`num_envs` copies of gymnasium's world `env_id`; copy i is seeded `seed + i`.

    Observations are flattened to [N, D] float32, as gymnasium.spaces.flatten does: a Box row by row, MultiBinary as 0
    and 1, Discrete one-hot, MultiDiscrete one-hot for each choice in turn, a Tuple's parts in their order, a Dict's in
    the order of the space's keys, which gymnasium sorts unless they came as an OrderedDict; with images among them, to
    rows of bytes (spaces.py). Where the world says which
    actions are legal, D counts these numbers too, at the end of each row. Several discrete choices at once
    (MultiDiscrete, MultiBinary) are a row of numbers from 0, wherever the space starts. Box actions are flattened to
    [N, dim] and clipped to their bounds here, at the world: the policy and its log-probability know nothing of it.
    steps: of each copy since it was made. first: the number of the first copy among those of all processes, for errors.
    training: of Atari's games.
    Raises: ConfigError for an unknown id, a missing package, a space that cannot be acted in or has no fixed length;
    DataError for whatever a copy raises and for a mask without a legal action, naming the copy and its step.
    """

    def __init__(
        self,
        env_id: str,
        num_envs: int,
        seed: int,
        options: WorldOptions | None = None,
        *,
        training: bool = False,
        first: int = 0,
    ) -> None:
        self.env_id, self.num_envs, self.first = env_id, num_envs, first
        options = options or WorldOptions()
        self.envs = [_open(env_id, options, training) for _ in range(num_envs)]
        self.actions = _action_space(env_id, self.envs[0])
        space = features_of(self.envs[0].observation_space, self.actions)
        self.rows = Rows(env_id, space, flat=options.flat)
        self.layout = self.rows.layout
        self._masks: Masks | None = None
        self.restarts = self.steps = 0
        self._obs = self._begin(seed, first=True)
        self.obs_dim = self._obs.shape[1]

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32 or uint8."""
        return torch.from_numpy(self._obs.copy())

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies, copy i seeded `seed + i`; the first observations [N, D]."""
        self._obs = self._begin(seed)
        return self.obs

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy. action: [N] or [N, choices] int64, or [N, dim] float32 for Box."""
        reward = np.empty(self.num_envs, dtype=np.float32)
        terminated, truncated = np.empty((2, self.num_envs), dtype=bool)
        final_obs = np.empty_like(self._obs)
        obs = np.empty_like(self._obs)
        for i, (env, chosen) in enumerate(zip(self.envs, self._native(action), strict=True)):
            try:
                seen, reward[i], terminated[i], truncated[i], info = env.step(chosen)
                ended = bool(terminated[i] or truncated[i])
                final_obs[i] = obs[i] = self._row(env, seen, info, acted_on=not ended)
                if ended:
                    obs[i] = self._row(env, *env.reset())
            except Exception as error:
                raise DataError(self._blame(f"after {self.steps} steps, at action {chosen}", i, error)) from error
        self.steps += 1
        self._obs = obs
        return EnvStep(
            obs=torch.from_numpy(obs.copy()),
            reward=torch.from_numpy(reward),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
            final_obs=torch.from_numpy(final_obs),
        )

    def state_dict(self) -> dict[str, Any]:
        """The plain state of every copy, or why it cannot be had (`obstacle`)."""
        state: dict[str, Any] = {name: getattr(self, name) for name in ("seed", "restarts", "steps")}
        state["obs"] = self._obs.copy()
        try:
            return state | {"obstacle": None, "layers": [snapshot(env) for env in self.envs]}
        except TypeError as error:
            return state | {"obstacle": str(error), "layers": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where a state could not be saved: a warning that says so, and new episodes."""
        load_copies(self, state, self.put_back)

    def put_back(self, state: dict[str, Any]) -> None:
        """Every copy as it was saved: the state's seed, layers and obs."""
        self.reset(state["seed"])
        for env, layers in zip(self.envs, state["layers"], strict=True):
            restore(env, layers)
        self._obs = state["obs"].copy()

    def _begin(self, seed: int, *, first: bool = False) -> NDArray[Any]:
        """New episodes; their first rows. The world's very first reset shows where its masks are."""
        self.seed = seed
        rows = []
        for i, env in enumerate(self.envs):
            try:
                seen, info = env.reset(seed=seed + i)
                if first and i == 0:
                    self._masks = find_masks(env, self.actions, info)
                    self.actions = self._masks.actions if self._masks else self.actions
                rows.append(self._row(env, seen, info))
            except Exception as error:
                raise DataError(self._blame(f"at its reset with seed {seed + i}", i, error)) from error
        return np.stack(rows)

    def _row(self, env: Any, seen: Any, info: Any, *, acted_on: bool = True) -> NDArray[Any]:
        """An observation [D], followed by its mask of actions; acted_on: a legal one is needed."""
        flat = self.rows.of(seen)
        if self._masks is None:
            return flat
        return np.concatenate([flat, self._masks.read(env, seen, info, acted_on=acted_on).astype(flat.dtype)])

    def _blame(self, when: str, copy: int, error: Exception) -> str:
        what = "gave a bad action mask" if isinstance(error, DataError) else f"raised {type(error).__name__}"
        return (
            f"{self.env_id} {what} in world {self.first + copy} {when}: {error}. Look for the cause in the environment."
        )

    def _native(self, action: Tensor) -> list[Any]:
        """The actions as gymnasium wants them."""
        space = self.envs[0].action_space
        if isinstance(self.actions, Box):
            shaped = action.numpy().reshape(self.num_envs, *space.shape)
            held = np.minimum(np.maximum(shaped, space.low), space.high)  # a third of the time of np.clip
            return list(held.astype(space.dtype, copy=False))
        chosen, sizes = action.numpy(), self.actions.sizes
        wanted = (self.num_envs,) if isinstance(self.actions, Discrete) else (self.num_envs, len(sizes))
        rows = chosen.reshape(self.num_envs, -1)
        if chosen.shape != wanted or (rows < 0).any() or (rows >= np.array(sizes)).any():
            most = " and ".join(str(size - 1) for size in sizes)
            raise ConfigError(
                f"action is {action.tolist()}; {self.env_id} takes numbers from 0 to {most}, "
                f"{'one' if len(sizes) == 1 else len(sizes)} a world."
            )
        start = getattr(space, "start", 0)
        if isinstance(self.actions, Discrete):
            return [number + int(start) for number in chosen.tolist()]
        return list((rows.reshape(self.num_envs, *space.shape) + start).astype(space.dtype))


def _open(env_id: str, options: WorldOptions, training: bool) -> Any:
    """One copy. Raises ConfigError naming the nearest id, or the package to install."""
    if env_id.startswith(atari.PREFIX):
        return atari.game(env_id, options.atari, training=training)
    try:
        return gymnasium.make(env_id, disable_env_checker=True)
    except gymnasium.error.DependencyNotInstalled as error:
        raise ConfigError(f"{env_id} needs a package that is not installed. {error}") from error
    except gymnasium.error.UnregisteredEnv as error:
        hint = nearest(env_id, sorted(gymnasium.registry))
        hint = hint if hint.startswith("Did") else "gymnasium.pprint_registry() lists all that are known."
        raise ConfigError(f"env is {env_id!r}, which gymnasium does not know. {hint}") from error
    except (gymnasium.error.Error, ModuleNotFoundError) as error:
        raise ConfigError(f"env is {env_id!r}, which gymnasium cannot make: {error}") from error


def _action_space(env_id: str, env: Any) -> ActionSpace:
    space = env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Box(tuple(space.low.ravel().tolist()), tuple(space.high.ravel().tolist()))
    if not isinstance(space, Several):
        raise ConfigError(
            f"{env_id} takes actions of {space}; only Discrete, MultiDiscrete, MultiBinary and Box of floats can be "
            "acted in. Wrap it so that it takes one of these."
        )
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return MultiDiscrete((2,) * int(np.prod(space.shape)))
    return MultiDiscrete(tuple(space.nvec.ravel().tolist()))
