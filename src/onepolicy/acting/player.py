"""A trained controller as its user meets it: observations as the world gives them in, what `env.step` takes out.

In: one observation or several, checked; the best action or a draw; the world's own form of both. Not in: playing
(evaluation/returns.py) and learning, which want rows of numbers and many worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import Evaluation
from onepolicy.envs.masks import KEY, features_of
from onepolicy.envs.spaces import Rows
from onepolicy.envs.vector import Box, ControlEnv, WorldOptions
from onepolicy.errors import ConfigError, DataError
from onepolicy.nn.policies import ControlPolicy, Greedy, Sampler


@final
class Player:
    """`inner`, a policy for rows of numbers, in the world `env` that it learnt in.

    inner: the torch module, or one behind its statistic of observations; has `evaluate` and, where it is a module,
    `parameters`. observation_space, action_space: gymnasium's, of the world as it is. world: how it was played and
    seen.
    """

    def __init__(self, inner: ControlPolicy, env: ControlEnv, world: WorldOptions | None = None) -> None:
        self.world = world
        self.inner, self.env_id, self.obs_dim, self.actions = inner, env.env_id, env.obs_dim, env.actions
        opened = gymnasium.make(env.env_id, disable_env_checker=True)
        self.observation_space, self.action_space = opened.observation_space, opened.action_space
        opened.close()
        self._rows = Rows(env.env_id, features_of(self.observation_space, self.actions))
        self._greedy: Greedy | None = None
        self._rng = torch.Generator().manual_seed(0)

    def act(
        self,
        obs: Any,
        *,
        stochastic: bool = False,
        legal: Any = None,
        rng: torch.Generator | None = None,
    ) -> Any:
        """The action for an observation of the world, or those for several, as `env.step` takes it.

        obs: one observation, or an array [N, ...] of them; not normalised, whatever the policy learnt from. stochastic:
        drawn from the policy, not its best. legal: where the world masks actions, which are legal ([A] or [N, A]); None
        for what a Dict observation's own mask says, or for all. rng: of the draws, the player's own otherwise. A
        recurrent policy takes successive calls as successive steps; `forget` between episodes.
        Returns: for one observation an int (Discrete) or an array of the action space's shape; for several, an array
        of these. Real numbers are within the space's bounds.
        Raises: DataError for an observation that is not the world's, or not finite.
        """
        rows, single = self._seen(obs)
        if self.actions.bits:
            legal = obs.get(KEY) if legal is None and isinstance(obs, Mapping) else legal
            rows = np.concatenate([rows, self._legal(legal, len(rows))], axis=1)
        native = self.act_on(rows, rng=(rng or self._rng) if stochastic else None)
        if not single:
            return native
        return int(native[0]) if isinstance(self.action_space, gymnasium.spaces.Discrete) else native[0]

    def act_on(self, rows: NDArray[Any], *, rng: torch.Generator | None = None) -> NDArray[Any]:
        """Actions [N, ...] as the world takes them, for rows [N, D] with their masks; the best, or drawn from rng."""
        if rng is not None:
            inner: Any = self.inner
            return self._native(inner.act(torch.from_numpy(rows), rng=rng)[0].numpy())
        self._greedy = self._greedy or self.inner.greedy()
        return self._native(np.asarray(self._greedy(rows)))

    def forget(self) -> None:
        """A new episode begins: a recurrent policy remembers nothing of the last."""
        self._greedy = None
        forget = getattr(self.inner, "forget", None)
        if forget is not None:
            forget()

    def greedy(self) -> Greedy:
        """The policy's best actions for rows [N, D], as it is now."""
        return self.inner.greedy()

    def sampler(self, rng: np.random.Generator) -> Sampler:
        """The policy for acting on rows [N, D]; draws from rng. Of policies that learnt from their own rollouts."""
        return self.inner.sampler(rng)

    def evaluate(self, inputs: Any, action: Tensor) -> Evaluation:
        """Log-probability, entropy and value of rows [..., D] and actions, where the policy has them."""
        return self.inner.evaluate(inputs, action)

    def _seen(self, obs: Any) -> tuple[NDArray[Any], bool]:
        """Observations as rows [N, D], and whether it was one."""
        if not isinstance(self.observation_space, gymnasium.spaces.Box):
            return self._row(obs)[None], True
        try:
            array = np.asarray(obs.numpy() if isinstance(obs, Tensor) else obs)
        except ValueError as error:
            raise DataError(self._refusal(f"a {type(obs).__name__} of uneven parts")) from error
        if array.dtype.kind not in "fiub":
            raise DataError(self._refusal(f"{type(obs).__name__} of {array.dtype}"))
        shape = self.observation_space.shape
        if array.shape[-1:] == (self.obs_dim - self.actions.bits,) and array.ndim < 3 and shape != array.shape[-1:]:
            return array.reshape(-1, array.shape[-1]).astype(self._rows.dtype), array.ndim == 1
        if array.shape != shape and (array.ndim == 0 or array.shape[1:] != shape):
            raise DataError(self._refusal(f"the shape {array.shape}"))
        if not np.isfinite(array).all():
            raise DataError(f"the observation {array.tolist()} is not finite. Look for the cause in the environment.")
        if array.shape == shape:
            return self._row(array)[None], True
        if not len(array):
            raise DataError(self._refusal("an array of none"))
        return np.stack([self._row(each) for each in array]), False

    def _row(self, obs: Any) -> NDArray[Any]:
        try:
            row = self._rows.of(obs)
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DataError(self._refusal(f"{type(obs).__name__} ({error})")) from error
        if len(row) != self.obs_dim - self.actions.bits:
            raise DataError(
                f"one observation of {self.env_id} has {len(row)} numbers, the policy sees "
                f"{self.obs_dim - self.actions.bits}: the last few at once. Give rows of these, [{self.obs_dim}] or "
                f"[N, {self.obs_dim}], the oldest first."
            )
        return row

    def _refusal(self, what: str) -> str:
        return (
            f"the observation is {what}; this policy learnt in {self.env_id}, which observes {self.observation_space}. "
            "Give one such observation, or an array of several; not normalised."
        )

    def _legal(self, legal: Any, rows: int) -> NDArray[np.float32]:
        bits = self.actions.bits
        if legal is None:
            return np.ones((rows, bits), np.float32)
        found = np.asarray(legal, np.float32).reshape(-1, bits) if np.size(legal) % bits == 0 else np.zeros((0, bits))
        if len(found) != rows:
            raise DataError(f"legal has {np.size(legal)} numbers; {rows} x {bits} actions are to be said legal or not.")
        if not (found > 0.5).any(axis=1).all():
            raise DataError("legal has no legal action for an observation; at least one must be.")
        return found.astype(np.float32)

    def _native(self, found: NDArray[Any]) -> NDArray[Any]:
        """Actions [N, ...] as the space has them."""
        space = self.action_space
        if isinstance(space, gymnasium.spaces.Discrete):
            return found.reshape(-1) + np.int64(space.start)
        shaped = found.reshape(-1, *space.shape)
        if isinstance(self.actions, Box) and isinstance(space, gymnasium.spaces.Box):
            return np.clip(shaped, space.low, space.high).astype(space.dtype, copy=False)
        return (shaped + getattr(space, "start", 0)).astype(space.dtype, copy=False)


def require_same_world(player: Player, env: ControlEnv) -> None:
    """Raises ConfigError when a policy cannot act in a world: it observes or does something else."""
    if (env.obs_dim, env.actions) != (player.obs_dim, player.actions):
        raise ConfigError(
            f"{env.env_id} observes {env.obs_dim} numbers and takes {env.actions}; this policy learnt in "
            f"{player.env_id}, with {player.obs_dim} numbers and {player.actions}. Use it in the env it was trained in."
        )
