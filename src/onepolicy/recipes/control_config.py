"""What a control run is made of: its configuration, each algorithm's defaults, presets with their sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from onepolicy.core.check import fraction
from onepolicy.errors import ConfigError, nearest

Algo = Literal["reinforce", "a2c", "ppo"]


@dataclass(frozen=True)
class Config:
    """Policy-gradient training on control. Steps are environment steps, counted over all worlds."""

    algo: Algo = "ppo"
    """The algorithm."""
    env: str = "CartPole-v1"
    """The world: any id that gymnasium knows."""
    steps: int = 1_000_000
    """Steps to train for; the rollout under way is finished."""
    num_envs: int = 1
    """Worlds played side by side; in REINFORCE, the whole episodes of each update."""
    n_steps: int = 2048
    """Steps of each world in a rollout; in REINFORCE, only how many are played at a time."""
    batch_size: int = 64
    """PPO: steps in a minibatch."""
    epochs: int = 10
    """PPO: passes over a rollout."""
    gamma: float = 0.99
    """Discount."""
    lam: float = 0.95
    """Lambda of the generalised advantage (PPO, A2C)."""
    lr: float = 3e-4
    """Learning rate."""
    schedule: Literal["constant", "linear"] = "constant"
    """Of the learning rate and PPO's clip range: "linear" takes them to 0 at the end of training (PPO, A2C)."""
    clip: float = 0.2
    """PPO: the ratio is held within [1 - clip, 1 + clip]."""
    value_clip: float | None = None
    """PPO: reward units the critic may move in one rollout's updates; None for no bound."""
    value_coef: float = 1.0
    """Weight of the critic's loss, half the squared error; stable-baselines3's vf_coef 0.5 is 1.0 here."""
    entropy_coef: float = 0.0
    """Weight of the entropy bonus."""
    max_grad_norm: float = 0.5
    """Bound on the gradient's 2-norm; 0 for none."""
    target_kl: float | None = None
    """PPO: a rollout's updates end once the KL is 1.5 times this; None for never."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the tanh layers of actor and critic."""
    eval_every: int = 10_000
    """Steps between evaluations; 0 for one at the end."""
    eval_episodes: int = 100
    """Whole episodes of an evaluation, played greedily."""
    save_every: int = 50_000
    """Steps between checkpoints; 0 for one at the end."""
    seed: int = 0
    """Seed of everything random; with several seeds, the first."""
    seeds: int = 1
    """How many seeds to train, each on its own, as many at once as there are cores for."""
    threads: int = 1
    """CPU threads of torch for each seed; small networks are slower with more."""
    out: str = ""
    """Run directory; empty for the next free runs/<algo>-<n>."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_envs", "n_steps", "eval_episodes", "seeds", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; there must be at least 1. Set {name} >= 1.")
        for name in ("eval_every", "save_every"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it counts steps. Set it to 0 for only at the end.")
        fraction("gamma", self.gamma)
        fraction("lam", self.lam)
        if self.algo == "reinforce" and self.schedule != "constant":
            raise ConfigError(
                f"schedule is {self.schedule!r} with reinforce, whose number of updates is not known beforehand. "
                'Set schedule="constant".'
            )


DEFAULTS: dict[str, Config] = {
    # stable-baselines3 2.9 defaults (its vf_coef 0.5 is on the squared error, ours on half of it)
    "ppo": Config(),
    "a2c": Config(algo="a2c", num_envs=8, n_steps=5, lam=1.0, lr=7e-4),
    "reinforce": Config(algo="reinforce", num_envs=8, n_steps=64, lam=1.0, lr=3e-3),
}
PRESETS: dict[str, Config] = {
    # rl-baselines3-zoo hyperparams/ppo.yml, those of its worlds that need no normalisation of observations
    "ppo/CartPole-v1": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=1e-3, clip=0.2, schedule="linear",
    ),
    # ours: the zoo's with twice the learning rate, for time rather than for steps
    "ppo/CartPole-v1-fast": replace(
        DEFAULTS["ppo"], steps=100_000, num_envs=8, n_steps=32, batch_size=256, lam=0.8, gamma=0.98, epochs=20,
        lr=2e-3, clip=0.2, schedule="linear",
    ),
    # rl-baselines3-zoo again
    "ppo/LunarLander-v3": replace(
        DEFAULTS["ppo"], env="LunarLander-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98, gamma=0.999,
        epochs=4, entropy_coef=0.01,
    ),
    "ppo/LunarLanderContinuous-v3": replace(
        DEFAULTS["ppo"], env="LunarLanderContinuous-v3", num_envs=16, n_steps=1024, batch_size=64, lam=0.98,
        gamma=0.999, epochs=4, entropy_coef=0.01,
    ),
    # rl-baselines3-zoo hyperparams/a2c.yml
    "a2c/CartPole-v1": replace(DEFAULTS["a2c"], steps=500_000),
    "a2c/LunarLander-v3": replace(
        DEFAULTS["a2c"], env="LunarLander-v3", steps=200_000, gamma=0.995, lr=8.3e-4, schedule="linear",
        entropy_coef=1e-5,
    ),
    # ours: the zoo has no REINFORCE
    "reinforce/CartPole-v1": replace(DEFAULTS["reinforce"], steps=300_000),
}  # fmt: skip


def starting_point(algorithm: str, fields: Mapping[str, Any]) -> Config:
    """The preset for an algorithm and the world among `fields`, or else the algorithm's defaults.

    Raises: ConfigError for an unknown algorithm, offering the nearest.
    """
    if algorithm not in DEFAULTS:
        raise ConfigError(f"{algorithm!r} is not an algorithm for control. {nearest(algorithm, DEFAULTS)}")
    env = fields.get("env", DEFAULTS[algorithm].env)
    return PRESETS.get(f"{algorithm}/{env}", replace(DEFAULTS[algorithm], env=env))
