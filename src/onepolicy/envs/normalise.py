"""Observations and rewards brought to unit scale by one running statistic over all copies of a world.

In: the statistic (`Moments`), the world that learns and applies it (`Normalised`). Not in: acting in unscaled worlds
with a policy that learnt in a scaled one (acting/normalised.py), where the statistic stands still.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onepolicy.batch import EnvStep
from onepolicy.core.check import fraction
from onepolicy.envs.vector import ControlEnv
from onepolicy.errors import ConfigError

CLIP = 10.0
"""Scaled observations and rewards are held within +-CLIP."""
EPS = 1e-8
"""Added to variances."""
PRIOR = 1e-4
"""Rows that mean 0 and variance 1 count for, before any was seen."""


@final
class Moments:
    """Running mean and variance of rows of `dim` numbers, float64 [dim]; count: rows seen, and PRIOR.

    plain: how many numbers at the end of a row are not counted among them and stay as they are, as masks of actions do.
    Source: Chan, Golub and LeVeque 1983, Algorithms for computing the sample variance, equation 1.5 for blocks.
    """

    def __init__(self, dim: int, *, plain: int = 0) -> None:
        self.plain = plain
        self.count, self.mean, self.var = PRIOR, np.zeros(dim), np.ones(dim)
        self._std = np.sqrt(self.var + EPS)

    def update(self, rows: NDArray[Any]) -> bool:
        """Adds rows [N, dim]; False, and none of them, where a number is not finite."""
        if not np.isfinite(rows).all():
            return False
        rows = rows[:, : -self.plain] if self.plain else rows
        n = len(rows)
        total = self.count + n
        if n == 1:  # its own mean, without a spread
            delta, moment = rows[0] - self.mean, self.var * self.count
        else:
            mean = np.add.reduce(rows, axis=0, dtype=np.float64) / n
            delta = mean - self.mean
            moment = self.var * self.count + np.add.reduce(np.square(rows - mean), axis=0)
        self.var = (moment + np.square(delta) * (self.count * n / total)) / total
        self.mean, self.count = self.mean + delta * (n / total), total
        self._std = np.sqrt(self.var + EPS)
        return True

    def standardise(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """(rows - mean) / std, held within +-CLIP, [..., dim] float32."""
        if self.plain:
            held = _held((rows[..., : -self.plain] - self.mean) / self._std)
            return np.concatenate([held, rows[..., -self.plain :]], axis=-1, dtype=np.float32)
        return _held((rows - self.mean) / self._std)

    def scale(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        """numbers / std, not centred, held within +-CLIP, [N] float32; for one dim."""
        return _held(numbers / self._std)

    def copy(self) -> Moments:
        """The statistic as it is now."""
        return deepcopy(self)

    def state_dict(self) -> dict[str, Any]:
        """Count, mean and variance."""
        return {"count": self.count, "mean": self.mean.copy(), "var": self.var.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of state_dict."""
        self.count, self.mean, self.var = state["count"], state["mean"].copy(), state["var"].copy()
        self._std = np.sqrt(self.var + EPS)


@final
class Normalised:
    """`env` with observations standardised and rewards divided by the std of the discounted return, as they come in.

    gamma: the agent's own; the return of copy i is R <- gamma R + r, and 0 again once its episode has ended. obs,
    reward: which of the two to normalise. Every observation that is acted on is counted, also the first of an episode;
    the one that ended an episode is scaled as it is, but not counted. `EnvStep.raw_reward` keeps what the world paid. A
    step whose numbers are not all finite passes as it is, to be named by whoever acts, and leaves no trace here.
    Source: stable-baselines3's VecNormalize; Huang et al. 2022, 37 details of PPO, continuous details 6 to 9.
    """

    def __init__(self, env: ControlEnv, *, gamma: float, obs: bool = True, reward: bool = True) -> None:
        fraction("gamma", gamma)
        self.env, self.gamma = env, gamma
        self.num_envs, self.env_id, self.obs_dim, self.actions = env.num_envs, env.env_id, env.obs_dim, env.actions
        self.layout = env.layout
        if obs and env.layout is not None:
            raise ConfigError(
                f"norm_obs is on in {env.env_id}, which shows images; the network scales them. Turn norm_obs off."
            )
        self.obs_moments = Moments(env.obs_dim - env.actions.bits, plain=env.actions.bits) if obs else None
        self.return_moments = Moments(1) if reward else None
        self._returns = np.zeros(env.num_envs)
        self._count(env.obs)

    @property
    def obs(self) -> Tensor:
        """What to act on next, [N, D] float32."""
        return self._seen(self.env.obs)

    def reset(self, seed: int) -> Tensor:
        """New episodes in all copies; the statistic stays."""
        obs = self.env.reset(seed)
        self._returns[:] = 0.0
        self._count(obs)
        return self._seen(obs)

    def step(self, action: Tensor) -> EnvStep:
        """One step of every copy, scaled by the statistic with this step in it."""
        step = self.env.step(action)
        obs, final_obs, reward, raw = step.obs, step.final_obs, step.reward, None
        ended = (step.terminated | step.truncated).numpy()
        if self.obs_moments is not None and self.obs_moments.update(obs.numpy()):
            obs = final_obs = torch.from_numpy(self.obs_moments.standardise(obs.numpy()))
            if ended.any():
                final_obs = self._seen(step.final_obs)
        if self.return_moments is not None:
            raw, reward = reward, self._paid(self.return_moments, reward, ended)
        return EnvStep(obs, reward, step.terminated, step.truncated, final_obs, raw)

    def state_dict(self) -> dict[str, Any]:
        """The world, the statistic and the returns under way."""
        return {
            "env": self.env.state_dict(),
            "seen": self.env.obs.numpy(),
            "obs": self.obs_moments and self.obs_moments.state_dict(),
            "return": self.return_moments and self.return_moments.state_dict(),
            "returns": self._returns.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of state_dict. Where the world could not be saved and starts anew, so do the returns."""
        self.env.load_state_dict(state["env"])
        for moments, saved in ((self.obs_moments, state["obs"]), (self.return_moments, state["return"])):
            if moments is not None:
                moments.load_state_dict(saved)
        same = np.array_equal(self.env.obs.numpy(), state["seen"])
        self._returns = state["returns"].copy() if same else np.zeros(self.num_envs)

    def _count(self, obs: Tensor) -> None:
        if self.obs_moments is not None:
            self.obs_moments.update(obs.numpy())

    def _seen(self, obs: Tensor) -> Tensor:
        if self.obs_moments is None or not np.isfinite(obs.numpy()).all():
            return obs
        return torch.from_numpy(self.obs_moments.standardise(obs.numpy()))

    def _paid(self, moments: Moments, reward: Tensor, ended: NDArray[np.bool_]) -> Tensor:
        returns = self.gamma * self._returns + reward.numpy()
        if not moments.update(returns[:, None]):
            return reward
        self._returns = np.where(ended, 0.0, returns)
        return torch.from_numpy(moments.scale(reward.numpy()))


def _held(numbers: NDArray[np.float64]) -> NDArray[np.float32]:
    """Numbers within +-CLIP, which np.clip takes three times as long for."""
    return np.minimum(np.maximum(numbers, -CLIP), CLIP).astype(np.float32)
