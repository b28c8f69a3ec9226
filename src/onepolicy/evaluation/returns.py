"""How good a controller is: returns of whole episodes, with intervals over episodes and over training seeds.

Evaluation plays in worlds and with seeds of its own, and greedily, so that measuring cannot change training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from onepolicy.envs.vector import Box, ControlEnv, WorldOptions, make
from onepolicy.errors import ConfigError, DataError
from onepolicy.evaluation.stats import Interval, bootstrap_interval, iqm, mean
from onepolicy.nn.frozen import Remembering
from onepolicy.nn.policies import ControlPolicy, Greedy
from onepolicy.types import Metrics

MOST_WORLDS = 100
"""Copies of a world that play at once in an evaluation."""


@dataclass(frozen=True)
class Returns:
    """Episodes in the order of their worlds: undiscounted returns in reward units, lengths in steps."""

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    def interval(self) -> Interval:
        """The mean return with its 95 % bootstrap interval over episodes."""
        return bootstrap_interval(self.returns)

    def metrics(self) -> Metrics:
        """Mean return with its interval, and mean length, as `eval/...`."""
        found = self.interval()
        return {
            "eval/return": found.value,
            "eval/return_low": found.low,
            "eval/return_high": found.high,
            "eval/length": float(np.mean(self.lengths)),
        }


def play(env: ControlEnv, act: Greedy, episodes: int, seed: int) -> Returns:
    """The returns of `episodes` whole episodes from a reset with `seed`, each world playing as many.

    Taking the same number from each world, and not the first to end, keeps the sample fair to long episodes.
    Raises: ConfigError for no episodes; DataError for an observation or reward that is not finite.
    """
    if episodes < 1:
        raise ConfigError(f"eval_episodes is {episodes}; a mean needs at least 1. Set eval_episodes >= 1.")
    quota = -(-episodes // env.num_envs)
    totals: list[list[float]] = [[] for _ in range(env.num_envs)]
    lengths: list[list[int]] = [[] for _ in range(env.num_envs)]
    total, length = np.zeros(env.num_envs), np.zeros(env.num_envs, dtype=np.int64)
    obs = env.reset(seed).numpy()
    kind = np.float32 if isinstance(env.actions, Box) else np.int64
    left = env.num_envs
    memory = act.memory if isinstance(act, Remembering) else None
    if memory is not None:
        memory.forget(np.ones(env.num_envs, dtype=bool))
    while left:
        step = env.step(torch.from_numpy(act(obs).astype(kind, copy=False)))
        obs = step.obs.numpy()
        total += step.reward.numpy()
        length += 1
        if not (np.isfinite(obs).all() and np.isfinite(total).all()):
            raise DataError(f"{env.env_id} gave a non-finite observation or reward in evaluation. Look for its cause.")
        over = (step.terminated | step.truncated).numpy()
        if memory is not None:
            memory.forget(over)
        for world in over.nonzero()[0]:
            if len(totals[world]) < quota:
                totals[world].append(float(total[world]))
                lengths[world].append(int(length[world]))
                left -= len(totals[world]) == quota
            total[world], length[world] = 0.0, 0
    return Returns(
        tuple(x for each in totals for x in each)[:episodes], tuple(x for n in lengths for x in n)[:episodes]
    )


def evaluate_policy(
    policy: ControlPolicy, *, env: str, episodes: int = 100, seed: int = 0, world: WorldOptions | None = None
) -> Returns:
    """The returns of a policy's best actions over whole episodes of new worlds.

    world: how they are played and seen, stacked frames say; Atari's games are whole and pay their true score.
    Raises: ConfigError for an unknown env, offering the nearest, or one that does not fit the policy's observations.
    """
    worlds = make(env, max(1, min(episodes, MOST_WORLDS)), seed, world)
    if worlds.obs_dim != policy.obs_dim:
        raise ConfigError(
            f"{env} observes {worlds.obs_dim} numbers, this policy takes {policy.obs_dim}. Evaluate it in the env it "
            "was trained in."
        )
    return play(worlds, policy.greedy(), episodes, seed)


def over_seeds(values: Sequence[float]) -> dict[str, Interval]:
    """Mean and interquartile mean over training seeds, each with its 95 % bootstrap interval."""
    return {"mean": bootstrap_interval(values, mean), "iqm": bootstrap_interval(values, iqm)}
